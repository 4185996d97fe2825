"""Inferences of one deployment and layout become one batch: fixed columns, rows joined."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sidelight.adapters._batches_fixed import constant, fixed_columns
from sidelight.adapters._decoded import Decoded, Layouts
from sidelight.adapters._decoding_columns import arrays, column_names
from sidelight.adapters._known_inferences import Known
from sidelight.adapters.dialects import Layout
from sidelight.payloads import FEATURE_PREFIX, OUTPUT_PREFIX, ROW_SCHEMA, Batch

Item = Decoded | Known
Names = tuple[tuple[str, ...], tuple[str, ...]]

_FIXED: Final = list(ROW_SCHEMA)
_SIDES: Final = ((FEATURE_PREFIX, "f"), (OUTPUT_PREFIX, "y"))


def build_batch(deployment: str, items: Sequence[Item], layouts: Layouts, names: Names) -> Batch:
    """Return one batch of inferences whose halves have the same two layouts.

    Parameters
    ----------
    deployment : str
        ``namespace/name``.
    items : sequence of Decoded or Known
        In the order of their completion; rows keep it.
    layouts : pair of Layout or None
        Of the requests and of the responses.
    names : pair of tuple of str
        Names of features and outputs of a registered schema; empty without one.

    Raises
    ------
    ValueError, TypeError, OverflowError
        When a value is not what its datatype says.

    """
    targets = np.fromiter([item.rows for item in items], dtype=np.int64, count=len(items))
    columns = _fixed(items, targets)
    for side, layout in enumerate(layouts):
        if layout is not None:
            columns += _side(items, side, layout, targets)
    schema = _schema(deployment, layouts, names, tuple([column.type for column in columns]))
    return Batch.of(columns, schema)


@lru_cache(maxsize=1024)
def _schema(
    deployment: str, layouts: Layouts, names: Names, types: tuple[pa.DataType, ...]
) -> pa.Schema:
    """Return the schema of a batch; those of a client are the same for as long as it is."""
    fields = list(_FIXED)
    described: list[dict[str, Any] | None] = []
    for layout, (prefix, unnamed), named in zip(layouts, _SIDES, names, strict=True):
        found = [] if layout is None else column_names(layout, unnamed, named)
        described.append(None if layout is None else layout.to_json(found))
        start = len(fields)
        of_side = types[start : start + len(found)]
        fields += [pa.field(prefix + name, kind) for name, kind in zip(found, of_side, strict=True)]
    empty = pa.RecordBatch.from_pylist([], schema=pa.schema(fields))
    batch = Batch.build(
        empty, deployment=deployment, layout={"request": described[0], "response": described[1]}
    )
    return batch.records.schema


def _side(
    items: Sequence[Item], side: int, layout: Layout, targets: NDArray[np.int64]
) -> list[pa.Array]:
    columns = [
        column
        for place, tensor in enumerate(layout.tensors)
        for column in arrays(tensor, [item.values[side][place] for item in items])
    ]
    if all(type(item) is Known for item in items):
        return columns
    counts = np.fromiter(
        [item.row_counts[side] for item in items], dtype=np.int64, count=len(items)
    )
    if not np.array_equal(counts, targets):
        indices = _indices(counts, targets)
        columns = [column.take(indices) for column in columns]
    return columns


def _indices(counts: NDArray[np.int64], targets: NDArray[np.int64]) -> pa.Array:
    """Return where each wanted row stands among those that are there; null beyond the last."""
    row = _row_numbers(targets)
    starts = np.repeat(np.cumsum(counts) - counts, targets)
    return pa.array(row + starts, mask=row >= np.repeat(counts, targets))


def _row_numbers(targets: NDArray[np.int64]) -> NDArray[np.int64]:
    starts = np.repeat(np.cumsum(targets) - targets, targets)
    return np.arange(int(targets.sum()), dtype=np.int64) - starts


def _fixed(items: Sequence[Item], targets: NDArray[np.int64]) -> list[pa.Array]:
    columns = fixed_columns(items)
    if (targets == 1).all():
        columns["row"] = constant(0, pa.int32(), len(items))
        return [columns[field.name] for field in _FIXED]
    rows = _row_numbers(targets)
    if len(rows) != len(items) or rows.any():
        repeats = pa.array(np.repeat(np.arange(len(items)), targets))
        columns = {name: column.take(repeats) for name, column in columns.items()}
    columns["row"] = pa.array(rows.astype(np.int32))
    return [columns[field.name] for field in _FIXED]
