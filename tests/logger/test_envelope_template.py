"""Heads that were recognised give the events that thorough reading gives."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidelight.logger import _envelope
from sidelight.logger._envelope import parse
from sidelight.logger._envelope_member import EventLimits
from sidelight.logger._envelope_template import HeadTemplates
from sidelight.logger._journal import EventRecord

_BEGIN = b"POST /events HTTP/1.1\r\nHost: c\r\n"
_LINES = (
    b"Ce-Specversion: 1.0",
    b"Ce-Source: http://localhost:9081/",
    b"Ce-Type: org.kubeflow.serving.inference.request",
    b"Ce-Inferenceservicename: flights",
    b"Ce-Namespace: prod",
)


class _Forgetful(HeadTemplates):
    def arrival(self, record: EventRecord, limits: EventLimits) -> None:
        del record, limits


@pytest.fixture(autouse=True)
def templates(monkeypatch: pytest.MonkeyPatch) -> HeadTemplates:
    fresh = HeadTemplates()
    monkeypatch.setattr(_envelope, "_templates", fresh)
    return fresh


def _record(*lines: bytes, begin: bytes = _BEGIN) -> EventRecord:
    head = begin + b"\r\n".join([*_LINES, *lines]) + b"\r\n\r\n"
    return EventRecord(0, 7, 9, head, b"[1]")


def _thoroughly(record: EventRecord, limits: EventLimits | None = None) -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_envelope, "_templates", _Forgetful())
        return parse(record, limits)


def test_a_second_event_of_a_sender_is_recognised(templates: HeadTemplates) -> None:
    first = _record(b"Ce-Id: 1", b"Ce-Time: 2026-01-01T00:00:00Z", b"Content-Length: 3")
    second = _record(b"Ce-Id: 2", b"Ce-Time: 2026-01-02T00:00:00Z", b"Content-Length: 17")
    assert templates.arrival(first, EventLimits()) is None
    parse(first)
    arrival = templates.arrival(second, EventLimits())
    assert arrival is not None
    event = arrival.event()
    assert ([event], []) == _thoroughly(second)
    assert event.id == "2"
    assert event.time == "2026-01-02T00:00:00Z"


@pytest.mark.parametrize(
    "line",
    [
        b"Ce-Id:",
        b"Ce-Id: a%20b",
        b'Ce-Id: "7"',
        b"Ce-Id: \xc3\xa9",
        b"Ce-Id: \xff",
        b"Ce-Id: " + b"x" * 300,
        b"X-Id: 7",
    ],
)
def test_an_unusual_id_is_read_thoroughly(templates: HeadTemplates, line: bytes) -> None:
    parse(_record(b"Ce-Id: 1"))
    record = _record(line)
    assert templates.arrival(record, EventLimits()) is None
    assert parse(record) == _thoroughly(record)


def test_lines_that_change_places_are_not_mixed_up(templates: HeadTemplates) -> None:
    one = _record(b"Ce-Id: 1", b"Ce-Requestid: 2", b"Ce-Time: 3")
    other = _record(b"Ce-Latencyms: 1", b"Ce-Id: 2", b"Ce-Time: 3")
    for record in (one, other, one, other):
        assert parse(record) == _thoroughly(record)
    assert templates.arrival(other, EventLimits()) is not None


def test_an_id_that_stands_twice_is_the_first_one(templates: HeadTemplates) -> None:
    record = _record(b"Ce-Id: 1", b"Ce-Id: 2")
    parse(record)
    assert templates.arrival(record, EventLimits()) is None
    assert parse(record) == _thoroughly(record)


def test_an_encoded_body_is_not_taken_as_it_came(templates: HeadTemplates) -> None:
    record = _record(b"Ce-Id: 1", b"Content-Encoding: gzip")
    parse(record)
    assert templates.arrival(record, EventLimits()) is None


def test_the_bound_of_attributes_holds_for_what_is_remembered() -> None:
    record = _record(b"Ce-Id: 1", b"Ce-Metadata: " + b"m" * 1000)
    parse(record)
    limits = EventLimits(max_attribute_chars=999)
    assert parse(record, limits) == _thoroughly(record, limits)
    assert parse(record, limits)[1]


def test_a_sender_that_never_repeats_itself_is_bounded(templates: HeadTemplates) -> None:
    for number in range(5000):
        parse(_record(b"Ce-Id: 1", b"Ce-Counter: %d" % number))
    (shape,) = templates._shapes
    assert len(shape.compiled.senders) <= 4096
    assert templates._reluctance > 1


def test_heads_that_are_never_alike_are_soon_not_worth_a_lesson(templates: HeadTemplates) -> None:
    for number in range(200):
        parse(_record(b"Ce-Id: 1", b"X-%d: 1" % number))
    assert len(templates._shapes) <= 16
    assert templates._reluctance >= 4


def test_heads_of_very_many_lines_are_not_learned(templates: HeadTemplates) -> None:
    lines = [b"X-%d: 1" % number for number in range(130)]
    for record in (_record(b"Ce-Id: 1", *lines), _record(b"Ce-Id: 1", *lines[:-20])):
        parse(record)
    assert templates.arrival(_record(b"Ce-Id: 1", *lines), EventLimits()) is None
    assert templates.arrival(_record(b"Ce-Id: 1", *lines[:-20]), EventLimits()) is not None


def test_a_sender_that_is_known_stays_so_beside_many_others(templates: HeadTemplates) -> None:
    for number in range(500):
        parse(_record(b"Ce-Id: 1", b"Ce-Time: 2"))
        parse(_record(b"Ce-Id: 1", b"X-%d: 1" % number))
    known = templates.arrival(_record(b"Ce-Id: 7", b"Ce-Time: 8"), EventLimits())
    assert known is not None


def test_threads_read_what_another_one_learns() -> None:
    records = [
        _record(b"Ce-Id: %d" % number, b"Ce-Component: %d" % (number % 7), *extra)
        for number in range(300)
        for extra in ((), (b"Ce-Latencyms: 1",), (b"Ce-Endpoint: %d" % (number % 3),))
    ]
    expected = [_thoroughly(record) for record in records]
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: [parse(record) for record in records], range(4)):
            assert found == expected


def test_events_do_not_share_their_extensions() -> None:
    parse(_record(b"Ce-Id: 1"))
    one, other = (parse(_record(b"Ce-Id: 2"))[0][0] for _ in range(2))
    assert one.extensions == other.extensions
    assert one.extensions is not other.extensions


_names = st.sampled_from(
    [
        *(b"ce-id", b"CE-ID", b"Ce-Time", b"ce-requestid", b"Ce-Latencyms", b"ce-metadata"),
        *(b"Content-Type", b"content-length", b"User-Agent", b"X-Request-Id", b"Ce-", b"ce-type"),
        *(b"Content-Encoding", b"Ce-Datacontenttype"),
    ]
)
_values = st.sampled_from(
    [b"", b" 1", b"1 ", b'"2"', b"%41", b"\xc3\xa9", b"\xff", b"dev.knative.kafka.event", b"gzip"]
) | st.binary(max_size=4).filter(lambda value: not set(value) & {10, 13})
_fields = st.lists(st.tuples(_names, st.sampled_from([b":", b": ", b""]), _values), max_size=5)
_paths = st.sampled_from([b"/", b"/events/a", b"/dead-letter", b"/consumer/kserve/v2"])


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(_paths, _fields), min_size=2, max_size=6))
def test_whatever_was_seen_before_an_event_is_the_same(
    requests: list[tuple[bytes, list[tuple[bytes, bytes, bytes]]]],
) -> None:
    for _ in range(2):
        for path, fields in requests:
            begin = b"POST " + path + b" HTTP/1.1\r\n"
            record = _record(*(b"".join(field) for field in fields), begin=begin)
            events, rejected = parse(record)
            expected = _thoroughly(record)
            assert (events, rejected) == expected
            # Equal mappings may differ in their order, which tags keep.
            assert repr((events, rejected)) == repr(expected)
