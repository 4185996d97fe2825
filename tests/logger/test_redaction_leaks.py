"""No byte of a redacted value leaves: not in events, spool files, log records or metrics."""

import base64
import gzip
import json
import logging
import struct
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidelight.logger import (
    Accounting,
    AddedTime,
    Capture,
    Exchange,
    Redaction,
    RedactionRule,
    Spool,
    capture_metrics,
)
from sidelight.logger._binary_tensors import encode
from sidelight.logger._emitter_event import batch_body
from sidelight.logger._grpc_frames import frame
from sidelight.logger._open_inference import (
    ModelInferRequest,
    ModelInferResponse,
    ModelStreamInferResponse,
)

KEY = b"0123456789abcdef"

Rule = dict[str, Any]


class Sent(NamedTuple):
    """A body with secrets, how it was sent, and the rule that names where they are."""

    body: bytes
    rule: Rule
    media: str = "application/json"
    coding: str = ""
    head: str = ""


# Long enough not to occur by chance, with what JSON and headers escape.
texts = st.builds(
    lambda number, odd: f"{number:022x}{odd}Z",
    st.integers(1 << 80, (1 << 88) - 1),
    st.text('"\\/<é€\U0001f600\x7f a%', max_size=4),
)
integers = st.integers(10**9, (1 << 31) - 1).filter(
    lambda number: len({0, *struct.pack("<i", number)}) == 5
)
floats = st.integers(10**13, 10**14).map(lambda number: number / 10**7)
numbers = integers | floats
secrets = texts | numbers
RESPONSE = {"on": "response"}


def dumped(value: Any, *, escaped: bool) -> bytes:
    """Return JSON; ``escaped`` writes letters as odd as JSON allows where it can."""
    text = json.dumps(value, ensure_ascii=not escaped)
    if escaped and not any(word in text for word in ("true", "false", "null", "\\")):
        text = "".join(f"\\u{ord(one):04x}" if one.isalpha() else one for one in text)
    return text.encode()


def tensor(values: list[Any], datatype: str, shape: list[int], name: str) -> dict[str, Any]:
    return {"name": name, "shape": shape, "datatype": datatype, "data": values}


