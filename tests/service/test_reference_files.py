"""Reference rows on disk."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sidelight.adapters import EmbeddedDocuments
from sidelight.logger import Document
from sidelight.service._deployments import put_all_settings
from sidelight.service._reference_files import (
    check_given_reference,
    joined,
    read_given_reference,
    read_reference_file,
    reference_path,
    write_reference_file,
)
from sidelight.service._references_configured import check_references
from sidelight.service._settings import Settings
from sidelight.service._settings_schema import read_schema
from sidelight.service.errors import ConfigurationError


def test_what_was_written_is_read_and_never_changed(tmp_path: Path) -> None:
    table = pa.table({"features.x": [1.0, None]})

    write_reference_file(tmp_path, "abc", table)
    write_reference_file(tmp_path, "abc", pa.table({"features.x": [9.0]}))

    assert read_reference_file(tmp_path, "abc").equals(table)
    assert list(reference_path(tmp_path, "abc").parent.iterdir()) == [
        reference_path(tmp_path, "abc")
    ]


@pytest.mark.parametrize("content", [None, b"", b"PAR1", b"a,b\n1,2\n"])
def test_file_that_is_no_parquet_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "given.parquet"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(ConfigurationError, match=r"reference\.file: .*given\.parquet") as caught:
        read_given_reference(path)

    assert "\n" not in caught.value.detail


def test_file_without_rows_or_that_is_a_folder_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "given.parquet"
    pq.write_table(pa.table({"x": pa.array([], pa.int64())}), path)
    for wrong in (path, tmp_path / "folder"):
        (tmp_path / "folder").mkdir(exist_ok=True)
        with pytest.raises(ConfigurationError, match=r"reference\.file"):
            read_given_reference(wrong)


def _written(path: Path, **columns: list[float]) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


@pytest.mark.parametrize(
    ("columns", "named", "words"),
    [
        pytest.param({"x": [1.0] * 49}, None, "at least 50 rows, got 49", id="few rows"),
        pytest.param({"x": []}, None, "at least 50 rows, got 0", id="no rows"),
        pytest.param({"outputs.y": [1.0] * 50}, None, "got outputs.y in", id="no feature"),
        pytest.param({"x": [1.0] * 50}, ["x", "z"], "each feature (z), got x in", id="one missing"),
    ],
)
def test_file_with_too_little_is_refused_before_its_rows_are_read(
    tmp_path: Path, columns: dict[str, list[float]], named: list[str] | None, words: str
) -> None:
    path = _written(tmp_path / "given.parquet", **columns)
    schema = None
    if named is not None:
        schema = read_schema({"columns": [{"name": name, "kind": "numeric"} for name in named]})

    with pytest.raises(ConfigurationError) as caught:
        check_given_reference(path, schema)

    assert words in caught.value.detail


def test_columns_that_are_not_watched_may_be_missing(tmp_path: Path) -> None:
    kinds = {"x": "numeric", "note": "text", "seen": "timestamp"}
    schema = read_schema(
        {"columns": [{"name": name, "kind": kind} for name, kind in kinds.items()]}
    )

    check_given_reference(_written(tmp_path / "a", **{"features.x": [1.0] * 50}), schema)


def _configured(data: Path, *files: Path | None) -> Settings:
    return Settings.model_validate(
        {
            "data": data,
            "deployments": [
                {"name": f"prod/d{number}", "reference": {"file": file} if file else {}}
                for number, file in enumerate(files)
            ],
        }
    )


def test_files_of_the_configuration_are_named_by_the_paths_of_their_keys(tmp_path: Path) -> None:
    good = _written(tmp_path / "good.parquet", x=[1.0] * 50)
    check_references(_configured(tmp_path, None, good))

    with pytest.raises(ConfigurationError) as caught:
        check_references(_configured(tmp_path, None, tmp_path / "none", good, tmp_path))

    first, second = caught.value.detail.splitlines()
    assert first == (
        f"deployments[1].reference.file: expected a Parquet file, got no file at {tmp_path}/none"
    )
    assert second.startswith("deployments[3].reference.file: expected a Parquet file, got a folder")
    assert "first_rows" in caught.value.hint


def test_file_whose_rows_were_taken_over_may_go_until_the_configuration_changes(
    tmp_path: Path,
) -> None:
    path = _written(tmp_path / "given.parquet", x=[1.0] * 50)
    settings = _configured(tmp_path / "data", path)
    documents = EmbeddedDocuments(tmp_path / "data")
    put_all_settings(documents, settings.deployments)
    path.unlink()
    with pytest.raises(ConfigurationError, match="no file at"):
        check_references(settings)
    documents.put([Document(collection="references", key="prod/d0", value={"complete": True})])

    check_references(settings)
    documents.close()
    other = _configured(tmp_path / "data", tmp_path / "other.parquet")
    with pytest.raises(ConfigurationError, match=r"other\.parquet"):
        check_references(other)


def test_parts_of_several_layouts_are_joined() -> None:
    parts = [
        pa.RecordBatch.from_pydict({"features.x": [1], "features.y": ["a"]}),
        pa.RecordBatch.from_pydict({"features.x": [2.5]}),
        pa.RecordBatch.from_pydict({"features.y": ["b"], "features.x": [3]}),
    ]

    table = joined(parts)

    assert table.column("features.x").to_pylist() == [1, 2.5, 3]
    assert table.column("features.y").to_pylist() == ["a", None, "b"]


@pytest.mark.parametrize("other", [2.5, -1, (1 << 53) + 1])
@pytest.mark.parametrize("long", [(1 << 64) - 1, (1 << 53) + 1])
def test_long_integers_go_with_other_numbers(long: int, other: float) -> None:
    kind = pa.uint64() if long >> 63 else pa.int64()
    parts = [
        pa.RecordBatch.from_pydict({"features.x": pa.array([long], kind)}),
        pa.RecordBatch.from_pydict({"features.x": [other]}),
    ]

    for order in (parts, parts[::-1]):
        found = joined(order).column("features.x").to_pylist()
        assert sorted(map(float, found)) == sorted([float(long), float(other)])


def test_a_single_part_does_not_push_out_the_others() -> None:
    parts = [pa.RecordBatch.from_pydict({"features.x": [value]}) for value in ("one", 1.5, 2.5)]

    assert joined(parts).column("features.x").to_pylist() == [1.5, 2.5]


def test_part_that_contradicts_the_others_is_left_out() -> None:
    parts = [
        pa.RecordBatch.from_pydict({"features.x": [1]}),
        pa.RecordBatch.from_pydict({"features.x": ["one"]}),
        pa.RecordBatch.from_pydict({"features.x": [2]}),
    ]

    assert joined(parts).column("features.x").to_pylist() == [1, 2]
