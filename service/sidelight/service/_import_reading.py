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
    """Yield the rows of Parquet; times to the microsecond."""
    first = 0
    for batch in parquet_batches(path, _ROWS):
        try:
            rows = pa.RecordBatch.from_arrays(
                [_without_nanoseconds(column) for column in batch.columns],
                names=batch.schema.names,
            ).to_pylist()
        except UnicodeDecodeError:
            # Who reads the file says it of all formats.
            raise
        except (KeyError, ValueError, OverflowError) as error:
            # The first is an unknown zone; later versions of Arrow call it the second.
            raise BadRequest(
                f"rows {first} to {first + len(batch) - 1}: expected times of the years 1 to 9999, "
                "of zones that are known here, got others"
            ) from error
        yield from rows
        first += len(batch)


def _without_nanoseconds(column: pa.Array) -> pa.Array:
    """Return what Python has a type for: without pandas it has none with nanoseconds."""
    coarse = _coarse(column.type)
    # Of a column's values not one but all lose them: else some would be times and others text.
    return column if coarse == column.type else column.cast(coarse, safe=False)


def _coarse(kind: pa.DataType) -> pa.DataType:
    """Return a type with microseconds in the place of nanoseconds, however deep they are."""
    match kind:
        case pa.TimestampType(unit="ns"):
            coarse = pa.timestamp("us", kind.tz)
        case pa.Time64Type(unit="ns"):
            coarse = pa.time64("us")
        case pa.DurationType(unit="ns"):
            coarse = pa.duration("us")
        case pa.StructType():
            coarse = pa.struct([_coarse_field(field) for field in kind])
        case pa.MapType():
            coarse = pa.map_(_coarse(kind.key_type), _coarse_field(kind.item_field))
        case pa.FixedSizeListType():
            coarse = pa.list_(_coarse_field(kind.value_field), kind.list_size)
        case pa.LargeListType():
            coarse = pa.large_list(_coarse_field(kind.value_field))
        case pa.ListType():
            coarse = pa.list_(_coarse_field(kind.value_field))
        case _:
            coarse = kind
    return coarse


def _coarse_field(field: pa.Field) -> pa.Field:
    return field.with_type(_coarse(field.type))


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