def named(secret: Any) -> list[tuple[Any, Rule]]:
    """Return JSON bodies with the secret under a name that a rule knows."""
    kind = "BYTES" if isinstance(secret, str) else "FP64"
    other: Any = "open" if isinstance(secret, str) else 1.5
    both = [other, secret]
    return [
        ({"instances": [{"age": other}, {"age": secret, "x": [1]}]}, {"column": "age"}),
        ({"instances": [{"age": [[secret], [1]]}]}, {"tensor": "age"}),
        ({"instances": [{"age": both}]}, {"column": "age_1"}),
        ({"instances": [{"in": {"age": secret}}]}, {"column": "age"}),
        ({"instances": [{"age": {"b64": secret}}]}, {"column": "age"}),
        ({"instances": [both, both]}, {"column": "f1"}),
        ({"instances": [both, [secret]]}, {"column": "f[01]"}),
        ({"instances": [[[secret]], [both]]}, {"column": "f0"}),
        ({"instances": [secret, secret]}, {"column": "f0"}),
        ({"instances": secret}, {"column": "f0"}),
        ({"inputs": {"age": both, "x": [1, 2]}}, {"column": "age"}),
        ({"inputs": {"age": [both, both]}}, {"column": "age_1"}),
        ({"inputs": [both]}, {"column": "f1"}),
        ({"inputs": [tensor(both, kind, [2], "age")]}, {"column": "age"}),
        ({"inputs": [tensor(both * 2, kind, [2, 2], "x")]}, {"column": "x_1"}),
        ({"inputs": [tensor([both, both], kind, [2, 2], "x")]}, {"column": "x_1"}),
        ({"inputs": [tensor(both, kind, [1, 1, 2], "x")]}, {"tensor": "x"}),
        ({"inputs": [tensor(secret, kind, [], "x")]}, {"column": "x"}),
        ({"dataframe_split": {"columns": ["a", "age"], "data": [both]}}, {"column": "age"}),
        ({"dataframe_split": {"data": [both]}}, {"column": "f1"}),
        ({"dataframe_records": [{"age": secret}, {}]}, {"column": "a?e"}),
        ({"data": {"names": ["a", "age"], "ndarray": [both]}}, {"column": "age"}),
        ({"data": {"ndarray": [both]}}, {"column": "f1"}),
        ({"data": {"names": ["age"], "ndarray": [secret]}}, {"column": "age"}),
        ({"data": {"tensor": {"shape": [1, 2], "values": both}}}, {"column": "f1"}),
        ({"data": {"names": ["age"], "tftensor": {"floatVal": secret}}}, {"column": "age"}),
        ({"strData": secret}, {"column": "f0"}),
        ({"binData": secret}, {"column": "f0"}),
        ({"jsonData": [{"age": secret}]}, {"column": "age"}),
        ({"jsonData": {"in": [{"age": secret}]}}, {"column": "age"}),
        ({"request": {"data": {"ndarray": [both]}}, "reward": 1}, {"column": "f1"}),
        ({"examples": [{"age": secret}], "context": {"age": secret}}, {"column": "age"}),
        ({"who": secret, "instances": []}, {"path": "$.who"}),
        ({"a": [{"who": secret, "x": secret}]}, {"path": "$.a[*]"}),
        ({"a": {"b": [[{"who": both}]]}}, {"path": "$..who"}),
        ([1, secret], {"path": "$[-1]"}),
        ({"odd": {"age": secret}}, {"column": "age"}),
        (secret, {"column": "age"}),
        ({"error": f"cannot read {secret}"}, {"column": "age"}),
        ({"error": f"cannot read {secret}", "instances": []}, {"column": "age"}),
        ({"predictions": [secret, 1]}, {"column": "y", **RESPONSE}),
        ({"predictions": [both]}, {"column": "y1", **RESPONSE}),
        ({"outputs": [tensor(both, kind, [2, 1], "p")]}, {"column": "p", **RESPONSE}),
        ({"error": f"cannot read {secret}"}, {"column": "y", **RESPONSE}),
    ]


def in_bytes(secret: Any) -> list[Sent]:
    """Return bodies with the secret in bytes: the binary extension and protobuf."""
    if isinstance(secret, str):
        kind, field = "BYTES", "bytes_contents"
        values: list[Any] = [b"open", secret.encode()]
    elif isinstance(secret, int):
        kind, field, values = "INT64", "int64_contents", [7, secret]
    else:
        kind, field, values = "FP64", "fp64_contents", [0.5, secret]
    raw = encode(kind, values)
    media = "application/protobuf"
    head = json.dumps(
        {
            "inputs": [
                {
                    "name": "x",
                    "shape": [1, 2],
                    "datatype": kind,
                    "parameters": {"binary_data_size": len(raw)},
                },
                tensor([values[0] if kind != "BYTES" else "a"], kind, [1], "z"),
            ]
        }
    ).encode()
    length = f"Inference-Header-Content-Length: {len(head)}\r\n"

    # Values of another dialect beside the tensors, and a length where there is nothing but JSON.
    beside = json.dumps({**json.loads(head), "instances": [{"x": secret}]}).encode()
    outputs = [tensor(["open", secret], "BYTES", [1, 2], "x")]
    plain = json.dumps({"outputs": outputs}).encode()
    plain_length = f"Inference-Header-Content-Length: {len(plain)}\r\n"

    request = ModelInferRequest(model_name="m")
    request.inputs.add(name="x", datatype=kind, shape=[1, 2])
    request.raw_input_contents.append(raw)
    typed = ModelInferResponse(model_name="m")
    getattr(typed.outputs.add(name="x", datatype=kind, shape=[2]).contents, field).extend(values)
    streamed = ModelStreamInferResponse(infer_response=typed)
    message = request.SerializeToString()
    named_rule: Rule = {"column": "x_1"}
    answer: Rule = {"tensor": "x", **RESPONSE}
    return [
        Sent(head + raw, named_rule, "application/octet-stream", head=length),
        Sent(head + raw, named_rule, "application/octet-stream"),
        Sent(beside + raw, {"tensor": "x"}),
        Sent(plain, {"tensor": "x", **RESPONSE}, head=plain_length),
        Sent(head + raw, {"tensor": "x"}, head=length),
        Sent(head + raw, {"path": "$.inputs[0].data[1]"}, head=length),
        Sent(head + raw, {"path": "$.inputs[*].data"}),
        Sent(head + raw[:-1], named_rule, head=length),
        Sent(raw, named_rule, head="Inference-Header-Content-Length: 0\r\n"),
        Sent(message, named_rule, media),
        Sent(message, {"path": "$..x"}, media),
        Sent(message[:-1], named_rule, media),
        Sent(message + b"\x9a\x06" + bytes([len(raw)]) + raw, {"tensor": "x"}, media),
        Sent(frame(message) + frame(message), named_rule, "application/grpc"),
        Sent(b"\x01" + frame(gzip.compress(message))[1:], named_rule, "application/grpc"),
        Sent(typed.SerializeToString(), answer, media),
        Sent(streamed.SerializeToString(), answer, media),
        Sent(streamed.SerializeToString(), {"column": "x", **RESPONSE}, media),
    ]


