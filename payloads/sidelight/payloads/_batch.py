"""A columnar block of rows of one deployment: the one currency between the parts."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import pyarrow as pa

from sidelight.payloads.errors import BatchError

FEATURE_PREFIX = "features."
OUTPUT_PREFIX = "outputs."

# One row of an inference is one row of the batch; the inference's own facts repeat on each of its
# rows, so that every later part can work on columns alone.
ROW_SCHEMA: pa.Schema = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),  # inference id, URL-safe
        pa.field("row", pa.int32(), nullable=False),  # number of the row in its inference
        pa.field("revision", pa.int16(), nullable=False),  # the highest of (id, row) wins
        pa.field("request_id", pa.string(), nullable=False),
        pa.field("time", pa.timestamp("us", tz="UTC"), nullable=False),  # of the request
        pa.field("version", pa.string()),
        pa.field("component", pa.string()),
        pa.field("endpoint", pa.string()),
        pa.field("latency_ms", pa.float64()),
        pa.field("status", pa.int32()),
        pa.field("protocol", pa.string(), nullable=False),
        pa.field("orphan", pa.string()),  # None, "request" or "response": the half that is there
        pa.field("synthetic", pa.bool_(), nullable=False),
        pa.field("tags", pa.string()),  # JSON object or None
        pa.field("request_ref", pa.string()),  # RawRef
        pa.field("response_ref", pa.string()),
    ]
)

# Ids and facts repeat on each row of an inference: of these LZ4 leaves a sixth. Of floating-point
# numbers it leaves two thirds, and takes longer than an engine does to store the difference.
_PLAIN = pa.ipc.IpcWriteOptions()
_COMPRESSED = pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)
# A long batch is two streams, since one is compressed or not as a whole. No stream begins so.
# Before them stand the length of the first and what the rows take in memory: of zeros LZ4 leaves
# a hundredth. Older versions did not write the latter.
_LONG_BYTES = 1 << 17
_TWO = b"sidelit3"
_TWO_BYTES = 24
_FORMER_TWO = b"sidelit2"
_FORMER_TWO_BYTES = 16
_VALUE_BYTES = 8
# What frames the two messages of a stream and ends it, and rather more.
_ENDS_BYTES = 256

_DEPLOYMENT = b"sidelight.deployment"
_LAYOUT = b"sidelight.layout"


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of one deployment whose payloads have one layout.

    Parameters
    ----------
    records : pyarrow.RecordBatch, shape (n_rows, n_columns)
        The columns of ``ROW_SCHEMA`` in that order, then ``features.<name>`` in the order of the
        payload, then ``outputs.<name>``. Columns keep their wire type; missing and non-finite
        values are null (a float column may hold NaN only where the payload said so).
        The schema's metadata hold the deployment and the layout.

    Raises
    ------
    BatchError
        If a column of ``ROW_SCHEMA`` is missing or has another type, or the metadata name
        no deployment.

    """

    records: pa.RecordBatch

    def __post_init__(self) -> None:
        """Check the fixed columns once, so that nobody downstream has to."""
        _check(self.records.schema)

    @classmethod
    def build(cls, records: pa.RecordBatch, *, deployment: str, layout: dict[str, Any]) -> "Batch":
        """Attach deployment and layout to record columns."""
        metadata = {_DEPLOYMENT: deployment.encode(), _LAYOUT: json.dumps(layout).encode()}
        return cls(records.replace_schema_metadata(metadata))

    @property
    def deployment(self) -> str:
        """``namespace/name``."""
        return str(self.records.schema.metadata[_DEPLOYMENT].decode())

    @property
    def layout(self) -> dict[str, Any]:
        """How the payloads were laid out on the wire; the dialect that wrote it reads it."""
        value: dict[str, Any] = json.loads(self.records.schema.metadata.get(_LAYOUT, b"{}"))
        return value

    @property
    def feature_names(self) -> list[str]:
        """Names of the feature columns, without the prefix, in payload order."""
        return _names(self.records.schema, FEATURE_PREFIX)

    @property
    def output_names(self) -> list[str]:
        """Names of the output columns, without the prefix, in payload order."""
        return _names(self.records.schema, OUTPUT_PREFIX)

    def feature(self, name: str) -> pa.Array:
        """Values of one feature, shape (n_rows,)."""
        return self.records.column(FEATURE_PREFIX + name)

    def output(self, name: str) -> pa.Array:
        """Values of one output, shape (n_rows,)."""
        return self.records.column(OUTPUT_PREFIX + name)

    @property
    def held_bytes(self) -> int:
        """What the rows take in memory, with a float64 for each value at least, in bytes.

        A detector makes that of a bit, too.
        """
        records = self.records
        n_values = records.num_rows * (records.num_columns - len(ROW_SCHEMA))
        return int(max(records.nbytes, _VALUE_BYTES * n_values))

    @staticmethod
    def held_bytes_of(data: bytes) -> int:
        """Return ``held_bytes`` of what ``to_ipc`` wrote, without reading the rows.

        A short batch, and any other bytes, take their length.
        """
        if data.startswith(_TWO) and len(data) >= _TWO_BYTES:
            return int.from_bytes(data[_TWO_BYTES - 8 : _TWO_BYTES], "little")
        return len(data)

    def __len__(self) -> int:
        return int(self.records.num_rows)

    @classmethod
    def of(cls, columns: Sequence[pa.Array], schema: pa.Schema) -> "Batch":
        """Return columns under the schema of another batch: it was checked there."""
        batch = object.__new__(cls)
        records = pa.RecordBatch.from_arrays(columns, schema=schema)
        object.__setattr__(batch, "records", records)
        return batch

    def to_ipc(self) -> bytes:
        """Arrow IPC stream of this one batch; of a long one two, facts and values."""
        records = self.records
        held_bytes = self.held_bytes
        if held_bytes < _LONG_BYTES or _has_dictionaries(records.schema):
            return bytes(_stream(records, _PLAIN))
        places = range(len(records.schema))
        facts, values = (
            records.select(some) for some in (places[: len(ROW_SCHEMA)], places[len(ROW_SCHEMA) :])
        )
        first = _stream(facts, _COMPRESSED)
        second = _as_it_is(values) if _is_mostly_floating(values) else _stream(values, _COMPRESSED)
        sizes = (size.to_bytes(8, "little") for size in (first.size, held_bytes))
        return b"".join([_TWO, *sizes, first, second])

    @classmethod
    def from_ipc(cls, data: bytes) -> "Batch":
        """Read what ``to_ipc`` wrote."""
        buffer = pa.py_buffer(data)
        if data.startswith((_TWO, _FORMER_TWO)):
            start = _TWO_BYTES if data.startswith(_TWO) else _FORMER_TWO_BYTES
            begin = start + int.from_bytes(data[len(_TWO) : len(_TWO) + 8], "little")
            ends = _schema_end(data, start), _schema_end(data, begin)
            schemas = _checked_schemas(data[start : ends[0]], data[begin : ends[1]])
            facts = _rows(buffer.slice(ends[0], begin - ends[0]), schemas[0])
            values = _rows(buffer.slice(ends[1]), schemas[1])
            return cls.of([*facts.columns, *values.columns], schemas[2])
        end = _schema_end(data, 0)
        schema = _checked_schema(data[:end])
        if schema is None:
            with pa.ipc.open_stream(buffer) as reader:
                return cls(reader.read_next_batch())
        batch = object.__new__(cls)
        object.__setattr__(batch, "records", _rows(buffer.slice(end), schema))
        return batch


