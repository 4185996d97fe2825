import base64
import gzip
import json
import re
from typing import Any

import orjson
import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_binary
from cloudevents.core.formats.json import JSONFormat
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sidelight.logger._connections import Limits
from sidelight.logger._door import DoorLimits
from sidelight.logger._emitter_capture import REQUEST_TYPE, RESPONSE_TYPE, Capture
from sidelight.logger._emitter_event import CapturedEvent, batch_body, is_embeddable
from sidelight.logger._emitter_route import route_of
from sidelight.logger._envelope import parse
from sidelight.logger._exchange import Exchange
from sidelight.logger._journal import EventRecord
from sidelight.logger._selection import Selection
from sidelight.logger.errors import SpoolError

INFER = b"/v2/models/flights/infer"


def exchange(**changes: Any) -> Exchange:
    fields: dict[str, Any] = {
        "method": b"POST",
        "target": INFER,
        "request_head": b"POST /v2/models/flights/infer HTTP/1.1\r\nHost: m\r\n"
        b"Content-Type: application/json\r\nX-Request-Id: r-1\r\n\r\n",
        "request_body": b'{"inputs": [1.50]}',
        "response_head": b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n",
        "response_body": b'{"outputs": [2]}',
        "status": 200,
        "started_ns": 1_700_000_000_123_456_789,
        "finished_ns": 1_700_000_001_000_000_000,
        "latency_ms": 12.3456,
    }
    return Exchange(**(fields | changes))


def head(*lines: bytes) -> bytes:
    return b"\r\n".join((b"POST / HTTP/1.1", *lines, b"", b""))


def member(event: CapturedEvent) -> dict[str, Any]:
    (found,) = json.loads(batch_body([event]))
    assert isinstance(found, dict)
    return found


def ids(*lines: bytes, body: bytes = b"{}") -> list[str]:
    events = Capture().events(exchange(request_head=head(*lines), request_body=body))
    return [member(event)["id"] for event in events]


def test_an_exchange_becomes_the_two_events_of_kserve() -> None:
    request, response = Capture().events(exchange())

    shared = {
        "specversion": "1.0",
        "id": "r-1",
        "source": "sidelight-proxy",
        "inferenceservicename": "flights",
        "namespace": "default",
        "component": "predictor",
        "requestpath": "/v2/models/flights/infer",
        "requestmethod": "POST",
        "modelname": "flights",
        "samplingrate": "1",
        "datacontenttype": "application/json",
    }
    assert member(request) == shared | {
        "datasize": "18",
        "type": REQUEST_TYPE,
        "time": "2023-11-14T22:13:20.123456Z",
        "data": {"inputs": [1.5]},
    }
    assert member(response) == shared | {
        "datasize": "16",
        "type": RESPONSE_TYPE,
        "time": "2023-11-14T22:13:21.000000Z",
        "statuscode": "200",
        "latencyms": "12.346",
        "data": {"outputs": [2]},
    }


def test_the_binary_mode_says_the_same_and_has_an_empty_endpoint() -> None:
    request, _ = Capture().events(exchange())

    headers = dict(request.headers())

    assert headers[b"ce-endpoint"] == b""
    assert headers[b"content-type"] == b"application/json"
    assert headers[b"ce-id"] == b"r-1"
    assert b"ce-datacontenttype" not in headers


def test_a_valid_body_stands_verbatim_in_the_batch() -> None:
    body = b'{"inputs" :[1.50,  -0.0, 1E5, "\\u00e9"]}'
    request, _ = Capture().events(exchange(request_body=body))

    assert b'"data":' + body + b"}" in batch_body([request])


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b'{"x": NaN}', id="not a number"),
        pytest.param(b'{"x": 1', id="cut"),
        pytest.param(b'{"x": 1}\n', id="white space behind"),
        pytest.param(b'"\xff"', id="no UTF-8"),
        pytest.param(b"null", id="null"),
        pytest.param(b"[1],[2]", id="two values"),
        pytest.param(b"[" * 600 + b"]" * 600, id="deep"),
        pytest.param(b"[1],[2]" + b"[" * 101, id="two deep values"),
        pytest.param(b"\x1f\x8b\x08", id="gzip"),
    ],
)
def test_any_other_body_travels_as_base64_and_harms_no_neighbour(body: bytes) -> None:
    odd, even = Capture().events(exchange(request_body=body))

    members = json.loads(batch_body([even, odd, even]))

    assert base64.b64decode(members[1]["data_base64"]) == body
    assert members[2]["data"] == {"outputs": [2]}


