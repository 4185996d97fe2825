"""Arrow columns as detectors take them."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from sidelight.payloads import ROW_SCHEMA, Batch
from sidelight.service import _columns
from sidelight.service._columns import (
    arrays_of,
    background_columns,
    joined_batches,
    parts_of,
    rows_of,
    watched_batch,
    watched_rows,
    with_prefixes,
)


def _batch(rows: list[dict[str, Any]], **columns: pa.Array) -> Batch:
    defaults = {"row": 0, "revision": 0, "synthetic": False, "protocol": "v2", "time": 0}
    filled = [{"id": f"{n}", "request_id": f"{n}"} | defaults | row for n, row in enumerate(rows)]
    arrays = [pa.array([row.get(item.name) for row in filled], item.type) for item in ROW_SCHEMA]
    fields = [*ROW_SCHEMA, *(pa.field(name, values.type) for name, values in columns.items())]
    records = pa.RecordBatch.from_arrays(arrays + list(columns.values()), schema=pa.schema(fields))
    return Batch.build(records, deployment="a/b", layout={})


def test_rows_are_cut_where_the_version_changes_and_stay_in_order() -> None:
    versions = ["a", "a", None, "b", "a"]
    values = pa.array([1.0, 2.0, 3.0, 4.0, 5.0])
    batch = _batch([{"version": version} for version in versions], **{"features.x": values})

    parts = list(rows_of(batch.records))

    assert [(part.version, part.columns["x"].tolist()) for part in parts] == [
        ("a", [1.0, 2.0]),
        (None, [3.0]),
        ("b", [4.0]),
        ("a", [5.0]),
    ]
    assert all(len(part.times) == len(part.columns["x"]) for part in parts)


@pytest.mark.parametrize("version", [None, "v"])
def test_rows_of_one_version_are_one_part(version: str | None) -> None:
    (part,) = rows_of(_batch([{"version": version}] * 3).records)

    assert (part.version, len(part.times)) == (version, 3)


def test_times_carry_what_they_are() -> None:
    (part,) = rows_of(_batch([{"time": 1_500_000}]).records)

    assert str(part.times[0]).startswith("1970-01-01T00:00:01.5")


@pytest.mark.parametrize(
    ("row", "is_watched"),
    [
        pytest.param({}, True, id="plain"),
        pytest.param({"orphan": "request"}, True, id="request-alone"),
        pytest.param({"orphan": "response"}, False, id="response-alone"),
        pytest.param({"synthetic": True}, False, id="synthetic"),
        pytest.param({"revision": 1}, False, id="completed-later"),
    ],
)
def test_detectors_see_each_row_of_traffic_once(row: dict[str, Any], is_watched: bool) -> None:  # noqa: FBT001
    batch = _batch([{}, row])

    assert watched_rows(batch).to_pylist() == [True, is_watched]
    assert watched_batch(batch).records["id"].to_pylist() == (["0", "1"] if is_watched else ["0"])


def test_batches_of_the_same_columns_are_joined_in_order() -> None:
    numbers, words = pa.array([1.0, 2.0]), pa.array(["a", "b"])
    first = _batch([{}, {}], **{"features.x": numbers})
    other = _batch([{}, {}], **{"features.x": words})

    found = list(joined_batches([first, first, other, first]))

    assert [len(batch) for batch in found] == [4, 2, 2]
    assert found[0].feature("x").to_pylist() == [1.0, 2.0, 1.0, 2.0]
    assert [batch.deployment for batch in found] == ["a/b"] * 3
    assert list(joined_batches([])) == []


def test_what_is_joined_and_what_is_cut_has_at_most_so_many_cells(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    short, long = (
        _batch([{}] * n, **{"features.x": pa.array(range(n)), "outputs.y": pa.array([0] * n)})
        for n in (3, 9)
    )
    assert list(parts_of(long)) == [long]

    monkeypatch.setattr(_columns, "_MOST_CELLS", 12)
    found = list(joined_batches([short, short, short, long, short]))
    assert [len(batch) for batch in found] == [6, 3, 9, 3]

    for most, lengths in ((8, [4, 4, 1]), (1, [1] * 9)):
        monkeypatch.setattr(_columns, "_MOST_CELLS", most)
        parts = list(parts_of(long))
        assert [len(part) for part in parts] == lengths
        assert [value for part in parts for value in part.feature("x").to_pylist()] == [*range(9)]


def test_joined_batches_keep_what_scores_need_and_leave_the_rest_empty() -> None:
    said = {"version": "1", "tags": "{}", "request_ref": "r"}
    batch = _batch([said | {"time": 5}, said], **{"features.x": pa.array([1.0, None])})

    (found,) = joined_batches([batch, batch])

    assert found.records.schema.equals(batch.records.schema, check_metadata=True)
    assert found.records["id"].to_pylist() == ["0", "1"] * 2
    assert found.records["version"].to_pylist() == ["1"] * 4
    assert found.records["time"].cast(pa.int64()).to_pylist() == [5, 0] * 2
    assert found.feature("x").to_pylist() == [1.0, None] * 2
    assert found.records["tags"].null_count == found.records["request_ref"].null_count == 4


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        pytest.param(pa.array([1, None, 3]), [1.0, np.nan, 3.0], id="integers"),
        pytest.param(pa.array([2**62 + 1], pa.int64()), [float(2**62 + 1)], id="wide"),
        pytest.param(pa.array([1.5, None]), [1.5, np.nan], id="fractions"),
        pytest.param(pa.array([np.float16(1.5)], pa.float16()), [1.5], id="half"),
    ],
)
def test_numbers_become_float64_and_null_nan(values: pa.Array, expected: list[float]) -> None:
    (found,) = arrays_of(pa.table({"features.x": values})).values()

    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("values", [[True, None, False], ["a", None, "é"]])
def test_words_and_flags_stay_what_they_are(values: list[Any]) -> None:
    (found,) = arrays_of(pa.table({"features.x": pa.array(values)})).values()

    assert found.dtype == object
    assert found.tolist() == values


@pytest.mark.parametrize("values", [[[1.0, 2.0]], [b"x"], [{"a": 1}], [None]])
def test_what_is_not_one_value_a_row_has_another_shape(values: list[Any]) -> None:
    (found,) = arrays_of(pa.table({"features.x": pa.array(values)})).values()

    assert found.ndim == 2
    assert len(found) == len(values)


def test_bare_names_of_a_reference_file_are_features() -> None:
    table = with_prefixes(pa.table({"age": [1], "outputs.y": [2], "features.sex": [3]}))

    assert table.column_names == ["features.age", "outputs.y", "features.sex"]
    assert background_columns(table) == {"age": [1], "sex": [3]}
