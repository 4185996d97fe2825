"""Streams of inferences: JSON lines, CSV, Parquet."""

import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from sidelight.adapters._query_export_columns import (
    FACTS,
    arrow_array,
    csv_cell,
    table_rows,
)
from sidelight.adapters._query_rows import plain_value
from sidelight.adapters.errors import LakeError
from sidelight.payloads import Inference

ExportFormat = Literal["jsonl", "csv", "parquet"]

# Rows are gathered up to one of these before they become a row group: small ones make large files,
# and while large ones are gathered a client hears nothing for seconds.
_GROUP_ROWS: Final = 16_384
_GROUP_BYTES: Final = 16 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """What is exported.

    Parameters
    ----------
    pages : callable
        Returns the inferences in order, some at a time.
    columns : callable
        Returns the columns of features, outputs and labels with their types; only tables ask.

    """

    pages: Callable[[], Iterator[Sequence[Inference]]]
    columns: Callable[[], Mapping[str, pa.DataType]]


def json_lines(export: Export) -> Iterator[bytes]:
    """Yield one inference a line, as ``GET /v1/inferences`` shows it."""
    for items in export.pages():
        lines = [_json_line(item.to_json()) for item in items]
        if lines:
            yield b"\n".join(lines) + b"\n"


def comma_separated(export: Export) -> Iterator[bytes]:
    """Yield a header and one line a row (RFC 4180)."""
    names = [*FACTS, *export.columns()]
    yield _line(names).encode()
    for items in export.pages():
        lines = [_line([row.get(name) for name in names]) for row in _known(items, names)]
        if lines:
            yield "".join(lines).encode()


def parquet(export: Export) -> Iterator[bytes]:
    """Yield one Parquet file, row group by row group."""
    types = {**FACTS, **export.columns()}
    schema = pa.schema(list(types.items()))
    sink = _Stream()
    gathered: list[pa.RecordBatch] = []
    with pq.ParquetWriter(sink, schema, compression="zstd") as writer:
        for items in export.pages():
            gathered.append(_record_batch(_known(items, types), schema))
            n_rows = sum(batch.num_rows for batch in gathered)
            if n_rows >= _GROUP_ROWS or sum(batch.nbytes for batch in gathered) >= _GROUP_BYTES:
                writer.write_table(pa.Table.from_batches(gathered, schema))
                gathered.clear()
            # At first the beginning of the file, so that whoever asked sees that it begins.
            if part := sink.take():
                yield part
        if gathered:
            writer.write_table(pa.Table.from_batches(gathered, schema))
    yield sink.take()


EXPORTS: Final[Mapping[ExportFormat, Callable[[Export], Iterator[bytes]]]] = {
    "jsonl": json_lines,
    "csv": comma_separated,
    "parquet": parquet,
}


def _json_line(value: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(value, default=str)
    except TypeError:
        # An integer beyond 64 bits, as a label may be, or deep in one.
        return json.dumps(plain_value(value), separators=(",", ":")).encode()


def _known(items: Sequence[Inference], names: Sequence[str] | Mapping[str, Any]) -> list[Any]:
    """Return rows; raise when there is a column that the header, long sent, does not have."""
    rows = table_rows(items)
    known = frozenset(names)
    for row in rows:
        if not row.keys() <= known:
            unknown = min(row.keys() - known)
            raise LakeError(f"{unknown!a} was stored first while this was exported; export again")
    return rows


def _record_batch(rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> pa.RecordBatch:
    arrays = []
    for column in schema:
        try:
            arrays.append(arrow_array([row.get(column.name) for row in rows], column.type))
        except (ValueError, TypeError, OverflowError) as error:
            raise LakeError(
                f"{column.name!a} changed its type while this was exported; export again"
            ) from error
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _line(values: Sequence[Any]) -> str:
    return ",".join(map(csv_cell, values)) + "\r\n"


class _Stream(io.RawIOBase):
    """What a Parquet file is written to: never seeks back, gives away what it has."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._size

    def write(self, data: Any) -> int:
        part = bytes(data)
        self._parts.append(part)
        self._size += len(part)
        return len(part)

    def take(self) -> bytes:
        data = b"".join(self._parts)
        self._parts.clear()
        return data