def test_a_wide_body_is_no_deep_body() -> None:
    assert is_embeddable(json.dumps([[row] for row in range(500)]).encode())


@given(st.data())
def test_a_longer_body_is_json_exactly_when_a_strict_parser_takes_it(data: st.DataObject) -> None:
    values = data.draw(st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=5))
    body = bytearray(json.dumps({"a": "x" * 2100, "b": values, "c": [True, None, "é"]}).encode())
    for _ in range(data.draw(st.integers(0, 2))):
        place = data.draw(st.integers(0, len(body) - 1))
        body[place] = data.draw(st.integers(0, 255))
    try:
        orjson.loads(bytes(body))
        is_json = True
    except orjson.JSONDecodeError:
        is_json = False
        # The damage may have made a number that is beyond a double, which is not looked for.
        assume(not re.search(rb"[eE]\+?\d{3}", bytes(body)))
    is_padded = body[:1] + body[-1:] != bytes(body[:1] + body[-1:]).strip(b" \t\r\n")
    assert is_embeddable(bytes(body)) == (is_json and not is_padded)


def test_a_long_body_is_not_read_but_travels_as_base64() -> None:
    body = json.dumps([0.5] * 100_000).encode()
    request, _ = Capture().events(exchange(request_body=body))

    assert base64.b64decode(member(request)["data_base64"]) == body


def test_a_body_at_the_bound_of_the_proxy_has_room_in_the_door() -> None:
    body = bytes(Limits().capture_limit)
    request, _ = Capture().events(exchange(request_body=body, request_cut=1 << 40))

    assert len(batch_body([request])) < DoorLimits().max_body_bytes - (1 << 20)


def test_json_of_another_media_type_is_no_json_for_cloudevents() -> None:
    typed = exchange(request_head=head(b"Content-Type: text/plain"), request_body=b'"a"')
    request, _ = Capture().events(typed)

    assert "data" not in member(request)


@pytest.mark.parametrize(
    "line",
    [
        b"Content-Type: application/json; charset=utf-8",
        b"content-type: application/vnd.x+json",
        b"X: y",
    ],
)
def test_json_is_known_by_its_media_type_or_by_none(line: bytes) -> None:
    request, _ = Capture().events(exchange(request_head=head(line)))

    assert member(request)["data"] == {"inputs": [1.5]}


def test_an_empty_body_is_an_event_without_data() -> None:
    request, _ = Capture().events(exchange(request_body=b""))

    assert not {"data", "data_base64"} & member(request).keys()


def test_a_compressed_answer_is_kept_as_it_is() -> None:
    body = gzip.compress(b'{"outputs": [2]}')
    answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\n\r\n"
    _, response = Capture().events(exchange(response_head=answer, response_body=body))

    assert member(response)["contentencoding"] == "gzip"
    assert base64.b64decode(member(response)["data_base64"]) == body


def test_a_cut_body_says_how_long_it_was() -> None:
    request, response = Capture().events(exchange(request_body=b"abc", request_cut=97))

    assert (member(request)["truncated"], member(request)["datalength"]) == ("true", "100")
    assert "truncated" not in member(response)


def test_an_unanswered_request_has_an_empty_answer() -> None:
    _, response = Capture().events(exchange(status=499, response_head=b"", response_body=b""))

    assert member(response)["statuscode"] == "499"
    assert "datacontenttype" not in member(response)


