"""Rows of the files that ``sidelight import`` reads: JSON lines, Parquet; plain or gzip."""

import gzip
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from sidelight.service.errors import BadRequest

_GZIP: Final = b"\x1f\x8b"
_PARQUET: Final = b"PAR1"
_ROWS: Final = 4096


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


def lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield number and text of each line that is not empty."""
    with opened(path) as file:
        for number, line in enumerate(file, 1):
            if text := line.strip():
                yield number, text


def json_object(line: bytes, number: int) -> dict[str, Any]:
    """Return the object that a line is; raise with its number when it is none."""
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        raise BadRequest(f"line {number}: expected a JSON object, got other bytes") from None
    if not isinstance(value, dict):
        raise BadRequest(
            f"line {number}: expected a JSON object a line, got a {type(value).__name__}"
        )
    return value


def json_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    """Yield the rows of JSON lines."""
    for number, line in lines(path):
        yield json_object(line, number)


def parquet_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    """Yield the rows of Parquet."""
    for batch in parquet_batches(path, _ROWS):
        columns = [_without_nanoseconds(column) for column in batch.columns]
        yield from pa.RecordBatch.from_arrays(columns, names=batch.schema.names).to_pylist()


def _without_nanoseconds(column: pa.Array) -> pa.Array:
    """Return what Python has a type for: without pandas it has none with nanoseconds."""
    kind = column.type
    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        coarse = pa.timestamp("us", kind.tz)
    elif pa.types.is_time64(kind) and kind.unit == "ns":
        coarse = pa.time64("us")
    elif pa.types.is_duration(kind) and kind.unit == "ns":
        coarse = pa.duration("us")
    else:
        return column
    try:
        return column.cast(coarse)
    except pa.ArrowInvalid:
        return column.cast(pa.int64() if pa.types.is_duration(kind) else pa.string())


def parquet_batches(path: Path, n_rows: int) -> Iterator[pa.RecordBatch]:
    """Yield Parquet, so many rows at once."""
    with _parquet(path) as file:
        check_names(file.schema_arrow.names)
        yield from file.iter_batches(batch_size=n_rows)


def is_parquet(path: Path) -> bool:
    """Whether the first bytes are those of Parquet."""
    with opened(path) as file:
        return file.read(len(_PARQUET)) == _PARQUET


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
        raise not_read("Parquet", error) from error


def not_read(expected: str, error: Exception) -> Exception:
    """Return what to raise for an error of Arrow's."""
    # Arrow says with an error of the system that gzip is damaged; those of the system have numbers.
    if isinstance(error, OSError) and error.errno is not None:
        return error
    return BadRequest(f"expected {expected}, got: {error}")


def check_names(names: list[str]) -> None:
    """Raise when two columns have one name."""
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise BadRequest(f"column {twice[0]!a}: expected one of that name, got two")
