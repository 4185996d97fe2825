"""Counting what was stored: inferences, rows, orphans, statuses, latencies."""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sidelight.payloads import ROW_SCHEMA, Batch
from sidelight.service._metrics import LATENCY_BOUNDS_S, Labels, split_name
from sidelight.service._stage import Counts

# What inferences are counted by.
_KIND: Final = ("version", "orphan", "revision", "status")
_READ: Final = (*_KIND, "row", "synthetic", "latency_ms")
_PLACES: Final = {name: ROW_SCHEMA.names.index(name) for name in _READ}
_LATENCY: Final = "model_latency_seconds"
_BOUNDS: Final = np.asarray(LATENCY_BOUNDS_S)
_BOUND_NAMES: Final = (*map(str, LATENCY_BOUNDS_S), "+Inf")


def count_inferences(batches: Sequence[Batch], counts: Counts) -> None:
    """Count batches that are committed with these counts; what explainers asked is not counted.

    All batches are counted in one go: where deployments are many, their batches are short, and
    each call of Arrow costs more than the rows of one batch.

    Parameters
    ----------
    batches : sequence of Batch
        Of any deployments.
    counts : Counts
        Gets the increments.

    """
    batches = [batch for batch in batches if len(batch)]
    if not batches:
        return
    labels = [split_name(batch.deployment) for batch in batches]
    of = np.repeat(np.arange(len(batches)), [len(batch) for batch in batches])
    is_first = _numbers(batches, "row") == 0
    is_counted = ~_joined(batches, "synthetic").to_numpy(zero_copy_only=False)
    for kind, number in _kinds(batches, of, is_first, is_counted):
        if kind.orphan is None:
            version = ("version", kind.version or "")
            counts.add("inference_rows_total", (*labels[kind.batch], version), number)
        if kind.is_first:
            _count_inferences(kind, number, labels[kind.batch], counts)
    latencies = _joined(batches, "latency_ms")
    seconds = latencies.to_numpy(zero_copy_only=False) / 1000
    is_known = latencies.is_valid().to_numpy(zero_copy_only=False) & is_first & is_counted
    _count_latencies(seconds[is_known], of[is_known], labels, counts)


class _Kind(NamedTuple):
    batch: int
    is_first: bool
    version: str | None
    orphan: str | None
    revision: int
    status: int | None


def _kinds(
    batches: Sequence[Batch],
    of: NDArray[np.int64],
    is_first: NDArray[np.bool_],
    is_counted: NDArray[np.bool_],
) -> Iterator[tuple[_Kind, int]]:
    """Yield each kind of rows and how many there are."""
    columns = [_joined(batches, name).dictionary_encode() for name in _KIND]
    values = [[*column.dictionary.to_pylist(), None] for column in columns]
    key = of * 2 + is_first
    for column, names in zip(columns, values, strict=True):
        key = key * len(names) + column.indices.fill_null(len(names) - 1).to_numpy()
    found, numbers = np.unique(key[is_counted], return_counts=True)
    for code, number in zip(found.tolist(), numbers.tolist(), strict=True):
        rest, kind = code, []
        for names in reversed(values):
            rest, place = divmod(rest, len(names))
            kind.append(names[place])
        yield _Kind(rest // 2, bool(rest % 2), *reversed(kind)), number


def _joined(batches: Sequence[Batch], name: str) -> pa.Array:
    place = _PLACES[name]
    return pa.concat_arrays([batch.records.column(place) for batch in batches])


def _numbers(batches: Sequence[Batch], name: str) -> NDArray[np.int64]:
    numbers: NDArray[np.int64] = _joined(batches, name).to_numpy()
    return numbers


def _count_inferences(kind: _Kind, number: int, labels: Labels, counts: Counts) -> None:
    """Count the inferences of one kind."""
    if kind.orphan is not None:
        counts.add("orphans_total", (*labels, ("kind", kind.orphan)), number)
    else:
        counts.add("inferences_total", (*labels, ("version", kind.version or "")), number)
        if kind.revision:
            counts.add("orphans_completed_total", labels, number)
    if kind.status is not None:
        outcome = (*labels, ("outcome", str(kind.status)))
        counts.add("model_responses_total", outcome, number)


def _count_latencies(
    seconds: NDArray[np.float64],
    of: NDArray[np.int64],
    labels: Sequence[Labels],
    counts: Counts,
) -> None:
    if not len(seconds):
        return
    totals = np.bincount(of, weights=seconds)
    for batch in np.unique(of).tolist():
        counts.add(f"{_LATENCY}_sum", labels[batch], float(totals[batch]))
    width = len(_BOUND_NAMES)
    in_bucket = np.bincount(of * width + np.searchsorted(_BOUNDS, seconds))
    for place in np.flatnonzero(in_bucket).tolist():
        bound = ("le", _BOUND_NAMES[place % width])
        counts.add(f"{_LATENCY}_bucket", (*labels[place // width], bound), float(in_bucket[place]))
