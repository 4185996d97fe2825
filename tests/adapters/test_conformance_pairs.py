"""Requests with their answers, of every platform: the rows that both halves together become.

Each line of ``tests/wire/pairs`` is one inference: two halves with the attributes in which they
differ from what their platform's logger usually sends, and ``rows`` as ``[features, outputs]``.
Halves come in both orders, and twice.
"""

import base64
import json
import math
from pathlib import Path
from typing import Any

import pytest

from sidelight.adapters import Decoder
from sidelight.logger import parse
from sidelight.logger._journal import EventRecord
from sidelight.logger._pairing import Pairing
from sidelight.payloads import Batch

PAIRS = Path(__file__).parents[1] / "wire" / "pairs"
CASES = {
    case["id"]: case
    for path in sorted(PAIRS.glob("*.jsonl"))
    for case in map(json.loads, path.read_text().splitlines())
}
SIDES = ("request", "response")
TIMES = ("2026-05-01T10:00:00.000000000Z", "2026-05-01T10:00:00.012500000Z")
USUAL = {
    "kserve": {
        "component": "predictor",
        "endpoint": "",
        "id": "rid-1",
        "metadata": "{}",
        "recordedtime": TIMES[1],
        "source": "http://localhost:9081/",
    },
    "seldon": {
        "endpoint": "default",
        "modelid": "classifier",
        "protocol": "seldon",
        "requestid": "puid-1",
        "source": "http://:8000/",
        "traceparent": "00-9c7cc210d352f7b68be6422c1b4b78f4-a7e8a2a38709bbc9-00",
    },
}
TYPES = {
    "kserve": "org.kubeflow.serving.inference.",
    "seldon": "io.seldon.serving.inference.",
}


def sent(case: dict[str, Any], side: str) -> tuple[bytes, bytes]:
    """Return head and body of the request to the door that brings one half."""
    half, platform = case[side], case["platform"]
    attributes = {
        "specversion": "1.0",
        "type": TYPES[platform] + side,
        # Seldon's executor makes a new one for each event.
        "id": f"event-{side}",
        "time": TIMES[SIDES.index(side)],
        "namespace": "acc",
        "inferenceservicename": case["id"],
        **USUAL[platform],
        **half.get("attributes", {}),
    }
    lines = [
        f"Ce-{name.title()}: {value}" for name, value in attributes.items() if value is not None
    ]
    content_type = half.get("content_type", "application/json")
    if content_type is not None:
        lines.append(f"Content-Type: {content_type}")
    head = "\r\n".join(["POST / HTTP/1.1", *lines, "", ""]).encode()
    body = half["text"].encode() if "text" in half else base64.b64decode(half["base64"])
    return head, body


def read(case: dict[str, Any], order: tuple[str, ...]) -> tuple[Batch, int]:
    """Return the one batch that halves become, and how many of them were duplicates."""
    records = [
        EventRecord(0, position, 1000, *sent(case, side)) for position, side in enumerate(order)
    ]
    events = []
    for record in records:
        found, rejected = parse(record)
        assert rejected == []
        events += found
    outcome = Pairing(lambda _: None, orphan_after_ns=1).step(events, lambda _: {})
    pairs = outcome.whole()
    assert len(pairs) == 1
    batches = Decoder().decode(pairs).batches
    assert len(batches) == 1
    return batches[0], sum(outcome.duplicates.values())


def rows_of(batch: Batch) -> list[list[dict[str, Any]]]:
    features = {name: batch.feature(name).to_pylist() for name in batch.feature_names}
    outputs = {name: batch.output(name).to_pylist() for name in batch.output_names}
    return [
        [{name: values[row] for name, values in side.items()} for side in (features, outputs)]
        for row in range(len(batch))
    ]


def is_close(found: Any, wanted: Any) -> bool:
    """Whether a value is what was sent; of numbers only kind and value count."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        return set(found) == set(wanted) and all(
            is_close(found[name], value) for name, value in wanted.items()
        )
    if isinstance(found, list) and isinstance(wanted, list):
        return len(found) == len(wanted) and all(map(is_close, found, wanted))
    if isinstance(found, bool) or isinstance(wanted, bool):
        return found is wanted
    if isinstance(found, float) and isinstance(wanted, (int, float)):
        return math.isclose(found, wanted, rel_tol=1e-6)
    return bool(found == wanted)


def value_of(batch: Batch, name: str) -> Any:
    return batch.records.column(name)[0].as_py()


@pytest.mark.parametrize("name", CASES)
def test_a_request_and_its_answer_are_the_rows_that_they_mean(name: str) -> None:
    case = CASES[name]
    orders = {
        ("request", "response"): 0,
        ("response", "request"): 0,
        ("request", "request", "response", "response", "request"): 3,
    }
    for order, n_duplicates in orders.items():
        batch, duplicates = read(case, order)

        assert duplicates == n_duplicates
        assert is_close(rows_of(batch), case["rows"]), rows_of(batch)
        assert value_of(batch, "orphan") is None
        for field in ("request_id", "component", "synthetic", "version", "latency_ms", "protocol"):
            if field in case:
                assert value_of(batch, field) == case[field]
        tags = json.loads(value_of(batch, "tags") or "{}")
        wanted = {"undecoded": None, "empty": None} | case.get("tags", {})
        assert {tag: tags.get(tag) for tag in wanted} == wanted
