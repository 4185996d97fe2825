"""Kafka records, consumed or wrapped by Knative: what platform they are of, and their halves."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidelight.logger import ConsumedRecord, identity, kind_of, parse, record_request
from sidelight.logger._envelope_topics import header_name
from sidelight.logger._journal import EventRecord
from sidelight.payloads import Event

KEY = "3.income-prod.cfp0"
ANSWER = {
    "Ce-Specversion": "0.3",
    "Ce-Type": "io.seldon.serving.inference.response",
    "Ce-Id": "r7",
    "Ce-Requestid": "r7",
    "Ce-Modelid": "iris",
    "Ce-Inferenceservicename": "mlserver",
    "Ce-Namespace": "prod",
}
SELDON = {
    "type": "io.seldon.serving.inference.request",
    "content-type": "application/json",
    "modelid": "classifier",
    "requestid": "r1",
    "inferenceservicename": "income",
    "namespace": "seldon",
    "endpoint": "default",
    "protocol": "seldon",
}


def consumed(
    headers: dict[str, str] | None = None,
    value: bytes | None = b"{}",
    *,
    topic: str = "t",
    key: bytes | None = None,
    timestamp_ms: int | None = None,
) -> Event:
    record = ConsumedRecord(
        topic=topic,
        partition=2,
        offset=9,
        key=key,
        value=value,
        headers=[(name, text.encode()) for name, text in (headers or {}).items()],
        timestamp_ms=timestamp_ms,
    )
    head, body = record_request(record)
    events, rejected = parse(EventRecord(0, 5, 1, head, body))
    assert (len(events), rejected) == (1, [])
    return events[0]


def wrapped(headers: dict[str, str], *, topic: str, key: str = "", value: bytes = b"") -> Event:
    """Return the event of a record as Knative's KafkaSource sends it on."""
    attributes = {
        "specversion": "1.0",
        "id": "partition:2/offset:9",
        "type": "dev.knative.kafka.event",
        "source": f"/apis/v1/namespaces/m/kafkasources/s#{topic}",
        "subject": "partition:2#9",
        **({"key": key} if key else {}),
        **{f"kafkaheader{header_name(name)}": text for name, text in headers.items()},
    }
    lines = "".join(f"ce-{name}: {text}\r\n" for name, text in attributes.items())
    events, rejected = parse(
        EventRecord(0, 5, 1, f"POST / HTTP/1.1\r\n{lines}\r\n".encode(), value)
    )
    assert (len(events), rejected) == (1, [])
    return events[0]


def test_binary_events_keep_their_attributes_and_data() -> None:
    headers = {
        "ce_specversion": "1.0",
        "ce_type": "io.seldon.serving.inference.request",
        "ce_source": "/s",
        "ce_id": "k 1%20é",
        "ce_requestid": "r1",
        "content-type": "application/json",
    }

    event = consumed(headers, b'{"data": {"ndarray": [[NaN]]}}')

    assert (event.id, event.source, event.datacontenttype) == ("k 1%20é", "/s", "application/json")
    assert event.data == b'{"data": {"ndarray": [[NaN]]}}'
    assert identity(event).request_id == "r1"


@pytest.mark.parametrize("value", [b"", b"\xff\x00", b" [1] ", b"null", b'{"a": 1}'])
def test_data_are_kept_byte_for_byte(value: bytes) -> None:
    headers = {"ce_specversion": "1.0", "ce_type": "t", "ce_source": "/s", "ce_id": "1"}

    assert consumed(headers, value).data == value


def test_structured_events_are_read() -> None:
    body = {"specversion": "1.0", "type": "t", "source": "/s", "id": "7", "data": [1]}

    event = consumed(
        {"Content-Type": "application/cloudevents+json; charset=UTF-8"}, json.dumps(body).encode()
    )

    assert (event.id, event.data) == ("7", b"[1]")


def test_a_tombstone_is_an_event_without_data() -> None:
    headers = {"ce_specversion": "1.0", "ce_type": "x", "ce_source": "/s", "ce_id": "k3"}

    event = consumed(headers, None)

    assert (event.data, kind_of(event.type)) == (b"", "other")


def test_the_time_of_a_record_is_that_of_an_event_without() -> None:
    assert consumed(SELDON, timestamp_ms=1_777_629_600_123).time == "2026-05-01T10:00:00.123Z"
    assert consumed(SELDON, timestamp_ms=10**18).time is None
    dated = {
        "ce_specversion": "1.0",
        "ce_type": "t",
        "ce_source": "/s",
        "ce_id": "1",
        "ce_time": "2026-01-01T00:00:00Z",
    }
    assert consumed(dated, timestamp_ms=1).time == "2026-01-01T00:00:00Z"


