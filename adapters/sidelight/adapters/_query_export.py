"""Streams of inferences: JSON lines, CSV, Parquet."""

import csv
import io
import json
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from sidelight.adapters._query_columns import SCORE, kind_of
from sidelight.payloads import FEATURE_PREFIX, OUTPUT_PREFIX, Inference

ExportFormat = Literal["jsonl", "csv", "parquet"]

_FACTS: dict[str, pa.DataType] = {
    "id": pa.string(),
    "row": pa.int32(),
    "deployment": pa.string(),
    "version": pa.string(),
    "component": pa.string(),
    "request_id": pa.string(),
    "time": pa.string(),
    "latency_ms": pa.float64(),
    "status": pa.int32(),
    "protocol": pa.string(),
    "orphan": pa.string(),
    "synthetic": pa.bool_(),
    "tags": pa.string(),
    "request_ref": pa.string(),
    "response_ref": pa.string(),
    SCORE: pa.float64(),
}
_LABEL_PREFIX = "labels."


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """What is exported.

    Parameters
    ----------
    columns : collection of layouts
        The (name, Arrow type) of every stored layout; together they are the columns of a table.
    labels : callable
        Returns the names of the labels; only tables ask.

    """

    pages: Callable[[], Iterator[list[Inference]]]
    columns: Collection[tuple[tuple[str, str], ...]]
    labels: Callable[[], set[str]]


def json_lines(export: Export) -> Iterator[bytes]:
    """Yield one JSON object a line."""
    for items in export.pages():
        lines = [orjson.dumps(item.to_json(), default=str) for item in items]
        if lines:
            yield b"\n".join(lines) + b"\n"


def comma_separated(export: Export) -> Iterator[bytes]:
    """Yield a header and one line a row; null is an empty field, lists are JSON."""
    names = list(_schema(export))
    yield _csv([names])
    for items in export.pages():
        rows = [[_cell(cells.get(name)) for name in names] for cells in _table_rows(items)]
        if rows:
            yield _csv(rows)


def parquet(export: Export) -> Iterator[bytes]:
    """Yield one Parquet file; a column that changed its type is text."""
    types = _schema(export)
    schema = pa.schema(list(types.items()))
    sink = _Stream()
    with pq.ParquetWriter(sink, schema, compression="zstd") as writer:
        for items in export.pages():
            rows = list(_table_rows(items))
            arrays = [_array([row.get(name) for row in rows], types[name]) for name in types]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
            yield sink.take()
    yield sink.take()


EXPORTS: dict[str, Callable[[Export], Iterator[bytes]]] = {
    "jsonl": json_lines,
    "csv": comma_separated,
    "parquet": parquet,
}


def _schema(export: Export) -> dict[str, pa.DataType]:
    found: dict[str, set[str]] = {}
    for columns in export.columns:
        for name, arrow_type in columns:
            if name.startswith((FEATURE_PREFIX, OUTPUT_PREFIX)):
                found.setdefault(name, set()).add(arrow_type)
    ordered = sorted(found, key=lambda name: not name.startswith(FEATURE_PREFIX))
    labels = {_LABEL_PREFIX + name: pa.string() for name in sorted(export.labels())}
    return {**_FACTS, **{name: _common(found[name]) for name in ordered}, **labels}


def _common(types: set[str]) -> pa.DataType:
    kinds = {kind_of(arrow_type) for arrow_type in types} - {None}
    if kinds == {"boolean"}:
        return pa.bool_()
    if kinds != {"number"}:
        return pa.string()
    integers = all(item.startswith("int") or item == "null" for item in types)
    return pa.int64() if integers else pa.float64()


def _table_rows(items: list[Inference]) -> Iterator[Mapping[str, Any]]:
    for item in items:
        facts = {name: getattr(item, name, None) for name in _FACTS}
        facts["tags"] = json.dumps(dict(item.tags)) if item.tags else None
        for number, row in enumerate(item.rows):
            yield {
                **facts,
                "row": number,
                SCORE: row.outlier_score,
                **{FEATURE_PREFIX + name: value for name, value in row.features.items()},
                **{OUTPUT_PREFIX + name: value for name, value in row.outputs.items()},
                **{_LABEL_PREFIX + name: value for name, value in row.labels.items()},
            }


def _csv(rows: list[list[Any]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value) if isinstance(value, list | dict) else value


def _array(values: list[Any], kind: pa.DataType) -> Any:
    if pa.types.is_string(kind):
        values = [_text(value) for value in values]
    return pa.array(values, kind)


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value)


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