def test_the_callers_request_id_comes_first() -> None:
    every = (b"Seldon-Puid: s", b"ce-id: c", b"x-request-ID:  x ")

    assert ids(*every, body=b'{"id": "b"}') == ["x", "x"]
    assert ids(*every[:2], body=b'{"id": "b"}') == ["c", "c"]
    assert ids(*every[:1], body=b'{"id": "b"}') == ["s", "s"]
    assert ids(b"X-Request-Id: ", body=b' {"id" : "b\xc3\xa9"') == ["bé", "bé"]


def test_no_callers_id_is_taken_where_none_is_trusted() -> None:
    capture = Capture(trusts_request_ids=False)
    given = exchange(request_head=head(b"X-Request-Id: same"), request_body=b'{"id": "same"}')

    found = [member(event)["id"] for _ in range(2) for event in capture.events(given)]

    assert found[0] == found[1] != found[2] == found[3]
    assert "same" not in found
    assert capture.identify(given) not in {b"", b"same"}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"inputs": [{"id": "no"}], "id": "b-7"}', "b-7"),
        (b'{"id": "a\\"b"}', 'a"b'),
        (b'{"parameters": {"id": "no"}, "id" : "b\\u00e9"}', "b\xe9"),
    ],
)
def test_the_id_of_a_body_is_found_wherever_it_stands(body: bytes, expected: str) -> None:
    assert ids(body=body) == [expected, expected]


@pytest.mark.parametrize(
    "body",
    [
        b'{"id": "\xff"}',
        b'{"id": ""}',
        b"x",
        b'{"inputs": [{"id": "no"}]}',
        b'{"a": 1, "id": 7}',
        b'{"a": 1, "id": "new\\nline"}',
        b'{"a": 1, "id": " b"}',
        b'[{"id": "no"}]',
        b'{"a": 1, "id": "b"',
    ],
)
def test_an_id_is_made_where_none_is_given(body: bytes) -> None:
    capture = Capture()
    bare = exchange(request_head=head(), request_body=body)

    made = [member(event)["id"] for _ in range(3) for event in capture.events(bare)]

    assert made[0] == made[1]
    assert len(set(made)) == 3
    assert all(character.isalnum() or character in "-_" for text in made for character in text)


def test_a_trace_goes_with_both_events() -> None:
    trace = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    events = Capture().events(exchange(request_head=head(b"TraceParent: " + trace)))

    assert [member(event)["traceparent"].encode() for event in events] == [trace, trace]


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (b"/v1/models/m:predict", ("default", "m", "m", "")),
        (b"/v1/models/m/versions/7:predict?key=secret", ("default", "m", "m", "7")),
        (b"/v1/models/m/labels/stable:classify", ("default", "m", "m", "")),
        (b"/v2/models/m/versions/3/infer", ("default", "m", "m", "3")),
        (b"/v2/models/a%20b/infer", ("default", "a b", "a b", "")),
        (b"/seldon/prod/risk/api/v1.0/predictions", ("prod", "risk", "risk", "")),
        (b"/seldon/prod/risk/v2/models/m/infer", ("prod", "risk", "m", "")),
        (b"http://host/v2/models/m/infer", ("default", "m", "m", "")),
        (b"/invocations", ("default", "model", "", "")),
        (b"*", ("default", "model", "", "")),
    ],
)
def test_the_path_names_the_deployment(target: bytes, expected: tuple[str, ...]) -> None:
    route = route_of(target, deployment=None, namespace="default")

    assert (route.namespace, route.name, route.model, route.version) == expected
    assert "secret" not in route.path


def test_a_given_deployment_wins_over_the_path() -> None:
    request, _ = Capture(deployment="prod/delays", source="urn:x").events(exchange())

    found = member(request)
    assert (found["namespace"], found["inferenceservicename"]) == ("prod", "delays")
    assert (found["modelname"], found["source"]) == ("flights", "urn:x")


