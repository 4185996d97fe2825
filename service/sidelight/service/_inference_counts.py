"""Counting what was stored: inferences, rows, orphans, statuses, latencies."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sidelight.payloads import ROW_SCHEMA, Batch
from sidelight.service._metrics import LATENCY_BOUNDS_S, split_name
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
    if not batches:
        return
    table = _joined(batches)
    if pc.any(table.column("synthetic")).as_py():
        table = table.filter(pc.invert(table.column("synthetic")))
    labels = [split_name(batch.deployment) for batch in batches]
    kinds = table.group_by(["batch", *_KIND, "first"], use_threads=False)
    for item in kinds.aggregate([([], "count_all")]).to_pylist():
        number, of = item["count_all"], labels[item["batch"]]
        if item["orphan"] is None:
            version = ("version", item["version"] or "")
            counts.add("inference_rows_total", (*of, version), number)
        if item["first"]:
            _count_inferences(item, number, of, counts)
    _count_latencies(table.filter(table.column("first")), labels, counts)


def _joined(batches: Sequence[Batch]) -> pa.Table:
    columns = {
        name: pa.chunked_array([batch.records.column(place) for batch in batches])
        for name, place in _PLACES.items()
    }
    lengths = [len(batch) for batch in batches]
    columns["batch"] = pa.array(np.repeat(np.arange(len(batches)), lengths))
    columns["first"] = pc.equal(columns["row"], 0)
    return pa.table(columns)


def _count_inferences(item: dict[str, Any], number: int, labels: Any, counts: Counts) -> None:
    """Count the inferences of one kind."""
    if item["orphan"] is not None:
        counts.add("orphans_total", (*labels, ("kind", item["orphan"])), number)
    else:
        counts.add("inferences_total", (*labels, ("version", item["version"] or "")), number)
        if item["revision"]:
            counts.add("orphans_completed_total", labels, number)
    if item["status"] is not None:
        outcome = (*labels, ("outcome", str(item["status"])))
        counts.add("model_responses_total", outcome, number)


def _count_latencies(first: pa.Table, labels: Sequence[Any], counts: Counts) -> None:
    known = first.filter(pc.is_valid(first.column("latency_ms")))
    if not known.num_rows:
        return
    seconds = known.column("latency_ms").to_numpy() / 1000
    of = known.column("batch").to_numpy()
    totals = np.bincount(of, weights=seconds)
    for batch in np.unique(of).tolist():
        counts.add(f"{_LATENCY}_sum", labels[batch], float(totals[batch]))
    width = len(_BOUND_NAMES)
    in_bucket = np.bincount(of * width + np.searchsorted(_BOUNDS, seconds))
    for place in np.flatnonzero(in_bucket).tolist():
        bound = ("le", _BOUND_NAMES[place % width])
        counts.add(f"{_LATENCY}_bucket", (*labels[place // width], bound), float(in_bucket[place]))
