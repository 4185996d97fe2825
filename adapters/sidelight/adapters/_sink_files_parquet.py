"""Files of Parquet: one row an event, its attributes as typed columns, its payload verbatim."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, BinaryIO, Final

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from sidelight.adapters._sink_files_place import read_time
from sidelight.logger import CapturedEvent, deployment_name

_ROW_GROUP_ROWS: Final = 16_384
# So much of payload makes a row group too; what waits for it is in memory twice.
_ROW_GROUP_BYTES: Final = 4 << 20
_SLICE_ROWS: Final = 256
_SLICE_BYTES: Final = 1 << 20
_MAX_DIGITS: Final = 9
_TIME_SUFFIX: Final = len("+00:00")


@dataclass(frozen=True, slots=True)
class Column:
    """One attribute as a column.

    ``read`` gives the value or None, ``write`` the text that it has when we sent it: an attribute
    with another spelling stands, as it came, in the column ``attributes`` as well.
    """

    name: str
    attribute: str
    type: pa.DataType
    read: Callable[[str], Any]
    write: Callable[[Any], str]
    is_repetitive: bool = True


def _text(text: str) -> str:
    return text


def _integer(text: str) -> int | None:
    is_number = text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS
    return int(text) if is_number else None


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _time_text(time: datetime) -> str:
    return time.isoformat(timespec="microseconds")[:-_TIME_SUFFIX] + "Z"


_TEXT: Final = (pa.string(), _text, _text)
_TIME: Final = pa.timestamp("us", tz="UTC")

COLUMNS: Final = (
    Column("id", "id", *_TEXT, is_repetitive=False),
    Column("type", "type", *_TEXT),
    Column("source", "source", *_TEXT),
    Column(
        "time", "time", pa.timestamp("us", tz="UTC"), read_time, _time_text, is_repetitive=False
    ),
    Column("component", "component", *_TEXT),
    Column("method", "requestmethod", *_TEXT),
    Column("path", "requestpath", *_TEXT),
    Column("status", "statuscode", pa.int32(), _integer, str),
    Column("latency_ms", "latencyms", pa.float64(), _number, "{:.3f}".format, is_repetitive=False),
    Column("model", "modelname", *_TEXT),
    Column("version", "modelversion", *_TEXT),
    Column("sampling_rate", "samplingrate", pa.float64(), _number, "{:g}".format),
    Column("traceparent", "traceparent", *_TEXT, is_repetitive=False),
    Column("content_type", "datacontenttype", *_TEXT),
)
"""Attributes that have a column of their own."""

# Not "deployment" and "namespace": readers take these from the folders, and some refuse a file
# that has them too.
SCHEMA: Final = pa.schema(
    [(column.name, column.type) for column in COLUMNS]
    + [("deployment_name", pa.string()), ("attributes", pa.string()), ("data", pa.binary())]
)
"""``attributes`` is a JSON object of all that the typed columns do not say."""

_REPETITIVE: Final = [column.name for column in COLUMNS if column.is_repetitive] + [
    "deployment_name"
]


def write_parquet(events: Iterable[CapturedEvent], file: BinaryIO) -> None:
    """Write events as one Parquet file, compressed with zstd."""
    with pq.ParquetWriter(
        file, SCHEMA, compression="zstd", use_dictionary=_REPETITIVE, store_schema=True
    ) as writer:
        for table in _row_groups(events):
            writer.write_table(table)


def records_of(events: Iterable[CapturedEvent]) -> pa.RecordBatch:
    """Return events as rows of ``SCHEMA``."""
    values: dict[str, list[Any]] = {name: [] for name in SCHEMA.names}
    for event in events:
        attributes: dict[str, str] = orjson.loads(event.attributes + b"}")
        name = attributes.get("inferenceservicename") or attributes.get("modelname") or "unknown"
        values["deployment_name"].append(
            deployment_name(attributes.get("namespace") or "default", name)
        )
        for column in COLUMNS:
            text = attributes.get(column.attribute)
            value = None if text is None else column.read(text)
            if value is not None and column.write(value) == text:
                del attributes[column.attribute]
            values[column.name].append(value)
        values["attributes"].append(orjson.dumps(attributes).decode())
        values["data"].append(event.data)
    arrays = [pa.array(values[field.name], field.type) for field in SCHEMA]
    return pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)


def _row_groups(events: Iterable[CapturedEvent]) -> Iterator[pa.Table]:
    waiting: list[pa.RecordBatch] = []
    n_rows = n_bytes = 0
    for chosen in _slices(events):
        records = records_of(chosen)
        waiting.append(records)
        n_rows += records.num_rows
        n_bytes += sum(len(event.data) for event in chosen)
        if n_rows >= _ROW_GROUP_ROWS or n_bytes >= _ROW_GROUP_BYTES:
            yield pa.Table.from_batches(waiting)
            waiting.clear()
            n_rows = n_bytes = 0
    if waiting:
        yield pa.Table.from_batches(waiting)


def _slices(events: Iterable[CapturedEvent]) -> Iterator[list[CapturedEvent]]:
    chosen: list[CapturedEvent] = []
    n_bytes = 0
    for event in events:
        chosen.append(event)
        n_bytes += len(event.data)
        if len(chosen) >= _SLICE_ROWS or n_bytes >= _SLICE_BYTES:
            yield chosen
            chosen, n_bytes = [], 0
    if chosen:
        yield chosen