@pytest.mark.parametrize("is_wrapped", [False, True])
def test_records_of_seldons_executor_have_its_names(is_wrapped: bool) -> None:  # noqa: FBT001
    event = wrapped(SELDON, topic="seldon") if is_wrapped else consumed(SELDON, topic="seldon")

    assert kind_of(event.type) == "request"
    assert tuple(identity(event)) == ("seldon", "income", "default", "classifier", "r1")


@pytest.mark.parametrize("is_wrapped", [False, True])
@pytest.mark.parametrize(
    ("topic", "headers", "kind", "key"),
    [
        (
            "seldon.mesh.model.iris.inputs",
            {"pipeline": "p", "x-request-id": "c"},
            "request",
            ("mesh", "iris", "p", "model", KEY),
        ),
        (
            "seldon.mesh.model.iris.outputs",
            {"pipeline": "p", "x-request-id": "c"},
            "response",
            ("mesh", "iris", "p", "model", KEY),
        ),
        (
            "my.prefix.mesh.pipeline.income.outputs",
            {"pipeline": "income", "x-pipeline-version": "4"},
            "response",
            ("mesh", "income", "income", "pipeline", KEY),
        ),
        (
            "seldon.mesh.errors.errors",
            {"pipeline": "p", "seldon-pipeline-errors": "iris"},
            "response",
            ("mesh", "iris", "p", "model", KEY),
        ),
        ("seldon.default.model.a.b.inputs", {}, "request", ("default", "a.b", "", "model", KEY)),
    ],
)
def test_topics_of_core_2_say_whose_half_a_record_is(
    topic: str,
    headers: dict[str, str],
    kind: str,
    key: tuple[str, ...],
    is_wrapped: bool,  # noqa: FBT001 - a parameter
) -> None:
    if is_wrapped:
        event = wrapped(headers, topic=topic, key=KEY)
    else:
        event = consumed(headers, topic=topic, key=KEY.encode())

    assert (kind_of(event.type), tuple(identity(event))) == (kind, key)
    assert event.extensions.get("modelversion") == headers.get("x-pipeline-version")


def test_both_records_of_mlserver_are_halves_of_one_inference() -> None:
    request = consumed(
        {"mlserver-model": "iris", "mlserver-version": "2"}, topic="mlserver-input", key=b"r7"
    )
    response = consumed(ANSWER, topic="mlserver-output", key=b"r7")

    assert (kind_of(request.type), kind_of(response.type)) == ("request", "response")
    assert identity(request) == identity(response)
    assert tuple(identity(request)) == ("default", "iris", "", "", "r7")


def test_a_record_that_nobody_knows_is_an_event_of_its_place() -> None:
    event = consumed({"any": "thing"}, b"\x00", topic="other topic")

    assert (event.type, event.id, event.source) == (
        "dev.knative.kafka.event",
        "other topic/2/9",
        "kafka:other%20topic",
    )
    assert event.data == b"\x00"


def test_a_record_without_a_key_is_the_same_at_each_delivery() -> None:
    one, other = (consumed({}, topic="s.n.model.m.inputs") for _ in range(2))

    assert one.id == other.id == "s.n.model.m.inputs/2/9"


def test_a_content_type_cannot_add_a_header() -> None:
    record = ConsumedRecord(
        topic="t",
        partition=0,
        offset=0,
        value=b"{}",
        headers=[("content-type", b"application/cloudevents+json\r\nce-id: 1")],
    )

    assert record_request(record)[0].count(b"\r\n") == 3


texts = st.text(max_size=8)
headers_of = st.lists(
    st.tuples(
        st.sampled_from(["ce_id", "ce_type", "ce_", "type", "content-type", "pipeline", "x"]),
        st.none() | st.binary(max_size=8) | st.just(b"application/cloudevents+json"),
    ),
    max_size=5,
)


@given(
    st.sampled_from(["a.b.model.c.inputs", "x.errors.errors", "", ".", "t"]),
    st.none() | st.binary(max_size=8),
    st.none() | st.binary(max_size=20),
    headers_of,
    st.none() | st.integers(-(2**63), 2**63),
)
@settings(deadline=None)
def test_no_record_makes_the_parser_raise(
    topic: str, key: bytes | None, value: bytes | None, headers: list[Any], time: int | None
) -> None:
    record = ConsumedRecord(
        topic=topic, partition=0, offset=1, key=key, value=value, headers=headers, timestamp_ms=time
    )

    head, body = record_request(record)
    events, rejected = parse(EventRecord(0, 0, 0, head, body))

    assert len(events) + len(rejected) == 1
    for event in events:
        assert identity(event)


def test_a_topic_that_no_kafka_has_is_not_searched() -> None:
    assert wrapped({}, topic="a.model." * 7000).type == "dev.knative.kafka.event"
