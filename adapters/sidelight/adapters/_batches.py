"""Inferences of one deployment and layout become one batch: fixed columns, rows joined."""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sidelight.adapters._decoding_columns import arrays, column_names
from sidelight.adapters._decoding_facts import facts_of, times
from sidelight.adapters._decoding_tags import written
from sidelight.adapters.dialects import FAILURE, Half
from sidelight.logger import Pair
from sidelight.payloads import FEATURE_PREFIX, OUTPUT_PREFIX, ROW_SCHEMA, Batch

_FIXED: Final = list(ROW_SCHEMA)
_ROWLESS: Final = frozenset({"opaque", FAILURE})
_TYPES: Final = {field.name: field.type for field in _FIXED}

Names = tuple[tuple[str, ...], tuple[str, ...]]


class Decoded(NamedTuple):
    """An inference whose payloads were read; at least one half is there."""

    pair: Pair
    request: Half | None
    response: Half | None

    @property
    def rows(self) -> int:
        """Rows of the request; of the response where only that one knows of rows."""
        request, response = self.request, self.response
        if request is None or (request.layout.protocol == "opaque" and response is not None):
            return response.rows if response else 1
        return request.rows

    @property
    def protocol(self) -> str:
        """Of the request; of the response where it is alone."""
        half = self.request or self.response
        return half.layout.protocol if half else "opaque"

    @property
    def is_mismatched(self) -> bool:
        """Whether both halves know of rows and disagree."""
        request, response = self.request, self.response
        if request is None or response is None or request.rows == response.rows:
            return False
        return _ROWLESS.isdisjoint((request.layout.protocol, response.layout.protocol))


def build_batch(deployment: str, items: Sequence[Decoded], names: Names) -> Batch:
    """Return one batch of inferences whose halves have the same two layouts.

    Parameters
    ----------
    deployment : str
        ``namespace/name``.
    items : sequence of Decoded
        In the order of their completion; rows keep it.
    names : pair of tuple of str
        Names of features and outputs of a registered schema; empty without one.

    Raises
    ------
    ValueError, TypeError, OverflowError
        When a value is not what its datatype says.

    """
    targets = np.fromiter((item.rows for item in items), dtype=np.int64, count=len(items))
    features, feature_names, asked = _side([item.request for item in items], targets, "f", names[0])
    outputs, output_names, answered = _side(
        [item.response for item in items], targets, "y", names[1]
    )
    fields = [
        *_FIXED,
        *(
            pa.field(FEATURE_PREFIX + name, column.type)
            for name, column in zip(feature_names, features, strict=True)
        ),
        *(
            pa.field(OUTPUT_PREFIX + name, column.type)
            for name, column in zip(output_names, outputs, strict=True)
        ),
    ]
    columns = [*_fixed_columns(items, targets), *features, *outputs]
    records = pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields))
    return Batch.build(
        records, deployment=deployment, layout={"request": asked, "response": answered}
    )


def _side(
    halves: Sequence[Half | None], targets: NDArray[np.int64], unnamed: str, named: tuple[str, ...]
) -> tuple[list[pa.Array], list[str], dict[str, Any] | None]:
    present = [half for half in halves if half is not None]
    if not present:
        return [], [], None
    layout = present[0].layout
    columns = [
        column
        for place, tensor in enumerate(layout.tensors)
        for column in arrays(tensor, [half.values[place] for half in present])
    ]
    names = column_names(layout, unnamed, named)
    counts = np.fromiter((half.rows for half in present), dtype=np.int64, count=len(present))
    if not np.array_equal(counts, targets):
        indices = _indices(counts, targets)
        columns = [column.take(indices) for column in columns]
    return columns, names, layout.to_json(names)


def _indices(counts: NDArray[np.int64], targets: NDArray[np.int64]) -> pa.Array:
    """Return where each wanted row stands among those that are there; null beyond the last."""
    row = _row_numbers(targets)
    starts = np.repeat(np.cumsum(counts) - counts, targets)
    return pa.array(row + starts, mask=row >= np.repeat(counts, targets))


def _row_numbers(targets: NDArray[np.int64]) -> NDArray[np.int64]:
    starts = np.repeat(np.cumsum(targets) - targets, targets)
    return np.arange(int(targets.sum()), dtype=np.int64) - starts


def _fixed_columns(items: Sequence[Decoded], targets: NDArray[np.int64]) -> list[pa.Array]:
    facts = [facts_of(item.pair, item.request, item.response) for item in items]
    for item, fact in zip(items, facts, strict=True):
        if item.is_mismatched:
            fact.tags["rows_mismatch"] = [half.rows for half in item[1:] if half]
    time, latency = times(facts)
    pairs = [item.pair for item in items]
    columns: dict[str, Any] = {
        "id": [pair.id for pair in pairs],
        "revision": [pair.revision for pair in pairs],
        "request_id": [pair.key.request_id for pair in pairs],
        "time": time,
        "version": [fact.version for fact in facts],
        "component": [pair.key.component or None for pair in pairs],
        "endpoint": [pair.key.endpoint or None for pair in pairs],
        "latency_ms": latency,
        "status": [fact.status for fact in facts],
        "protocol": [item.protocol for item in items],
        "orphan": [pair.orphan for pair in pairs],
        "synthetic": [fact.is_synthetic for fact in facts],
        "tags": [written(fact.tags) if fact.tags else None for fact in facts],
        "request_ref": [fact.request_ref for fact in facts],
        "response_ref": [fact.response_ref for fact in facts],
    }
    columns = {name: pa.array(column, type=_TYPES[name]) for name, column in columns.items()}
    rows = _row_numbers(targets)
    if len(rows) != len(items) or rows.any():
        repeats = pa.array(np.repeat(np.arange(len(items)), targets))
        columns = {name: column.take(repeats) for name, column in columns.items()}
    columns["row"] = pa.array(rows.astype(np.int32))
    return [columns[name] for name in _TYPES]