def broken(secret: Any) -> list[Sent]:
    """Return bodies that nobody can read, or that are not what they look like."""
    rule: Rule = {"column": "age"}
    text = json.dumps({"instances": [{"age": secret}]})
    plain = text.encode()
    return [
        Sent(plain[:-1], rule),
        Sent(plain + b"}", rule),
        Sent(plain, rule, coding="br"),
        Sent(zlib.compress(plain)[:-3], rule, coding="deflate"),
        Sent(gzip.compress(plain), rule),
        Sent(gzip.compress(plain), rule, coding="gzip"),
        Sent(gzip.compress(gzip.compress(plain)), rule, coding="gzip"),
        Sent(zlib.compress(plain), rule, coding="deflate"),
        Sent(text.encode("utf-16"), rule),
        Sent(b"\xef\xbb\xbf" + plain, rule),
        Sent(b"age\n%b" % str(secret).encode(), rule, "text/csv"),
        Sent(plain + b"\n" + plain, rule, "application/x-ndjson"),
        Sent(b'{"instances":[{"age":%b,"age":1}]}' % json.dumps(secret).encode(), rule),
        Sent(b'{"instances":[{"age":%b}],"instances":[]}' % json.dumps(secret).encode(), rule),
        Sent(b'{"instances":[{"age":%b,"x":NaN}]}' % json.dumps(secret).encode(), rule),
        Sent(b'{"instances":[{"age":"%b\xff"}]}' % str(secret).encode(), rule),
        Sent(b'{"instances":' + b"[" * 3000 + json.dumps(secret).encode() + b"]" * 3000, rule),
        Sent(
            b'{"instances":' + b"[" * 900 + json.dumps(secret).encode() + b"]" * 900 + b"}",
            {"column": "f0"},
        ),
        Sent(b'{"who":' * 900 + json.dumps(secret).encode() + b"}" * 900, {"path": "$..who"}),
        Sent(str(secret).encode(), rule, "multipart/form-data; boundary=x"),
    ]


@st.composite
def sent(draw: st.DrawFn) -> tuple[Any, Sent]:
    secret = draw(secrets)
    kind = draw(st.sampled_from(["named", "bytes", "broken"]))
    if kind == "bytes":
        return secret, draw(st.sampled_from(in_bytes(secret)))
    if kind == "broken":
        return secret, draw(st.sampled_from(broken(secret)))
    body, rule = draw(st.sampled_from(named(secret)))
    return secret, Sent(dumped(body, escaped=draw(st.booleans())), rule)


