"""Counts of batches are those of their rows, one by one."""

from typing import Any

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from sidelight.payloads import ROW_SCHEMA, Batch
from sidelight.service._inference_counts import count_inferences
from sidelight.service._metrics import observe, split_name
from sidelight.service._stage import Counts

_ROWS = st.fixed_dictionaries(
    {
        "row": st.integers(0, 2),
        "revision": st.integers(0, 1),
        "version": st.sampled_from([None, "", "v1"]),
        "orphan": st.sampled_from([None, "request", "response"]),
        "status": st.sampled_from([None, 200, 500]),
        "synthetic": st.booleans(),
        "latency_ms": st.sampled_from([None, 0.0, 5.0, 12.5, 1e7]),
    }
)
_BATCHES = st.lists(
    st.tuples(st.sampled_from(["a/b", "a/c", "d"]), st.lists(_ROWS, max_size=5)), max_size=4
)


def _batch(deployment: str, rows: list[dict[str, Any]]) -> Batch:
    defaults = {"id": "i", "request_id": "r", "time": 0, "protocol": "v2"}
    arrays = [
        pa.array([{**defaults, **row}.get(field.name) for row in rows], field.type)
        for field in ROW_SCHEMA
    ]
    records = pa.RecordBatch.from_arrays(arrays, schema=ROW_SCHEMA)
    return Batch.build(records, deployment=deployment, layout={})


def _one_by_one(deployment: str, row: dict[str, Any], counts: Counts) -> None:
    labels = split_name(deployment)
    version = ("version", row["version"] or "")
    if row["synthetic"]:
        return
    if row["orphan"] is None:
        counts.add("inference_rows_total", (*labels, version))
    if row["row"]:
        return
    if row["orphan"] is not None:
        counts.add("orphans_total", (*labels, ("kind", row["orphan"])))
    else:
        counts.add("inferences_total", (*labels, version))
        counts.add("orphans_completed_total", labels, row["revision"])
    if row["status"] is not None:
        counts.add("model_responses_total", (*labels, ("outcome", str(row["status"]))))
    if row["latency_ms"] is not None:
        observe(counts, "model_latency_seconds", labels, [row["latency_ms"] / 1000])


@given(_BATCHES)
def test_batches_count_as_their_rows_one_by_one(
    given_batches: list[tuple[str, list[dict[str, Any]]]],
) -> None:
    expected = Counts()
    for deployment, rows in given_batches:
        for row in rows:
            _one_by_one(deployment, row, expected)

    counted = Counts()
    count_inferences([_batch(*item) for item in given_batches], counted)

    assert {key: value for key, value in counted.items() if value} == {
        key: value for key, value in expected.items() if value
    }
