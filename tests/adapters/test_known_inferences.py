"""What was recognised becomes the rows that thorough reading gives, whatever stands beside it."""

import base64
import json
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidelight.adapters import Decoder
from sidelight.adapters._known_bodies import learned
from sidelight.adapters._known_inferences import Known, KnownInferences
from sidelight.adapters.dialects import DIALECTS, read_payload
from sidelight.logger import Meeting, Outcome, Pairing, parse, scan
from sidelight.logger import _envelope as envelope
from sidelight.logger import _envelope_json as envelope_json
from sidelight.logger._envelope_template import HeadTemplates
from sidelight.logger._envelope_template_members import MemberTemplates
from sidelight.logger._journal import EventRecord

WIRE = Path(__file__).parents[1] / "wire"
_ARRAY = re.compile(rb'"(?:data|instances|predictions|ndarray|values)":\[')
_NUMBER = re.compile(rb"-?[0-9.]+")
KSERVE = "org.kubeflow.serving.inference."


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    _forget(monkeypatch)


def _forget(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(envelope, "_templates", HeadTemplates())
    patch.setattr(envelope_json, "templates", MemberTemplates())


def _tensor(name: str, shape: list[int], data: list[Any], datatype: str = "FP64") -> dict[str, Any]:
    return {"name": name, "shape": shape, "datatype": datatype, "data": data}


def _v2(number: int) -> tuple[Any, Any]:
    request = {"id": f"b{number}", "inputs": [_tensor("x", [1, 3], [number, 0.5, -1e3])]}
    response = {"model_name": "m", "model_version": "3", "outputs": [_tensor("y", [1], [0.25])]}
    return request, response


def _v2_rows(number: int) -> tuple[Any, Any]:
    n = 1 + number % 3
    request = {"inputs": [_tensor("x", [n, 2], [number + k / 4 for k in range(2 * n)], "FP32")]}
    response = {"id": f"z{number}", "outputs": [_tensor("y", [n], list(range(n)), "INT64")]}
    return request, response


def _v2_columns(number: int) -> tuple[Any, Any]:
    tensors = [
        _tensor("age", [2], [number, 2], "INT32"),
        _tensor("city", [2, 1], ["a,b", f"c{number}"], "BYTES"),
        _tensor("flag", [2], [True, None], "BOOL"),
    ]
    return {"inputs": tensors}, {"outputs": [_tensor("y", [2, 2], [1, 2, 3, number])]}


def _v2_nested(number: int) -> tuple[Any, Any]:
    request = {"inputs": [_tensor("x", [2, 2], [[number, 2], [3, 4.5]])]}
    return request, {"outputs": [_tensor("y", [2], [1, 2])], "id": "after"}


def _v1(number: int) -> tuple[Any, Any]:
    rows = [[number, k + 0.5] for k in range(1 + number % 2)]
    return {"instances": rows, "signature_name": "s"}, {"predictions": [k for k, _ in rows]}


def _v1_lists(number: int) -> tuple[Any, Any]:
    return {"instances": [[1, number]]}, {"predictions": [[0.5, 1 / (1 + number)]]}


def _seldon(number: int) -> tuple[Any, Any]:
    request = {"data": {"names": ["a", "b"], "ndarray": [[number, 1.5], [2, 3]]}}
    response = {"data": {"names": ["p"], "tensor": {"shape": [2, 1], "values": [0.5, number]}}}
    return request, {**response, "meta": {"puid": f"p{number}"}}


def _v2_long(number: int) -> tuple[Any, Any]:
    data = [number + k / 7 for k in range(64 * 4)]
    request = {"id": f"b{number}", "inputs": [_tensor("x", [64, 4], data)]}
    return request, {"outputs": [_tensor("y", [64], data[:64]), _tensor("z", [64], [1] * 64)]}


def _v2_ragged(number: int) -> tuple[Any, Any]:
    """Long bodies and short ones, in single precision and with a class for each row."""
    n = (1, 90, 200)[number % 3]
    data = [number * 1e30 + k / 3 for k in range(3 * n)]
    outputs = [_tensor("c", [n], list(range(n)), "INT64"), _tensor("y", [n], data[:n], "FP64")]
    return {"inputs": [_tensor("x", [n, 3], data, "FP32")]}, {"outputs": outputs}


CLIENTS: dict[str, Callable[[int], tuple[Any, Any]]] = {
    "long": _v2_long,
    "ragged": _v2_ragged,
    "v2": _v2,
    "rows": _v2_rows,
    "columns": _v2_columns,
    "nested": _v2_nested,
    "v1": _v1,
    "lists": _v1_lists,
    "seldon": _seldon,
}


def _head(model: str, kind: str, request_id: str, attributes: dict[str, str]) -> bytes:
    stated = {
        "id": request_id,
        "specversion": "1.0",
        "source": "http://localhost:9081/",
        "type": KSERVE + kind,
        "inferenceservicename": model,
        "namespace": "prod",
        "time": "2026-05-01T10:00:00.123456Z",
        **attributes,
    }
    lines = "".join(f"Ce-{name.title()}: {value}\r\n" for name, value in stated.items())
    return f"POST / HTTP/1.1\r\n{lines}Content-Length: 1\r\n\r\n".encode()


def _record(position: int, head: bytes, body: bytes, *, at: int = 0) -> EventRecord:
    return EventRecord(0, position, at, head, body)


def _of_client(model: str, number: int, **attributes: str) -> list[tuple[bytes, bytes]]:
    bodies = CLIENTS[model](number)
    return [
        (
            _head(model, kind, f"{model}-{number}", attributes if kind == "response" else {}),
            json.dumps(body, separators=(",", ":")).encode(),
        )
        for kind, body in zip(("request", "response"), bodies, strict=True)
    ]


class _Collector:
    """Envelope, pairing and decoding, step by step."""

    def __init__(self, read: Callable[[Sequence[EventRecord]], Sequence[Any]]) -> None:
        self._read = read
        self._remembered: dict[bytes, bytes] = {}
        self._pairing = Pairing(lambda _: None, orphan_after_ns=100)
        self._decoder = Decoder()
        self.pairs: list[Any] = []

    def step(self, records: Sequence[EventRecord]) -> tuple[Any, ...]:
        outcome = self._pairing.step(self._read(records), self._lookup)
        self._remembered |= outcome.remembered
        self.pairs += outcome.pairs
        return self._facts(outcome)

    def _lookup(self, digests: Any) -> dict[bytes, bytes]:
        return {key: self._remembered[key] for key in digests if key in self._remembered}

    def _facts(self, outcome: Outcome) -> tuple[Any, ...]:
        decoded = self._decoder.decode(outcome.pairs)
        counters = [outcome.received, outcome.completed, outcome.orphans, outcome.late]
        counters += [outcome.duplicates, outcome.key_reused, outcome.unreadable]
        return (
            [_content(batch.records) for batch in decoded.batches],
            decoded.undecoded,
            outcome.state,
            outcome.remembered,
            counters,
        )


def _content(records: Any) -> tuple[Any, ...]:
    columns = [column.to_pylist() for column in records.columns]
    # Not a number is not equal to itself; batches hold nulls.
    return records.schema, records.schema.metadata, columns


def _same(steps: Sequence[Sequence[EventRecord]]) -> _Collector:
    """Take records in steps, recognising and thoroughly; return what recognised."""
    swift = _Collector(lambda records: scan(records)[0])
    thorough = _Collector(lambda of: [event for record in of for event in parse(record)[0]])
    for number, records in enumerate(steps):
        assert swift.step(records) == thorough.step(records), number
    return swift


def _numbered(parts: Sequence[tuple[bytes, bytes]], *, first: int = 0) -> list[EventRecord]:
    return [_record(first + place, *part, at=place // 7) for place, part in enumerate(parts)]


@pytest.mark.parametrize("model", CLIENTS)
def test_what_a_client_sends_again_and_again_is_recognised(model: str) -> None:
    parts = [part for number in range(30) for part in _of_client(model, number, latencyms="1.5")]
    records = _numbered(parts)

    swift = _same([records[:20], records[20:]])

    meetings = [pair for pair in swift.pairs if isinstance(pair, Meeting)]
    found = swift._decoder._known.found(meetings)
    assert sum(isinstance(item, Known) for item in found) > 20


def _replaced(body: bytes, odd: str, place: int) -> bytes:
    """Put something else in the place of one of the numbers of a body."""
    arrays = list(_ARRAY.finditer(body))
    begin = arrays[place % len(arrays)].end()
    numbers = list(_NUMBER.finditer(body, begin))
    found = numbers[place % min(2, len(numbers))]
    return body[: found.start()] + odd.encode() + body[found.end() :]


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("model", CLIENTS)
def test_what_is_odd_in_a_body_is_as_if_all_were_read(model: str, side: int) -> None:
    parts = [part for number in range(1, 4) for part in _of_client(model, number)]
    for number, (odd, place) in enumerate([(odd, at) for odd in ODD for at in range(2)], 4):
        halves = _of_client(model, number)
        if b"[" in halves[side][1]:
            head, body = halves[side]
            halves[side] = head, _replaced(body, odd, place)
        parts += halves
    records = _numbered(parts)
    _same([records[begin : begin + 16] for begin in range(0, len(records), 16)])


# Values, or rows, in the first array of a request.
USUAL = {"v2": 3, "columns": 2, "seldon": 2}


@pytest.mark.parametrize("model", USUAL)
def test_what_one_body_lacks_is_not_taken_from_the_next(model: str) -> None:
    parts = [part for number in range(6) for part in _of_client(model, number)]
    for place, count in ((6, USUAL[model] - 1), (8, USUAL[model] + 1), (10, USUAL[model])):
        head, body = parts[place]
        begin = next(_ARRAY.finditer(body)).end()
        inside = ",".join("7" * count) if model != "seldon" else ",".join(["[1,2]"] * count)
        parts[place] = head, body[:begin] + inside.encode() + body[body.index(b"]", begin) :]
    records = _numbered(parts)
    _same([records[:6], records[6:]])


def test_halves_that_disagree_on_rows_are_told_so() -> None:
    parts = [part for number in range(9) for part in _of_client("rows", number)]
    bodies = [body for _, body in parts]
    for place in (13, 15):
        parts[place] = parts[place][0], bodies[place - 2]
    records = _numbered(parts)
    _same([records[:12], records[12:]])


@pytest.mark.parametrize("is_nested", [True, False])
@pytest.mark.parametrize("side", [0, 1])
def test_rows_are_those_that_a_shape_states(side: int, *, is_nested: bool) -> None:
    def halves(number: int, stated: int, n: int) -> list[tuple[bytes, bytes]]:
        rows = [[number, k] for k in range(n)]
        asked, answered = (stated, n) if side == 0 else (n, stated)
        data = rows if is_nested else [value for row in rows for value in row]
        request = {"inputs": [_tensor("x", [asked, 2], data)]}
        response = {"outputs": [_tensor("y", [answered], list(range(n)))]}
        heads = [_head("m", kind, f"{number}", {}) for kind in ("request", "response")]
        bodies = [json.dumps(body).encode() for body in (request, response)]
        return list(zip(heads, bodies, strict=True))

    usual = [part for number in range(6) for part in halves(number, 2 + number % 2, 2 + number % 2)]
    odd = [part for number in range(6, 9) for part in halves(number, 2, 3)]
    records = _numbered([*usual, *odd])
    _same([records[:12], records[12:]])


ODD_ATTRIBUTES = [
    *({"id": "explain-7"}, {"id": "a b"}, {"id": ""}, {"latencyms": "-1"}, {"latencyms": "inf"}),
    *({"latencyms": "x"}, {"latencyms": "nan"}, {"latencyms": ""}, {"latencyms": "1_0"}),
    *({"time": ""}, {"time": "yesterday"}, {"time": "1600-01-01T00:00:00Z"}),
    *({"traceparent": "{}"}, {"traceparent": "null"}, {"traceparent": ""}, {"traceparent": "a b"}),
    *(
        {"truncated": "true"},
        {"truncated": "false"},
        {"abortedby": "client"},
        {"redacted": "withheld"},
    ),
    *({"recordedtime": "2026-05-01T10:00:02Z"}, {"statuscode": "500"}, {"modelversion": "9"}),
]


@pytest.mark.parametrize("odd", ODD_ATTRIBUTES, ids=repr)
@pytest.mark.parametrize("side", [0, 1])
def test_what_is_odd_in_a_head_is_as_if_all_were_read(odd: dict[str, str], side: int) -> None:
    usual = {"latencyms": "1.5", "traceparent": "00-1"}
    parts: list[tuple[bytes, bytes]] = []
    for number in range(8):
        is_odd = number > 3
        request_id = odd.get("id", f"v2-{number}") if is_odd else f"v2-{number}"
        halves = []
        for place, kind in enumerate(("request", "response")):
            changed = odd if is_odd and place == side else {}
            # Both have the odd id, or they would not meet.
            attributes = {**usual, **changed, "id": request_id}
            body = json.dumps(_v2(number)[place], separators=(",", ":")).encode()
            halves.append((_head("v2", kind, request_id, attributes), body))
        # What comes twice, and again with other bytes.
        again = [halves[side], (halves[side][0], b"{}")] if is_odd else []
        parts += [halves[0], *halves[: int(is_odd)], halves[1], *again]
    records = _numbered(parts)
    _same([records[:4], records[4:12], records[12:]])


def test_batches_as_the_proxy_sends_them_are_recognised() -> None:
    members = []
    for number in range(40):
        for kind, body in zip(("request", "response"), _v2(number), strict=True):
            attributes = {"specversion": "1.0", "id": f"r{number}", "source": "/s"}
            attributes |= {"type": KSERVE + kind, "time": f"2026-05-01T10:00:{number:02d}Z"}
            attributes |= {"inferenceservicename": "m", "namespace": "prod", "latencyms": "0.5"}
            members.append(attributes | {"traceparent": f"00-{number}"} | {"data": body})
    head = b"POST / HTTP/1.1\r\nContent-Type: application/cloudevents-batch+json\r\n\r\n"
    bodies = [json.dumps(members[k : k + 16], separators=(",", ":")) for k in range(0, 80, 16)]
    records = [_record(place, head, body.encode()) for place, body in enumerate(bodies)]

    swift = _same([records[:2], records[2:]])

    assert sum(isinstance(pair, Meeting) for pair in swift.pairs) >= 39


def _wire() -> list[tuple[bytes, bytes]]:
    found = []
    for path in sorted(WIRE.glob("*.json")):
        value = json.loads(path.read_text())
        http = value.get("http")
        if http is None or value.get("transport") != "http":
            continue
        data = http["body"]
        body = data["text"].encode() if "text" in data else base64.b64decode(data["base64"])
        lines = "".join(f"{key}: {text}\r\n" for key, text in http["headers"])
        path_of = http.get("path", "/")
        found.append((f"POST {path_of} HTTP/1.1\r\n{lines}\r\n".encode(), body))
    return found


def test_samples_of_the_platforms_are_the_same_once_and_again() -> None:
    samples = _wire()
    assert len(samples) > 20
    again = [
        (head.replace(b"-", b"-", 1).replace(b"Ce-Id: ", b"Ce-Id: %d" % number), body)
        for number in range(4)
        for head, body in samples
    ]
    records = _numbered([*samples, *again])
    _same([records[: len(samples)], records[len(samples) :]])


ODD = (
    *("NaN", "1e400", "null", "true", '"1"', '"a,b"', '"]"', '"["', "[1]", "[1,2]", "{}"),
    *("01", "1.", ".5", "+1", "-0", "1,,2", "1,2", "", " 1 ", "],[", "]", "[", '"', "1_0"),
    *("9007199254740993", "18446744073709551616", "1e3", "2.5", '{"a":1', "\\u0031", "\n"),
    *("1]]}", '1]}],"id":"7"}', "300", "-1", "1.0", "9007199254740992", '{"a":1}', "0.1e-5"),
    *("1,2],[3", "1],[2"),
)
_odd_numbers = st.sampled_from(ODD)
_odd_attributes = st.fixed_dictionaries(
    {},
    optional={
        "latencyms": st.sampled_from(["1.25", "0", "-1", "nan", "inf", "x", "1_0", "", "1e3"]),
        "time": st.sampled_from(
            ["2026-05-01T10:00:01Z", "2026-05-01T12:00:01.5+02:00", "", "yesterday", "0001-01-01"]
        ),
        "recordedtime": st.sampled_from(["2026-05-01T10:00:02Z", "x"]),
        "statuscode": st.sampled_from(["200", "500", "x"]),
        "traceparent": st.sampled_from(["00-1", "{}", "null", "", 'a"b', "a\\b", "%41", "é"]),
        "xrequestid": st.sampled_from(["q1", "q2"]),
        "truncated": st.just("true"),
        "modelversion": st.sampled_from(["4", "5"]),
        "id": st.sampled_from(["explain-7", "v2-1", "v2-2", "", "a b"]),
        "endpoint": st.sampled_from(["", "canary"]),
    },
)


@st.composite
def _streams(draw: st.DrawFn) -> list[tuple[bytes, bytes]]:
    """Pairs of a few clients, some of them odd, some twice, some in another order."""
    models = draw(st.lists(st.sampled_from(list(CLIENTS)), min_size=1, max_size=2, unique=True))
    parts: list[tuple[bytes, bytes]] = []
    for number in range(draw(st.integers(4, 14))):
        model = draw(st.sampled_from(models))
        attributes = draw(_odd_attributes) if draw(st.integers(0, 2)) == 0 else {}
        halves = _of_client(model, number, **attributes)
        if draw(st.integers(0, 2)) == 0:
            side = draw(st.integers(0, 1))
            head, body = halves[side]
            halves[side] = head, draw(_odd_bodies(body))
        parts += halves if draw(st.booleans()) else reversed(halves)
        if draw(st.integers(0, 5)) == 0:
            parts.append(draw(st.sampled_from(parts)))
    return parts


@st.composite
def _odd_bodies(draw: st.DrawFn, body: bytes) -> bytes:
    text = body.decode()
    starts = [place for place, char in enumerate(text) if char in "0123456789[],"]
    place = draw(st.sampled_from(starts))
    if draw(st.booleans()):
        end = place + 1
        while end < len(text) and text[end] in "0123456789.":
            end += 1
        return (text[:place] + draw(_odd_numbers) + text[end:]).encode()
    cut = draw(st.integers(0, len(text)))
    return text[:cut].encode() if draw(st.booleans()) else (text + text[cut:]).encode()


@settings(max_examples=120, deadline=None)
@given(_streams(), st.integers(1, 12))
def test_any_stream_is_the_same_recognised_and_read(
    parts: list[tuple[bytes, bytes]], size: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        _forget(patch)
        usual = [part for model in CLIENTS for n in (97, 98) for part in _of_client(model, n)]
        records = _numbered([*usual, *parts])
        begin = len(usual)
        steps = [records[place : place + size] for place in range(begin, len(records), size)]
        _same([records[:begin], *steps])


def test_a_string_across_two_bodies_is_found_in_neither() -> None:
    usual = [part for number in range(3) for part in _of_client("v2", number)]
    odd = [part for number in range(3, 6) for part in _of_client("v2", number)]
    for place, inside in ((0, b'"a'), (2, b'b",7,8'), (4, b"1,2,3")):
        head, body = odd[place]
        begin = body.index(b'"data":[') + 8
        odd[place] = head, body[:begin] + inside + body[body.index(b"]", begin) :]
    records = _numbered([*usual, *odd])
    _same([records[:6], records[6:]])


def test_brackets_that_make_up_for_each_other_leave_those_between_alone() -> None:
    usual = [part for number in range(3) for part in _of_client("lists", number)]
    odd = [part for number in range(3, 7) for part in _of_client("lists", number)]
    # Closes what the first one opened, and makes lists enough for all of them.
    closing = b"[5,6]],[6,7]],[[0.5,1]],[[70,71],[72,73]],[[3,4],[5,6]],[[1,2]"
    for place, inside in ((0, b"[1,2],[[2,3]"), (2, b"[7,8],[9,10]"), (4, closing)):
        odd[place] = odd[place][0], b'{"instances":[' + inside + b"]}"
    odd[3] = odd[3][0], b'{"predictions":[[0.5,1.5],[2.5,3.5]]}'
    records = _numbered([*usual, *odd])
    _same([records[:6], records[6:]])


def test_what_is_kept_of_senders_that_are_never_alike_is_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sidelight.adapters._known_inferences._MAX_TEXT_BYTES", 4000)
    known = KnownInferences()
    collector = _Collector(lambda records: scan(records)[0])
    collector._decoder._known = known
    most = 0
    for number in range(40):
        # The first of a sender teaches its head, the second its bodies.
        for one in range(2):
            parts = [
                (_head(f"m{number}", kind, f"r{one}", {}), b'{"%b":[[1.5],[2.5]],"x":"%b"}' % text)
                for kind, text in (
                    ("request", (b"instances", b"a" * 500)),
                    ("response", (b"predictions", b"b" * 500)),
                )
            ]
            collector.step(
                [_record(4 * number + 2 * one + k, *part) for k, part in enumerate(parts)]
            )
        most = max(most, len(known._clients))
    assert known.n_learned > 20
    assert most <= 10


def test_a_text_that_is_much_longer_than_its_numbers_is_not_learned() -> None:
    body = orjson.dumps({"parameters": {"x": "a" * (20 << 10)}, "instances": [[1.5], [2.5]]})
    short = body.replace(b"a" * 100, b"")
    read = partial(read_payload, side="request", dialects=DIALECTS)
    assert learned(body, read(body), [], read) is None
    assert learned(short, read(short), [], read) is not None