ACTIONS: dict[str, Rule] = {
    "drop": {"action": "drop"},
    "mask": {"action": "mask"},
    "text": {"action": "mask", "text": "***"},
    "hmac": {"action": "hmac"},
    "bucket": {"action": "bucket", "edges": (0, 18)},
    "step": {"action": "round", "step": 3e17},
    "digits": {"action": "round", "digits": -18},
    "truncate": {"action": "truncate", "length": 3},
}


def exchange(item: Sent, *, cut: int, status: int, is_response: bool) -> Exchange:
    lines = f"Content-Type: {item.media}\r\n{item.head}"
    if item.coding:
        lines += f"Content-Encoding: {item.coding}\r\n"
    head = lines.encode() + b"\r\n"
    plain = b"Content-Type: application/json\r\n\r\n"
    body = item.body[: len(item.body) - cut] if cut else item.body
    return Exchange(
        method=b"POST",
        target=b"/v2/models/m/infer?token=1",
        request_head=b"POST /v2/models/m/infer HTTP/1.1\r\n" + (plain if is_response else head),
        request_body=b"{}" if is_response else body,
        request_cut=0 if is_response else cut,
        response_head=b"HTTP/1.1 200 OK\r\n" + (head if is_response else plain),
        # An error quotes what it does not like.
        response_body=body if is_response or status >= 400 else b"{}",
        response_cut=cut if is_response else 0,
        status=status,
        started_ns=1_700_000_000_000_000_000,
        finished_ns=1_700_000_001_000_000_000,
        latency_ms=1.5,
        request_digest=bytes(32) if cut else b"",
        response_digest=bytes(32) if cut else b"",
    )


