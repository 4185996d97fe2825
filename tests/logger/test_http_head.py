"""Heads: refused when ambiguous, forwarded as they came."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidelight.logger._http_head import (
    CHUNKED,
    UNTIL_CLOSE,
    Refused,
    RequestHead,
    ResponseHead,
)

_BEGIN = b"POST /p HTTP/1.1\r\nHost: a\r\n"

_HOP = ["Connection", "Proxy-Connection", "Keep-Alive", "TE", "Upgrade"]
_TOKEN = "!#$%&'*+.^_`|~-0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_MEANT_FOR_US = {
    *(name.lower() for name in _HOP),
    "host",
    "content-length",
    "transfer-encoding",
    "expect",
}

names = st.text(_TOKEN, min_size=1, max_size=12).filter(
    lambda name: name.lower() not in _MEANT_FOR_US
)
values = st.text(
    st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=20
).map(str.strip)
end_to_end = st.tuples(names, values)
hop_by_hop = st.sampled_from(
    [
        ("Connection", "keep-alive"),
        ("connection", "close"),
        ("Keep-Alive", "timeout=5"),
        ("Proxy-Connection", "keep-alive"),
        ("TE", "trailers"),
        ("Upgrade", "h2c"),
    ]
)


def _head(first: str, headers: list[tuple[str, str]]) -> bytes:
    lines = [first, *(f"{name}: {value}" for name, value in headers), "", ""]
    return "\r\n".join(lines).encode("latin-1")


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        pytest.param(b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", 400, id="CL and TE"),
        pytest.param(b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n", 400, id="TE and CL"),
        pytest.param(b"Content-Length: 3\r\nContent-Length: 4\r\n", 400, id="two lengths"),
        pytest.param(b"Content-Length: 3, 4\r\n", 400, id="a list of lengths"),
        pytest.param(b"Content-Length: +3\r\n", 400, id="a sign"),
        pytest.param(b"Content-Length: 0x3\r\n", 400, id="hexadecimal"),
        pytest.param(b"Content-Length:\r\n", 400, id="an empty length"),
        pytest.param(b"Content-Length: 99999999999999999999\r\n", 400, id="a length over 64 bits"),
        pytest.param(b"Transfer-Encoding: xchunked\r\n", 400, id="a coding nobody knows"),
        pytest.param(b"Transfer-Encoding: chunked, identity\r\n", 400, id="chunked not last"),
        pytest.param(b"Transfer-Encoding: gzip, chunked\r\n", 501, id="a coding before chunked"),
        pytest.param(
            b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n",
            501,
            id="a coding on the line before chunked",
        ),
        pytest.param(b"Transfer-Encoding: \x0bchunked\r\n", 400, id="a vertical tab"),
        pytest.param(b"X: a\r\n b\r\n", 400, id="a folded line"),
        pytest.param(b" X: a\r\n", 400, id="a blank before the name"),
        pytest.param(b"X : a\r\n", 400, id="a blank before the colon"),
        pytest.param(b"X: a\x00b\r\n", 400, id="NUL in a value"),
        pytest.param(b"X: a\x01b\r\n", 400, id="control character in a value"),
        pytest.param(b"X: a\x7fb\r\n", 400, id="DEL in a value"),
        pytest.param(b"X\x01: a\r\n", 400, id="control character in a name"),
        pytest.param(b"X\xe9: a\r\n", 400, id="beyond ASCII in a name"),
        pytest.param(b": a\r\n", 400, id="no name"),
        pytest.param(b"X\r\n", 400, id="no colon"),
        pytest.param(b"X: a\nY: b\r\n", 400, id="a lone LF"),
        pytest.param(b"X: a\rY: b\r\n", 400, id="a lone CR"),
        pytest.param(b"Host: b\r\n", 400, id="two hosts"),
    ],
)
def test_ambiguous_head_is_refused(lines: bytes, status: int) -> None:
    with pytest.raises(Refused) as refused:
        RequestHead(_BEGIN + lines + b"\r\n")

    assert refused.value.status == status


@pytest.mark.parametrize(
    ("line", "status"),
    [
        pytest.param(b"GET /", 400, id="HTTP/0.9"),
        pytest.param(b"GET / HTTP/2.0", 505, id="HTTP/2"),
        pytest.param(b"PRI * HTTP/2.0", 505, id="preface of HTTP/2"),
        pytest.param(b"GET / HTTP/1.2", 505, id="HTTP/1.2"),
        pytest.param(b"GET / RTSP/1.0", 400, id="another protocol"),
        pytest.param(b"GET  / HTTP/1.1", 400, id="two blanks"),
        pytest.param(b"GET /a b HTTP/1.1", 400, id="a blank in the target"),
        pytest.param(b"GET /\x01 HTTP/1.1", 400, id="control character in the target"),
        pytest.param(b"GET / HTTP/1.1 ", 400, id="a blank at the end"),
        pytest.param(b"get / HTTP/1.1", 400, id="a method in lower case"),
        pytest.param(b"FOO / HTTP/1.1", 400, id="a method nobody knows"),
        pytest.param(b"CONNECT a:1 HTTP/1.1", 501, id="CONNECT"),
    ],
)
def test_request_line_that_is_not_ours_is_refused(line: bytes, status: int) -> None:
    with pytest.raises(Refused) as refused:
        RequestHead(line + b"\r\nHost: a\r\n\r\n")

    assert refused.value.status == status


def test_version_1_1_without_host_is_refused() -> None:
    with pytest.raises(Refused, match="one Host"):
        RequestHead(b"GET / HTTP/1.1\r\n\r\n")


def test_chunks_of_version_1_0_are_refused() -> None:
    with pytest.raises(Refused, match="HTTP/1\\.0"):
        RequestHead(b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n")


@pytest.mark.parametrize(
    ("raw", "keep_alive"),
    [
        pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", True, id="1.1"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Close\r\n\r\n", False, id="close"),
        pytest.param(
            b"GET / HTTP/1.1\r\nHost: a\r\nConnection: x\r\nConnection: y , close\r\n\r\n",
            False,
            id="close in a list of two lines",
        ),
        pytest.param(b"GET / HTTP/1.0\r\n\r\n", False, id="1.0"),
        pytest.param(b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", True, id="1.0 kept"),
    ],
)
def test_keep_alive_is_what_the_client_asks_for(raw: bytes, *, keep_alive: bool) -> None:
    assert RequestHead(raw).keep_alive is keep_alive


def test_head_without_hop_by_hop_headers_is_forwarded_as_the_same_object() -> None:
    raw = _BEGIN + b"Content-Length: 3\r\nX-A: b\r\n\r\n"
    head = RequestHead(raw)

    assert head.forward is raw
    assert (head.method, head.target, head.length) == (b"POST", b"/p", 3)


def test_headers_named_by_connection_stay_behind() -> None:
    head = RequestHead(_BEGIN + b"X-Hop: 1\r\nConnection: x-hop\r\nX-End: 2\r\n\r\n")

    assert head.forward == _BEGIN + b"X-End: 2\r\n\r\n"


@pytest.mark.parametrize("name", [b"Content-Length", b"Host"])
def test_connection_cannot_take_away_what_frames_or_routes(name: bytes) -> None:
    head = RequestHead(_BEGIN + b"Content-Length: 3\r\nConnection: " + name + b"\r\n\r\n")

    assert head.forward == _BEGIN + b"Content-Length: 3\r\n\r\n"


def test_upgrade_is_forwarded_untouched() -> None:
    raw = (
        _BEGIN + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n\r\n"
    )
    head = RequestHead(raw)

    assert head.upgrades
    assert head.forward is raw


def test_version_1_0_is_forwarded_as_1_1_with_a_host() -> None:
    head = RequestHead(b"GET / HTTP/1.0\r\nX: y\r\n\r\n")

    assert head.forward == b"GET / HTTP/1.1\r\nHost: \r\nX: y\r\n\r\n"


@given(st.lists(st.one_of(end_to_end, hop_by_hop), max_size=12))
def test_forwarded_head_is_the_sent_one_without_hop_by_hop(headers: list[tuple[str, str]]) -> None:
    first = "POST /p HTTP/1.1"
    host = ("hOsT", "a")
    kept = [(name, value) for name, value in headers if name.lower() not in _MEANT_FOR_US]

    head = RequestHead(_head(first, [host, *headers]))

    assert head.forward == _head(first, [host, *kept])


@given(st.lists(st.one_of(end_to_end, hop_by_hop), max_size=12))
def test_forwarded_answer_is_the_sent_one_without_hop_by_hop(
    headers: list[tuple[str, str]],
) -> None:
    first = "HTTP/1.1 200 Fine"
    kept = [(name, value) for name, value in headers if name.lower() not in _MEANT_FOR_US]

    head = ResponseHead(_head(first, [*headers, ("Content-Length", "0")]))

    assert head.forward == _head(first, [*kept, ("Content-Length", "0")])


@pytest.mark.parametrize(
    ("head", "length", "keep_alive"),
    [
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", 3, True, id="length"),
        pytest.param(b"HTTP/1.1 200\r\ncontent-length: 3 \r\n\r\n", 3, True, id="no reason"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n",
            3,
            True,
            id="the same length twice",
        ),
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\n", UNTIL_CLOSE, False, id="until close"),
        pytest.param(b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\n", 3, False, id="1.0"),
        pytest.param(
            b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\nConnection: keep-alive\r\n\r\n",
            3,
            True,
            id="1.0 kept",
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", CHUNKED, True, id="chunked"
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", UNTIL_CLOSE, False, id="gzip"
        ),
        pytest.param(b"HTTP/1.1 204 No\r\nContent-Length: 3\r\n\r\n", 0, True, id="204"),
        pytest.param(b"HTTP/1.1 304 No\r\nContent-Length: 3\r\n\r\n", 0, True, id="304"),
        pytest.param(b"HTTP/1.1 100 Continue\r\n\r\n", 0, True, id="100"),
    ],
)
def test_length_of_an_answer(head: bytes, length: int, *, keep_alive: bool) -> None:
    answer = ResponseHead(head)

    assert (answer.length, answer.keep_alive) == (length, keep_alive)


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(b"SSH-2.0-OpenSSH\r\n\r\n", id="another protocol"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n", id="two lengths"
        ),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", id="no number"),
    ],
)
def test_answer_without_certain_end_is_refused(head: bytes) -> None:
    with pytest.raises(Refused) as refused:
        ResponseHead(head)

    assert refused.value.status == 502


def test_length_beside_chunks_does_not_travel_on() -> None:
    head = ResponseHead(
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"
    )

    assert head.length == CHUNKED
    assert head.forward == b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