def _stream(records: pa.RecordBatch, options: pa.ipc.IpcWriteOptions) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, records.schema, options=options) as writer:
        writer.write_batch(records)
    return sink.getvalue()


def _as_it_is(records: pa.RecordBatch) -> pa.Buffer:
    """Return a plain stream in room of its size: what grows is copied again and again."""
    room = pa.ipc.get_record_batch_size(records) + records.schema.serialize().size + _ENDS_BYTES
    buffer = pa.allocate_buffer(room)
    sink = pa.FixedSizeBufferWriter(buffer)
    with pa.ipc.new_stream(sink, records.schema, options=_PLAIN) as writer:
        writer.write_batch(records)
    return buffer.slice(0, sink.tell())


def _rows(message: pa.Buffer, schema: pa.Schema) -> pa.RecordBatch:
    return pa.ipc.read_record_batch(pa.ipc.read_message(pa.BufferReader(message)), schema)


def _is_mostly_floating(values: pa.RecordBatch) -> bool:
    floating = [column.nbytes for column in values.columns if pa.types.is_floating(column.type)]
    return bool(2 * sum(floating) >= values.nbytes)


# Most of the time for a short batch goes into its schema, which is the same in all batches of one
# deployment and layout: it is read and checked once.
@lru_cache(maxsize=1024)
def _checked_schema(message: bytes) -> pa.Schema | None:
    """Return the schema of a stream, or None when more than rows stands behind it."""
    schema = pa.ipc.read_schema(pa.py_buffer(message))
    _check(schema)
    return None if _has_dictionaries(schema) else schema


@lru_cache(maxsize=1024)
def _checked_schemas(facts: bytes, values: bytes) -> tuple[pa.Schema, pa.Schema, pa.Schema]:
    """Return the schemas of two streams, and of the batch that they are."""
    first, second = (pa.ipc.read_schema(pa.py_buffer(message)) for message in (facts, values))
    whole = pa.schema([*first, *second], metadata=first.metadata)
    _check(whole)
    return first, second, whole


def _has_dictionaries(schema: pa.Schema) -> bool:
    return "dictionary<" in str(schema.types)


def _schema_end(data: bytes, begin: int) -> int:
    """Return where the first message of an Arrow stream ends; a schema has no body."""
    return begin + 8 + int.from_bytes(data[begin + 4 : begin + 8], "little")


def _check(schema: pa.Schema) -> None:
    for index, field in enumerate(ROW_SCHEMA):
        if index >= len(schema) or schema.field(index).name != field.name:
            raise BatchError(field.name, f"at place {index}", schema.names[: index + 1])
        if schema.field(index).type != field.type:
            raise BatchError(field.name, str(field.type), schema.field(index).type)
    if _DEPLOYMENT not in (schema.metadata or {}):
        raise BatchError("metadata", "sidelight.deployment", schema.metadata)


def _names(schema: pa.Schema, prefix: str) -> list[str]:
    start = len(ROW_SCHEMA)
    return [name[len(prefix) :] for name in schema.names[start:] if name.startswith(prefix)]