@pytest.mark.parametrize("name", ["flights", "a/b/c", "/b", "a/", ""])
def test_a_deployment_without_its_namespace_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="NAMESPACE/NAME"):
        Capture(deployment=name)


def test_an_empty_source_is_refused() -> None:
    with pytest.raises(ValueError, match="source"):
        Capture(source="")


def test_a_remembered_head_says_the_same_and_others_do_not_fill_the_memory() -> None:
    capture = Capture()
    coded = head(b"Content-Type: text/csv", b"Content-Encoding: gzip")
    first, second = (
        member(capture.events(exchange(request_head=coded, request_body=b"a"))[0]) for _ in range(2)
    )
    for number in range(3000):
        capture.events(exchange(request_head=head(b"X-A: %d" % number)))
        capture.events(exchange(request_head=head(b"X-Request-Id: %d" % number)))
    capture.events(exchange(request_head=head(b"X-A: " + b"a" * 4096)))

    assert (second["datacontenttype"], second["contentencoding"]) == ("text/csv", "gzip")
    assert first.keys() == second.keys()
    assert first["id"] != second["id"]
    assert len(capture._heads.known) <= 1024
    assert max(map(len, capture._heads.known)) < 4096


def test_paths_without_end_do_not_fill_the_memory() -> None:
    capture = Capture()
    for number in range(3000):
        capture.events(exchange(target=b"/v2/models/m%d/infer" % number))
    capture.events(exchange(target=b"/" + b"x" * 10_000))

    assert len(capture._routes) <= 1024
    assert max(len(target) for _, target, _ in capture._routes) < 1000


@pytest.mark.parametrize(
    ("method", "target", "line", "expected"),
    [
        (b"POST", INFER, b"X: y", True),
        (b"PUT", b"/anything", b"X: y", True),
        (b"GET", INFER, b"X: y", False),
        (b"HEAD", INFER, b"X: y", False),
        (b"OPTIONS", INFER, b"X: y", False),
        (b"POST", b"/metrics?x=1", b"X: y", False),
        (b"POST", b"/v2/health/ready", b"X: y", False),
        (b"POST", INFER, b"Sidelight-Skip: true", False),
        (b"POST", INFER, b"sidelight-skip:TRUE", False),
        (b"POST", INFER, b"Seldon-Skip-Logging: on", False),
        (b"POST", INFER, b"Seldon-Skip-Logging: 1", False),
        (b"POST", INFER, b"Seldon-Skip-Logging: 0", True),
        (b"POST", INFER, b"Sidelight-Skip: false", True),
    ],
)
def test_what_is_captured(method: bytes, target: bytes, line: bytes, *, expected: bool) -> None:
    assert Selection().captures(method, target, head(b"Host: m", line, b"Z: z")) is expected


header_values = st.binary(max_size=40).filter(lambda value: not set(value) & set(b"\r\n\0"))
bodies = st.one_of(
    st.binary(max_size=80),
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=8,
    ).map(lambda value: json.dumps(value).encode()),
)


