"""What other detectors reply."""

import json
from typing import Any

import pytest

from sidelight.adapters import detector_reply
from sidelight.payloads import Event

DRIFT = {"is_drift": 1, "distance": [0.4], "p_val": [0.001], "threshold": 0.05}


def event(event_type: str, body: bytes, **extensions: str) -> Event:
    return Event(
        id="e1", source="io.seldon.serving.od", type=event_type, extensions=extensions, data=body
    )


@pytest.mark.parametrize(
    ("event_type", "data", "kind", "rows"),
    [
        ("io.seldon.serving.inference.outlier", {"is_outlier": [0, 1]}, "outlier", 2),
        ("org.kubeflow.serving.inference.outlier", {"is_outlier": [0]}, "outlier", 1),
        ("io.seldon.serving.inference.drift", DRIFT, "drift", None),
    ],
)
def test_a_reply_keeps_what_was_said(
    event_type: str, data: dict[str, Any], kind: str, rows: int | None
) -> None:
    body = json.dumps({"data": data, "meta": {"name": "d"}}).encode()
    names = {"namespace": "n", "inferenceservicename": "m", "modelid": "c", "requestid": "r"}

    reply = detector_reply(event(event_type, body, **names))

    assert reply
    assert (reply["kind"], reply["rows"], reply["data"]) == (kind, rows, data)
    assert (reply["deployment"], reply["meta"]) == ("n/m", {"name": "d"})
    assert reply["request_id"] == ("r" if event_type.startswith("io.seldon") else "e1")


@pytest.mark.parametrize(
    "body", [b"", b"x", b"[1]", b'{"data": [1]}', b'{"data": {"is_outlier": 1}}']
)
def test_a_reply_without_a_result_is_still_one(body: bytes) -> None:
    reply = detector_reply(event("io.seldon.serving.inference.drift", body))

    assert reply
    assert (reply["kind"], reply["rows"]) == ("drift", None)


@pytest.mark.parametrize(
    "event_type", ["io.seldon.serving.inference.request", "io.sidelight.alarm", "x.outlier", ""]
)
def test_other_events_are_no_replies(event_type: str) -> None:
    assert detector_reply(event(event_type, b"{}")) is None
