"""Rows of the tables that ``sidelight import`` reads: JSON lines, CSV, Parquet; plain or gzip."""

import gzip
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from sidelight.service.errors import BadRequest

_GZIP: Final = b"\x1f\x8b"
_ROWS: Final = 4096
_CSV_BLOCK_BYTES: Final = 4 << 20
# What the text of a column may be read as, the narrowest first; text otherwise.
_CSV_TYPES: Final = (pa.int64(), pa.uint64(), pa.float64(), pa.bool_())


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Open a file, or what gzip has made smaller.

    Raises
    ------
    BadRequest
        While it is read, when the compressed bytes are damaged.

    """
    with path.open("rb") as file:
        if not _is_small(path):
            yield file
            return
        try:
            with gzip.open(file) as inside:
                yield cast("BinaryIO", inside)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise BadRequest(f"expected a whole gzip file, got: {error}") from error


def arrow_stream(path: Path) -> pa.NativeFile:
    """Open a file for Arrow, or what gzip has made smaller.

    Arrow reads ahead in threads of its own: with a file of Python's they end the process when
    they are late.
    """
    return pa.input_stream(str(path), compression="gzip" if _is_small(path) else None)


def _is_small(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_GZIP)) == _GZIP


def json_lines(path: Path) -> Iterator[tuple[int, bytes, dict[str, Any]]]:
    """Yield number, text and value of each line that is not empty; raise when it is no object."""
    with opened(path) as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                value = orjson.loads(line)
            except orjson.JSONDecodeError:
                raise BadRequest(
                    f"line {number}: expected a JSON object, got other bytes"
                ) from None
            if not isinstance(value, dict):
                raise BadRequest(f"line {number}: expected a JSON object, got another value")
            yield number, line.strip(), value


def json_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    """Yield the rows of JSON lines."""
    for _, _, row in json_lines(path):
        yield row


def csv_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    """Yield the rows of CSV with a line of names.

    A column has one type, that of all its cells: a block of whole numbers says nothing of the
    next. Empty cells, and ``NA``, ``NULL`` and their like, are null without quotes.
    """
    try:
        types = _csv_types(path)
        for batch in _csv_batches(path):
            columns = [
                column.cast(types[name])
                for name, column in zip(batch.schema.names, batch.columns, strict=True)
            ]
            yield from pa.RecordBatch.from_arrays(columns, names=batch.schema.names).to_pylist()
    except (pa.ArrowInvalid, OSError) as error:
        raise _not_read("CSV with a line of names", error) from error


def parquet_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    """Yield the rows of Parquet."""
    with _parquet(path) as file:
        _check_names(file.schema_arrow.names)
        for batch in file.iter_batches(batch_size=_ROWS):
            yield from batch.to_pylist()


def parquet_names(path: Path) -> list[str]:
    """Return the columns of Parquet."""
    with _parquet(path) as file:
        names: list[str] = file.schema_arrow.names
    return names


@contextmanager
def _parquet(path: Path) -> Iterator[pq.ParquetFile]:
    try:
        # It is read from its end: what gzip has made smaller is all of it in memory.
        source = pa.BufferReader(arrow_stream(path).read()) if _is_small(path) else path
        with pq.ParquetFile(source) as file:
            yield file
    except (pa.ArrowException, OSError) as error:
        raise _not_read("Parquet", error) from error


def _not_read(expected: str, error: Exception) -> Exception:
    # Arrow says with an error of the system that gzip is damaged; those of the system have numbers.
    if isinstance(error, OSError) and error.errno is not None:
        return error
    return BadRequest(f"expected {expected}, got: {error}")


def _csv_types(path: Path) -> dict[str, pa.DataType]:
    possible: dict[str, list[pa.DataType]] = {}
    for batch in _csv_batches(path):
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            left = possible.setdefault(name, list(_CSV_TYPES))
            left[:] = [kind for kind in left if _can_be(column, kind)]
    return {name: left[0] if left else pa.string() for name, left in possible.items()}


def _can_be(column: pa.Array, kind: pa.DataType) -> bool:
    try:
        pc.cast(column, kind)
    except pa.ArrowInvalid:
        return False
    return True


def _csv_batches(path: Path) -> Iterator[pa.RecordBatch]:
    """Yield a file as text, null where a cell is missing."""
    reading = pa_csv.ReadOptions(block_size=_CSV_BLOCK_BYTES)
    parsing = pa_csv.ParseOptions(newlines_in_values=True)
    with arrow_stream(path) as file, pa_csv.open_csv(file, reading, parsing) as reader:
        names = reader.schema.names
    _check_names(names)
    converting = pa_csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()),
        strings_can_be_null=True,
        quoted_strings_can_be_null=False,
    )
    with arrow_stream(path) as file, pa_csv.open_csv(file, reading, parsing, converting) as reader:
        yield from reader


def _check_names(names: list[str]) -> None:
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise BadRequest(f"column {twice[0]!a}: expected one of that name, got two")
