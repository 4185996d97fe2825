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

# Ids and facts repeat on each row of an inference: LZ4 leaves a half to a third, and takes a tenth
# of the time that an engine takes to store the difference. Short batches are not worth its start.
_PLAIN = pa.ipc.IpcWriteOptions()
_COMPRESSED = pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)
_LONG_BYTES = 1 << 17

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
        """Arrow IPC stream of this one batch; a long one is compressed."""
        sink = pa.BufferOutputStream()
        options = _COMPRESSED if self.records.nbytes >= _LONG_BYTES else _PLAIN
        with pa.ipc.new_stream(sink, self.records.schema, options=options) as writer:
            writer.write_batch(self.records)
        return bytes(sink.getvalue())

    @classmethod
    def from_ipc(cls, data: bytes) -> "Batch":
        """Read what ``to_ipc`` wrote."""
        end = _schema_end(data)
        schema = _checked_schema(data[:end])
        if schema is None:
            with pa.ipc.open_stream(pa.py_buffer(data)) as reader:
                return cls(reader.read_next_batch())
        rows = pa.ipc.read_message(pa.BufferReader(pa.py_buffer(data).slice(end)))
        batch = object.__new__(cls)
        object.__setattr__(batch, "records", pa.ipc.read_record_batch(rows, schema))
        return batch


# Most of the time for a short batch goes into its schema, which is the same in all batches of one
# deployment and layout: it is read and checked once.
@lru_cache(maxsize=1024)
def _checked_schema(message: bytes) -> pa.Schema | None:
    """Return the schema of a stream, or None when more than rows stands behind it."""
    schema = pa.ipc.read_schema(pa.py_buffer(message))
    _check(schema)
    return None if "dictionary<" in str(schema.types) else schema


def _schema_end(data: bytes) -> int:
    """Return where the first message of an Arrow stream ends; a schema has no body."""
    return 8 + int.from_bytes(data[4:8], "little")


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
