"""Reference rows on disk."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sidelight.service._reference_files import (
    joined,
    read_given_reference,
    read_reference_file,
    reference_path,
    write_reference_file,
)
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


def test_parts_of_several_layouts_are_joined() -> None:
    parts = [
        pa.RecordBatch.from_pydict({"features.x": [1], "features.y": ["a"]}),
        pa.RecordBatch.from_pydict({"features.x": [2.5]}),
        pa.RecordBatch.from_pydict({"features.y": ["b"], "features.x": [3]}),
    ]

    table = joined(parts)

    assert table.column("features.x").to_pylist() == [1, 2.5, 3]
    assert table.column("features.y").to_pylist() == ["a", None, "b"]


def test_part_that_contradicts_the_first_is_left_out() -> None:
    parts = [
        pa.RecordBatch.from_pydict({"features.x": [1]}),
        pa.RecordBatch.from_pydict({"features.x": ["one"]}),
        pa.RecordBatch.from_pydict({"features.x": [2]}),
    ]

    assert joined(parts).column("features.x").to_pylist() == [1, 2]
