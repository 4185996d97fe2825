"""Arrow columns as the detectors take them, and as the reference file keeps them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sidelight.detectors import Rows, Times
from sidelight.payloads import FEATURE_PREFIX, OUTPUT_PREFIX, ROW_SCHEMA, Batch
from sidelight.service._understood import opaque_sides, without_sides

_DOUBLE = pa.float64()
# Columns of an inference itself, which stand before those of its payloads.
_N_OWN = len(ROW_SCHEMA)
# What no detector and no score reads: strings mostly, which cost more to join than all numbers.
_UNREAD = frozenset(
    {
        "request_id",
        "component",
        "endpoint",
        "latency_ms",
        "status",
        "protocol",
        "tags",
        "request_ref",
        "response_ref",
    }
)


# Detectors hold what they are given at once several times over, as float64: 32 MiB each time.
_MOST_CELLS = 1 << 22


def joined_batches(batches: Sequence[Batch]) -> Iterator[Batch]:
    """Yield consecutive batches of the same columns as one, in order.

    Columns that nobody reads from here on are null in what was joined. What is joined has at most
    ``_MOST_CELLS``; a longer batch stays as it is.
    """
    start, n_cells = 0, 0
    for end in range(1, len(batches) + 1):
        schema = batches[start].records.schema
        n_cells += _n_cells(batches[end - 1])
        # What the metadata say is the deployment, the same for all, and the layout on the wire.
        if (
            end < len(batches)
            and n_cells + _n_cells(batches[end]) <= _MOST_CELLS
            and schema.equals(batches[end].records.schema, check_metadata=False)
        ):
            continue
        n_cells = 0
        if end == start + 1:
            yield batches[start]
        else:
            yield from _joined([batch.records for batch in batches[start:end]], schema)
        start = end


def parts_of(batch: Batch) -> Iterator[Batch]:
    """Yield consecutive rows of a batch, ``_MOST_CELLS`` at most, but one row at least."""
    if _n_cells(batch) <= _MOST_CELLS:
        yield batch
        return
    records = batch.records
    n_rows = max(_MOST_CELLS // (records.num_columns - _N_OWN), 1)
    for start in range(0, len(batch), n_rows):
        yield Batch(records.slice(start, n_rows))


def _n_cells(batch: Batch) -> int:
    return int(batch.records.num_rows * (batch.records.num_columns - _N_OWN))


def _joined(records: Sequence[pa.RecordBatch], schema: pa.Schema) -> Iterator[Batch]:
    read = [name for name in schema.names if name not in _UNREAD]
    table = pa.Table.from_batches(records, schema).select(read).combine_chunks()
    for part in table.to_batches():
        found = iter(part.columns)
        columns = [
            pa.nulls(part.num_rows, field.type) if field.name in _UNREAD else next(found)
            for field in schema
        ]
        yield Batch.of(columns, schema)


def watched_columns(batch: Batch) -> Batch | None:
    """Return a batch without the columns that hold bodies which nobody understood.

    They are no features: text among the numbers of the requests beside them, which would become
    another column in the reference. None when there is no other column.
    """
    # Each batch of a backlog comes here, and nearly none has such a column.
    opaque = opaque_sides(batch)
    watched = without_sides(batch, opaque) if opaque else batch
    return watched if watched.records.num_columns > _N_OWN else None


def watched_batch(batch: Batch) -> Batch:
    """Return the rows that detectors see."""
    records = batch.records
    if (
        records.column("orphan").null_count == len(batch)
        and not records.column("synthetic").true_count
        and not np.asarray(records.column("revision")).any()
    ):
        return batch
    return Batch(records.filter(watched_rows(batch)))


def watched_rows(batch: Batch) -> pa.Array:
    """Return which rows detectors see, shape (n_rows,).

    Not what our own explainers asked, nor a row that was there before as an orphan. A request
    alone is seen: where only requests are logged there is nothing else. A response alone has no
    features to look at.
    """
    records = batch.records
    lone_response = pc.fill_null(pc.equal(records.column("orphan"), "response"), fill_value=False)
    again = pc.greater(records.column("revision"), 0)
    return pc.invert(pc.or_(pc.or_(records.column("synthetic"), again), lone_response))


def rows_of(records: pa.RecordBatch) -> Iterator[Rows]:
    """Yield consecutive rows of one version each, in order."""
    times = times_of(records)
    columns = arrays_of(records)
    for start, end, version in _runs(records.column("version")):
        if end - start == len(times):
            yield Rows(times=times, version=version, columns=columns)
            return
        yield Rows(
            times=times[start:end],
            version=version,
            columns={name: values[start:end] for name, values in columns.items()},
        )


def times_of(records: pa.RecordBatch) -> Times:
    """Return the occurrence times of rows."""
    return Times(records.column("time").to_numpy(zero_copy_only=False).view(np.int64))


def arrays_of(table: Any) -> dict[str, NDArray[Any]]:
    """Return features under their bare name and outputs as ``outputs.<name>``."""
    return {
        name.removeprefix(FEATURE_PREFIX): _array(table.column(place))
        for place, name in enumerate(table.schema.names)
        if name.startswith((FEATURE_PREFIX, OUTPUT_PREFIX))
    }


def with_prefixes(table: pa.Table) -> pa.Table:
    """Return a table whose bare column names are feature names with their prefix."""
    names = [
        name if name.startswith((FEATURE_PREFIX, OUTPUT_PREFIX)) else FEATURE_PREFIX + name
        for name in table.schema.names
    ]
    return table.rename_columns(names)


def payload_columns(records: Any) -> Any:
    """Return the feature and output columns alone."""
    names = [
        name for name in records.schema.names if name.startswith((FEATURE_PREFIX, OUTPUT_PREFIX))
    ]
    return records.select(names)


def background_columns(table: pa.Table) -> Mapping[str, list[Any]]:
    """Return the feature columns as Python values, by bare name."""
    return {
        name.removeprefix(FEATURE_PREFIX): table.column(name).to_pylist()
        for name in table.schema.names
        if name.startswith(FEATURE_PREFIX)
    }


def _array(values: Any) -> NDArray[Any]:
    kind = values.type
    if kind == _DOUBLE:
        doubles: NDArray[Any] = np.asarray(values)
        return doubles
    if pa.types.is_boolean(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind):
        words: NDArray[Any] = np.array(values.to_pylist(), dtype=object)
        return words
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        numbers: NDArray[Any] = np.asarray(values.cast(_DOUBLE, safe=False))
        return numbers
    # Not one value a row: the monitor names it among what it skips.
    return np.zeros((len(values), 2))


def _runs(versions: pa.Array) -> Iterator[tuple[int, int, str | None]]:
    if len(versions) and pc.count_distinct(versions, mode="all").as_py() == 1:
        yield 0, len(versions), versions[0].as_py()
        return
    values = versions.to_pylist()
    start = 0
    for index in range(1, len(values) + 1):
        if index == len(values) or values[index] != values[start]:
            yield start, index, values[start]
            start = index