def forms(secret: Any) -> Iterator[bytes]:
    """Yield every form in which the secret could stand somewhere."""
    if isinstance(secret, str):
        plain = {secret.encode()}
        plain |= {json.dumps(secret)[1:-1].encode(), secret.encode("utf-16-le")}
        plain |= {json.dumps(secret, ensure_ascii=False)[1:-1].encode()}
        plain |= {quote(secret).encode(), repr(secret)[1:-1].encode()}
    else:
        plain = {repr(secret).encode(), f"{secret:g}".encode() * (10**9 < secret < 0)} - {b""}
        plain |= {struct.pack("<d", secret), struct.pack(">d", secret)}
        if isinstance(secret, int):
            plain |= {struct.pack("<i", secret), b"%x" % secret}
    for form in plain:
        yield form
        yield form.hex().encode()
        for padding in range(3):
            # The characters that depend on the secret alone, wherever it begins.
            whole = base64.b64encode(bytes(padding) + form).rstrip(b"=")
            inner = whole[(padding * 8 + 5) // 6 : (padding + len(form)) * 8 // 6]
            # Fewer characters would be found by chance in a pseudonym.
            if len(inner) > 6:
                yield inner
                yield inner.translate(bytes.maketrans(b"+/", b"-_"))


def test_the_search_finds_what_it_looks_for() -> None:
    secret = 'ab"cdefghijkl'

    for text in (
        secret.encode(),
        json.dumps({"a": secret}).encode(),
        base64.b64encode(b"x" + secret.encode() + b"yz"),
        base64.urlsafe_b64encode(b"xx" + json.dumps(secret).encode()),
        secret.encode().hex().encode(),
    ):
        assert any(form in text for form in forms(secret))


@contextmanager
def recorded() -> Iterator[list[str]]:
    """Collect every record of the library as a handler would write it, traces included."""
    lines: list[str] = []

    class Collecting(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(logging.Formatter("%(message)s").format(record) + repr(record.__dict__))

    found, handler = logging.getLogger("sidelight"), Collecting(logging.DEBUG)
    level = found.level
    found.addHandler(handler)
    found.setLevel(logging.DEBUG)
    try:
        yield lines
    finally:
        found.removeHandler(handler)
        found.setLevel(level)


def everything(capture: Capture, captured: Exchange, rate: float = 1.0) -> bytes:
    """Return all that one exchange leaves behind, in every wire form and on the disk."""
    accounting = Accounting()
    with recorded() as lines, tempfile.TemporaryDirectory() as folder:
        events = capture.events(captured, rate)
        spool = Spool(Path(folder), max_bytes=1 << 24, segment_bytes=1 << 20)
        spool.append([event.pack() for event in events])
        parts = [path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()]
        spool.close()
        parts += [path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()]
        accounting.see(2)
    parts += [
        batch_body(events),
        capture_metrics(
            {"sink": accounting.snapshot()}, AddedTime(), namespace="n", deployment="d"
        ),
    ]
    for event in events:
        parts += [event.data, *[name + value for name, value in event.headers()]]
        data = json.loads(event.member())
        parts.append(base64.b64decode(data.get("data_base64", "")))
    return b"\n".join([*parts, *[line.encode("utf-8", "backslashreplace") for line in lines]])


def assert_nothing_is_left(secret: Any, text: bytes) -> None:
    for form in forms(secret):
        assert form not in text


@settings(max_examples=300, deadline=None)
@given(
    sent(),
    st.sampled_from(sorted(ACTIONS)),
    st.sampled_from([0, 0, 0, 1, 7]),
    st.sampled_from([200, 200, 500, 422]),
)
def test_nothing_that_a_rule_names_leaves_in_any_form(
    given_: tuple[Any, Sent], action: str, cut: int, status: int
) -> None:
    secret, item = given_
    rule = RedactionRule(**ACTIONS[action], **item.rule)
    capture = Capture(redaction=Redaction([rule], key=KEY))
    is_response = item.rule.get("on") == "response"

    text = everything(
        capture,
        exchange(item, cut=cut, status=200 if is_response else status, is_response=is_response),
    )

    assert_nothing_is_left(secret, text)


@pytest.mark.parametrize("build", [named, in_bytes, broken])
def test_without_rules_each_of_these_would_leave(build: Callable[[Any], list[Any]]) -> None:
    capture = Capture()
    for secret in ("0123456789abcdef0123Z", 1_234_567_891, 1_234_567.891_011):
        for found in build(secret):
            item = (
                found if isinstance(found, Sent) else Sent(json.dumps(found[0]).encode(), found[1])
            )
            text = everything(capture, exchange(item, cut=0, status=200, is_response=False))
            # The very form in which it was sent is looked for here: compressed it is another.
            assert item.body in text or any(form in text for form in forms(secret))


@settings(max_examples=30, deadline=None)
@given(
    texts.filter(lambda text: text.isascii() and text.isprintable()),
    st.sampled_from(["hmac", "drop", "text"]),
)
def test_a_header_on_the_allow_list_leaves_as_its_rule_says(secret: str, action: str) -> None:
    rule = RedactionRule(**ACTIONS[action], header="X-Tenant")
    capture = Capture(
        redaction=Redaction([rule], key=KEY), headers=["X-Tenant"], response_headers=["x-tenant"]
    )
    captured = exchange(
        Sent(b"{}", {}, head=f"X-Tenant: {secret}\r\n"), cut=0, status=200, is_response=False
    )
    captured.response_head = captured.request_head

    text = everything(capture, captured)

    assert_nothing_is_left(secret.strip(), text)


def test_what_fails_in_an_unforeseen_way_is_withheld_and_not_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    secret = "0123456789abcdef"

    def fail(*_: Any, **__: Any) -> None:
        raise ValueError(f"cannot convert {secret}")

    monkeypatch.setattr("sidelight.logger._redaction.write_json", fail)
    capture = Capture(redaction=Redaction([RedactionRule(action="mask", path="$.b")], key=KEY))
    item = Sent(json.dumps({"a": secret}).encode(), {})

    text = everything(capture, exchange(item, cut=0, status=200, is_response=False))

    assert b"a body cannot be redacted" in text
    assert b'"redacted":"withheld","redactionreason":"failed"' in text
    assert_nothing_is_left(secret, text)