@settings(deadline=None)
@given(
    request_id=header_values,
    trace=header_values,
    media=st.sampled_from([b"application/json", b"text/csv", b""]) | header_values,
    target=st.binary(max_size=60),
    bodies=st.tuples(bodies, bodies),
)
def test_whatever_passes_arrives_byte_for_byte_in_both_modes(
    request_id: bytes, trace: bytes, media: bytes, target: bytes, bodies: tuple[bytes, bytes]
) -> None:
    lines = (b"X-Request-Id: " + request_id, b"traceparent: " + trace, b"Content-Type: " + media)
    events = Capture().events(
        exchange(
            target=target,
            request_head=head(*lines),
            request_body=bodies[0],
            response_head=head(*lines[2:]),
            response_body=bodies[1],
        )
    )

    members = json.loads(batch_body(events))

    for event, found, body in zip(events, members, bodies, strict=True):
        assert CapturedEvent.unpack(event.pack()) == event
        data = base64.b64decode(found.pop("data_base64", ""))
        if "data" in found:
            assert event.data == body
            data = body
            assert repr(found.pop("data")) == repr(json.loads(body))
        assert data == body
        assert found["id"]
        assert all(isinstance(value, str) for value in found.values())
        found.pop("datacontenttype", None)
        headers = dict(event.headers())
        stored = EventRecord(
            partition=0,
            position=0,
            received_ns=0,
            head=b"POST / HTTP/1.1\r\n"
            + b"".join(b"%b: %b\r\n" % header for header in event.headers())
            + b"\r\n",
            body=body,
        )
        if all(byte == 9 or 0x20 <= byte != 0x7F for byte in request_id):  # legal in a header
            assert [one.id for one in parse(stored)[0]] == [found["id"]]
        headers.pop(b"content-type", None)
        headers.pop(b"ce-id")
        assert all(0x21 <= byte <= 0x7E for value in headers.values() for byte in value)
        headers[b"ce-id"] = b"1"
        plain = {name.decode(): value.decode() for name, value in headers.items()}
        decoded = from_binary(HTTPMessage(plain, body), JSONFormat()).get_attributes()
        assert decoded["requestpath"] == found["requestpath"]


@pytest.mark.parametrize("record", [b"", b"\x00\xff\xff\xff\xff", b"\x09\x00\x00\x00\x00"])
def test_a_foreign_record_is_named_as_such(record: bytes) -> None:
    with pytest.raises(SpoolError, match="expected a captured event"):
        CapturedEvent.unpack(record)


@pytest.mark.parametrize(
    "request_id",
    [b'a "b" 100% c%41', b'"quoted"', "\xe9\u4e2d".encode(), b"latin-\xe9", b"tab\tin", b"%C3%A9"],
)
def test_the_collector_reads_the_same_id_in_both_modes(request_id: bytes) -> None:
    request, _ = Capture().events(exchange(request_head=head(b"X-Request-Id: " + request_id)))
    lines = [b"%b: %b" % header for header in request.headers()]
    batch = head(b"Content-Type: application/cloudevents-batch+json")

    received = [
        parse(EventRecord(partition=0, position=0, received_ns=0, head=first, body=body))
        for first, body in ((head(*lines), request.data), (batch, batch_body([request])))
    ]

    assert [[event.id for event in events] for events, _ in received] == [
        [member(request)["id"]]
    ] * 2


def test_the_sdk_reads_the_binary_mode() -> None:
    request, _ = Capture().events(exchange(target=b'/v2/models/a "b" 100% \xe9/infer'))
    headers = {name.decode(): value.decode() for name, value in request.headers()}

    event = from_binary(HTTPMessage(headers, request.data), JSONFormat())

    assert headers["ce-modelname"] == "a%20%22b%22%20100%25%20%C3%A9"
    assert event.get_id() == "r-1"
    assert event.get_type() == REQUEST_TYPE
    assert event.get_extension("modelname") == 'a "b" 100% é'


def test_the_sdk_reads_a_member_of_the_batch() -> None:
    request, _ = Capture().events(exchange())

    event = JSONFormat().read(None, request.member())

    assert event.get_id() == "r-1"
    assert str(event.get_time()) == "2023-11-14 22:13:20.123456+00:00"
    assert event.get_data() == {"inputs": [1.5]}


def test_a_call_of_grpc_says_model_and_protocol() -> None:
    capture = Capture(namespace="prod")
    method = b"/inference.GRPCInferenceService/ModelInfer"
    request, _ = capture.events(
        exchange(
            method=b"POST",
            target=method + b"?model=a%2Fb%20c&version=3",
            request_head=b"POST / HTTP/1.1\r\nce-protocol: seldon\r\n\r\n",
        )
    )
    attributes = member(request)

    assert attributes["requestpath"] == method.decode()
    assert attributes["inferenceservicename"] == attributes["modelname"] == "a/b c"
    assert (attributes["modelversion"], attributes["protocol"]) == ("3", "v2")
