"""Files of SageMaker's data capture."""

import base64
import json
from typing import Any

import pytest

from sidelight.adapters import Decoder, ImportFileError, sagemaker_capture
from sidelight.logger import Pairing, parse
from sidelight.logger._journal import EventRecord
from sidelight.payloads import Event

KEY = "prefix/churn/AllTraffic/2026/05/01/10/30-45-1.jsonl"


def line(number: int = 0, **changes: Any) -> dict[str, Any]:
    return {
        "captureData": {
            "endpointInput": {
                "observedContentType": "text/csv",
                "mode": "INPUT",
                "data": "6,148,72\n1,85,66",
                "encoding": "CSV",
            },
            "endpointOutput": {
                "observedContentType": "application/json",
                "mode": "OUTPUT",
                "data": base64.b64encode(b'{"predictions":[1,0]}').decode(),
                "encoding": "BASE64",
            },
        },
        "eventMetadata": {"eventId": f"e{number}", "inferenceTime": "2026-05-01T10:30:45Z"},
        "eventVersion": "0",
        **changes,
    }


def as_lines(*lines: Any) -> bytes:
    return "\n".join(json.dumps(item) for item in lines).encode() + b"\n\n"


def test_each_line_is_an_inference_of_the_endpoint_in_its_key() -> None:
    events: list[Event] = []
    for captured in sagemaker_capture(as_lines(line(0), line(1)), key=KEY):
        head = b"POST / HTTP/1.1\r\ncontent-type: application/cloudevents+json\r\n\r\n"
        events += parse(EventRecord(0, len(events), 0, head, captured.member()))[0]
    outcome = Pairing(lambda _: None).step(events, lambda _: {})

    (batch,) = Decoder().decode(outcome.pairs).batches

    assert batch.deployment == "default/churn"
    assert batch.records.column("version").to_pylist() == ["AllTraffic"] * 4
    assert batch.records.column("request_id").to_pylist() == ["e0", "e0", "e1", "e1"]
    assert batch.feature("f1").to_pylist() == [148, 85, 148, 85]
    assert batch.output("y").to_pylist() == [1, 0, 1, 0]


def test_a_key_that_is_no_path_of_captures_names_nothing() -> None:
    (request, _) = sagemaker_capture(as_lines(line()), key="x.jsonl")

    assert b"inferenceservicename" not in request.attributes


def test_one_half_may_be_missing() -> None:
    only = {"endpointInput": line()["captureData"]["endpointInput"]}

    assert len(sagemaker_capture(as_lines(line(captureData=only)))) == 1


def test_lines_that_cannot_be_read_are_left_out_and_told() -> None:
    data = as_lines(line(0)) + b"{broken\n" + as_lines({}, line(1))
    left: list[str] = []

    events = sagemaker_capture(data, bad=lambda error: left.append(error.what))

    assert [b'"e0"' in event.attributes for event in events] == [True, True, False, False]
    assert left == ["line 3", "line 4"]


@pytest.mark.parametrize(
    "data",
    [
        b"x",
        b"[1]",
        as_lines({}),
        as_lines(line(eventMetadata={})),
        as_lines(line(captureData={"endpointInput": {"data": "?", "encoding": "BASE64"}})),
    ],
    ids=["no JSON", "no object", "no record", "no id", "no base64"],
)
def test_other_lines_are_refused_by_their_number(data: bytes) -> None:
    with pytest.raises(ImportFileError, match="line 2") as caught:
        sagemaker_capture(as_lines(line()).strip() + b"\n" + data)

    assert caught.value.what == "line 2"
