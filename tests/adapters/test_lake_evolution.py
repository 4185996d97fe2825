"""Columns come, go, change their type and their order: every file answers as what it holds."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sidelight.adapters import Manifest

# The same deployment over the years; the names and the order of columns are those of each step.
_STEPS: list[tuple[list[dict[str, Any]], dict[str, pa.DataType]]] = [
    ([{"features.x": 1, "features.cat": "a"}, {"features.x": 5, "features.cat": "b"}], {}),
    ([{"features.cat": "b", "features.x": 2.5, "features.y": True}], {}),
    ([{"features.x": "5", "features.y": 7}], {}),
    (
        [{"features.y": None, "features.x": None}],
        {"features.y": pa.null(), "features.x": pa.null()},
    ),
    (
        [{"features.cat": "a", "features.x": 9.0}],
        {
            "features.cat": pa.dictionary(pa.int32(), pa.string()),
            "features.x": pa.float32(),
        },
    ),
    (
        [{"features.cat": "c", "features.x": 9.5}],
        {"features.cat": pa.dictionary(pa.int32(), pa.string()), "features.x": pa.float32()},
    ),
    ([{"outputs.only": [1.0, 2.0]}], {}),
]


def _values() -> dict[str, dict[str, Any]]:
    """Return what each inference holds."""
    return {
        f"i{step}-{place}": values
        for step, (rows, _) in enumerate(_STEPS)
        for place, values in enumerate(rows)
    }


def _expected(column: str, holds: Any) -> list[str]:
    return sorted(name for name, values in _values().items() if holds(values.get(column)))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


# A value of another type, and a column that is not there, is unknown: neither equal nor unequal.
_QUESTIONS: dict[str, Callable[[], list[str]]] = {
    "features.x > 2": lambda: _expected(
        "features.x", lambda value: _is_number(value) and value > 2
    ),
    "features.x != 5": lambda: _expected("features.x", lambda v: _is_number(v) and v != 5),
    "features.x = '5'": lambda: _expected("features.x", lambda value: value == "5"),
    "features.x is null": lambda: _expected("features.x", lambda value: value is None),
    "features.x is not null": lambda: _expected("features.x", lambda value: value is not None),
    "features.y = true": lambda: _expected("features.y", lambda value: value is True),
    "features.y >= 7": lambda: _expected("features.y", lambda v: _is_number(v) and v >= 7),
    "features.cat in ('a', 'c')": lambda: _expected("features.cat", lambda v: v in {"a", "c"}),
    "not features.cat = 'a'": lambda: _expected(
        "features.cat", lambda value: value is not None and value != "a"
    ),
    "outputs.only is not null": lambda: _expected("outputs.only", lambda v: v is not None),
    "features.x > 2 or features.y is null": lambda: sorted(
        {
            *_expected("features.x", lambda value: _is_number(value) and value > 2),
            *_expected("features.y", lambda value: value is None),
        }
    ),
}


@pytest.fixture(params=["own files", "one hot file", "moved", "merged"])
def evolved(
    request: pytest.FixtureRequest,
    store: Any,
    samples: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
) -> Any:
    """A lake whose columns have changed, as files of one step each, and as what comes of them."""
    if request.param != "own files":
        monkeypatch.setattr("sidelight.adapters._lake._OWN_FILES", 0)
    for _ in range(2 if request.param == "merged" else 1):
        batches = [
            samples.batch(
                [
                    samples.row(f"i{step}-{place}", minutes=step * 10 + place, **values)
                    for place, values in enumerate(rows)
                ],
                types=types,
            )
            for step, (rows, types) in enumerate(_STEPS)
        ]
        store.add(*batches)
    if request.param in {"moved", "merged"}:
        while (change := store.lake.settle(Manifest(store.documents))) is not None:
            store.documents.put([*change.documents, *store.lake.remove(change.obsolete)])
    if request.param == "merged":
        while (change := store.lake.compact(Manifest(store.documents), min_files=2)) is not None:
            store.documents.put([*change.documents, *store.lake.remove(change.obsolete)])
    return store


def test_every_file_answers_as_what_it_holds(evolved: Any) -> None:
    found = {where: sorted(evolved.ids(where=where)) for where in _QUESTIONS}

    assert found == {where: expected() for where, expected in _QUESTIONS.items()}


def test_rows_are_shown_as_they_were_stored(evolved: Any) -> None:
    for name, values in _values().items():
        found = evolved.queries.get(name)
        assert found is not None
        shown = {f"features.{key}": value for key, value in found.rows[0].features.items()}
        shown |= {f"outputs.{key}": value for key, value in found.rows[0].outputs.items()}
        assert shown == values


def test_files_of_other_columns_are_not_merged_into_one_type(evolved: Any) -> None:
    files = Manifest(evolved.documents).files("inferences")

    assert len({file.columns for file in files}) == 6
    for file in files:
        if file.hot is None:
            schema = pq.read_schema(evolved.folder / "lake" / file.path)
            # Parquet has a name of its own for the items of a list.
            found = ((item.name, str(item.type).replace("element", "item")) for item in schema)
            assert tuple(found) == file.columns


def test_an_export_has_the_union_of_all_columns(evolved: Any) -> None:
    content = b"".join(evolved.queries.export(format="parquet"))

    table = pq.read_table(pa.BufferReader(content))

    types = {name: str(table.schema.field(name).type) for name in table.column_names}
    assert types["features.x"] == types["features.y"] == types["features.cat"] == "string"
    assert types["outputs.only"].startswith("list<")
    shown = dict(
        zip(table.column("id").to_pylist(), table.column("features.x").to_pylist(), strict=True)
    )
    assert shown["i0-0"] == "1"
    assert shown["i2-0"] == "5"
    assert shown["i3-0"] is None
