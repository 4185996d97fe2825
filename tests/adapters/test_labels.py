"""Labels from feedback: Seldon's truth and reward, as JSON and as protobuf, and our own."""

import gzip
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidelight.adapters import Decoder
from sidelight.adapters.dialects._messages import Feedback
from sidelight.payloads import Column, Event, Schema

SELDON = "io.seldon.serving.feedback"
TABLE = {"data": {"ndarray": [[53, 4]]}}


def event(body: object, **changes: Any) -> Event:
    return Event(
        id="ea",
        source="/s",
        type=changes.pop("type", SELDON),
        time=changes.pop("time", "2026-05-01T11:00:00Z"),
        extensions={
            "namespace": "seldon",
            "inferenceservicename": "income",
            "modelid": "classifier",
            "requestid": "r9",
        },
        data=body if isinstance(body, bytes) else json.dumps(body).encode(),
        received_ns=1_777_629_600_000_000_000,
    )


def labels(body: object, schema: Schema | None = None) -> list[dict[str, Any]]:
    items, rejected = Decoder(lambda _: schema).labels(event(body))
    assert rejected == []
    assert {(item["deployment"], item["request_id"]) for item in items} == {("seldon/income", "r9")}
    return [{"row": item["row"], **item["labels"]} for item in items]


@pytest.mark.parametrize(
    ("truth", "expected"),
    [
        pytest.param({"data": {"ndarray": [[1]]}}, [{"row": 0, "y": 1}], id="one"),
        pytest.param(
            {"data": {"ndarray": [[1], [0]]}}, [{"row": 0, "y": 1}, {"row": 1, "y": 0}], id="rows"
        ),
        pytest.param({"data": {"ndarray": [1, 0]}}, [{"row": 0, "y": 1}, {"row": 1, "y": 0}]),
        pytest.param(
            {"data": {"ndarray": [[1, 0.5]]}}, [{"row": 0, "y0": 1, "y1": 0.5}], id="several"
        ),
        pytest.param(
            {"data": {"names": ["late"], "ndarray": [[True]]}},
            [{"row": 0, "late": True}],
            id="named",
        ),
        pytest.param(
            {"data": {"tensor": {"shape": [2, 1], "values": [1, "NaN"]}}},
            [{"row": 0, "y": 1.0}],
            id="not finite",
        ),
        pytest.param({"strData": "bad"}, [{"row": 0, "y": "bad"}], id="text"),
    ],
)
def test_the_truth_has_labels_for_each_row(truth: Any, expected: list[dict[str, Any]]) -> None:
    assert labels({"request": TABLE, "truth": truth}) == expected


def test_a_reward_is_a_label_of_the_first_row() -> None:
    truth = {"data": {"ndarray": [[1], [0]]}}

    assert labels({"reward": 0.5, "truth": truth}) == [
        {"row": 0, "reward": 0.5, "y": 1},
        {"row": 1, "y": 0},
    ]
    assert labels({"reward": 1, "response": TABLE}) == [{"row": 0, "reward": 1}]


def test_a_schema_names_labels() -> None:
    schema = Schema(
        columns=(
            Column(name="age", kind="numeric"),
            Column(name="income", kind="categorical", role="label"),
        )
    )

    assert labels({"truth": {"data": {"ndarray": [[1]]}}}, schema) == [{"row": 0, "income": 1}]


def test_a_message_says_the_same_as_its_json() -> None:
    message = Feedback(reward=0.5)
    message.truth.data.names.append("late")
    message.truth.data.tensor.shape.extend([1, 1])
    message.truth.data.tensor.values.append(1.0)

    assert labels(message.SerializeToString()) == [{"row": 0, "reward": 0.5, "late": 1.0}]


def test_compressed_feedback_is_read() -> None:
    body = gzip.compress(json.dumps({"reward": 1}).encode())

    assert labels(body) == [{"row": 0, "reward": 1}]


def test_labels_without_a_time_have_that_of_receipt() -> None:
    items, _ = Decoder().labels(event({"reward": 1}, time=None))

    assert items[0]["time"] == "2026-05-01T10:00:00Z"


def test_our_own_feedback_is_read_as_before() -> None:
    body = {"deployment": "a/b", "request_id": "1", "labels": {"late": True}}

    items, rejected = Decoder().labels(event(body, type="io.sidelight.feedback"))

    assert (items[0]["labels"], rejected) == ({"late": True}, [])


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff\xff",
        b"[1]",
        b"{",
        {},
        {"truth": {}},
        {"truth": []},
        {"truth": [1]},
        {"truth": {"data": {"tensor": {"shape": [3], "values": [1]}}}},
        {"reward": "x"},
        {"reward": True},
    ],
)
def test_what_says_nothing_is_refused(body: object) -> None:
    items, rejected = Decoder().labels(event(body))

    assert (items, [item.reason for item in rejected]) == ([], ["feedback"])


@given(st.binary(max_size=60))
def test_no_bytes_make_the_reader_raise(data: bytes) -> None:
    items, rejected = Decoder().labels(event(data))

    assert items or rejected
