"""Heads of requests and responses: refused when ambiguous, understood once, forwarded as they came.

A head is checked by llhttp (through httptools, without callbacks) and looked through by one
regular expression for the few headers that matter to a relay. Everything else stays raw bytes.
"""

import re
from typing import Final

import httptools

from sidelight.logger._http import problem
from sidelight.logger._http_special import Special, without_headers
from sidelight.logger._request_id import header, id_in_head
from sidelight.logger.errors import LoggerError

CHUNKED: Final = -1
"""Length of a body that comes in chunks."""

UNTIL_CLOSE: Final = -2
"""Length of a response that ends with its connection."""

_REQUEST_LINE: Final = re.compile(rb"([A-Z!#$%&'*+.^_`|~0-9-]+) ([\x21-\x7e]+) HTTP/1\.([01])\r\n")
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: [^\r\n]*)?\r\n")

_SAFE_TO_REPEAT: Final = frozenset({b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE", b"TRACE"})

# RFC 9110 6.4.1: responses that end with their head, whatever it says.
_BODILESS: Final = frozenset({204, 304})

_HTTP_1_0: Final = b"0"

_REQUEST_ID: Final = b"\r\nx-request-id:"


class Refused(LoggerError, ValueError):  # noqa: N818 - the name says it
    """A message that is not taken; carries the status and the parts of the problem document."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        expected: str | None = None,
        got: bytes | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.expected = expected
        self.got = got
        self.hint = hint

    def response(self) -> bytes:
        """Build the whole HTTP response that says so."""
        return problem(
            self.status, self.detail, expected=self.expected, got=self.got, hint=self.hint
        )


class _Parsed:
    """llhttp without callbacks: it checks, nothing is collected."""


_NO_CALLBACKS: Final = _Parsed()


class RequestHead:
    """A request's head: valid, with what a relay must know of it.

    Attributes
    ----------
    raw : bytes
        As it came, through the blank line.
    method, target : bytes
        As in the request line.
    length : int
        Bytes of the body, or `CHUNKED`.
    keep_alive : bool
        Whether the client wants to use its connection again.
    is_http_10 : bool
        Whether the client speaks HTTP/1.0: no chunks, no interim responses.
    expects_continue : bool
        Whether the client waits for 100 before it sends the body.
    upgrades : bool
        Whether the client asks for another protocol.
    forward : bytes
        What the upstream is sent; the same object as `raw` when nothing had to be changed.
    is_repeatable : bool
        Whether sending it twice does no harm (RFC 9110 9.2.2).
    """

    __slots__ = (
        "_request_id",
        "expects_continue",
        "forward",
        "is_http_10",
        "is_repeatable",
        "keep_alive",
        "length",
        "method",
        "raw",
        "target",
        "upgrades",
    )

    def __init__(self, raw: bytes) -> None:
        """Understand a head.

        Parameters
        ----------
        raw : bytes
            From the request line through the blank line.

        Raises
        ------
        Refused
            With 400, 501 or 505, if a strict reader could take it for another message.
        """
        line = _REQUEST_LINE.match(raw)
        if line is None:
            raise _bad_request_line(raw)
        _check_with_llhttp(raw)
        self.raw = raw
        self.method, self.target, minor = line.groups()
        if self.method == b"CONNECT":
            raise Refused(501, "this is no forward proxy", got=self.target)
        self.is_http_10 = minor == _HTTP_1_0
        special = Special(raw)
        values = special.values
        self.length = _request_length(values, is_http_10=self.is_http_10)
        options = special.options
        self.keep_alive = b"keep-alive" in options if self.is_http_10 else b"close" not in options
        _check_host(special.hosts, is_http_10=self.is_http_10)
        self.upgrades = b"upgrade" in options and b"upgrade" in values and not self.is_http_10
        self.expects_continue = not self.is_http_10 and values.get(b"expect") == b"100-continue"
        self.is_repeatable = self.method in _SAFE_TO_REPEAT
        self.forward = self._forwarded(special)
        self._request_id: bytes | None = None

    def request_id(self) -> bytes:
        """Id that the caller gave in a header; empty when there is none. Looked for once."""
        found = self._request_id
        if found is None:
            found = self._request_id = id_in_head(self.raw, self.raw.lower())
        return found

    def _forwarded(self, special: Special) -> bytes:
        if self.upgrades:
            # RFC 9110 7.8: what it takes to switch is named in Connection, so all of it goes on.
            return self.raw
        raw = special.without_hop_by_hop()
        if self.is_http_10:
            # RFC 9112 2.3: an intermediary sends its own version, and 1.1 demands a Host.
            raw = raw.replace(b" HTTP/1.0\r\n", b" HTTP/1.1\r\n", 1)
            if not special.hosts:
                raw = raw.replace(b" HTTP/1.1\r\n", b" HTTP/1.1\r\nHost: \r\n", 1)
        return raw


class ResponseHead:
    """A response's head, with what a relay must know of it.

    Attributes
    ----------
    raw : bytes
        As it came, through the blank line.
    status : int
        100..999.
    length : int
        Bytes of the body, `CHUNKED` or `UNTIL_CLOSE`; 0 for 1xx, 204 and 304. That the answer to
        a HEAD has no body is the caller's to know.
    keep_alive : bool
        Whether the upstream's connection may be used again.
    forward : bytes
        Without hop-by-hop headers and with our version, ready for a client of HTTP/1.1 that
        keeps its connection; the same object as `raw` when nothing had to be changed.
    request_id : bytes or None
        Value of X-Request-Id; None when there is no such header.
    """

    __slots__ = ("forward", "keep_alive", "length", "raw", "request_id", "status")

    def __init__(self, raw: bytes) -> None:
        """Understand a head.

        Raises
        ------
        Refused
            With 502, if it is no HTTP/1.x response or its length is ambiguous.
        """
        line = _STATUS_LINE.match(raw)
        if line is None:
            raise Refused(
                502,
                "the upstream's answer is not HTTP/1.1",
                expected="a status line",
                hint="check the address and the protocol of the upstream",
            )
        self.raw = raw
        minor, status = line.groups()
        self.status = int(status)
        special = Special(raw)
        options = special.options
        keep = b"keep-alive" in options if minor == _HTTP_1_0 else b"close" not in options
        self.length = self._length(special)
        self.keep_alive = keep and self.length != UNTIL_CLOSE
        if self.status != 101:  # noqa: PLR2004 - Switching Protocols: all that it takes goes on
            raw = special.without_hop_by_hop()
        if self.length == CHUNKED and b"content-length" in special.values:
            # RFC 9112 6.3: the chunks count, and the length must not travel on.
            raw = without_headers(raw, frozenset({b"content-length"}))
        if minor == _HTTP_1_0:
            raw = b"HTTP/1.1" + raw[8:]
        self.forward = raw
        lowered = raw.lower()
        has_id = _REQUEST_ID in lowered
        self.request_id = header(raw, lowered, _REQUEST_ID) if has_id else None

    def with_request_id(self, request_id: bytes) -> bytes:
        """Give `forward` with the id in one more header, the last."""
        return b"%bX-Request-Id: %b\r\n\r\n" % (self.forward[:-2], request_id)

    def _length(self, special: Special) -> int:
        if self.status < 200 or self.status in _BODILESS:  # noqa: PLR2004 - interim responses
            return 0
        coding = special.values.get(b"transfer-encoding")
        if coding is not None:
            return CHUNKED if coding.endswith(b"chunked") else UNTIL_CLOSE
        length = special.values.get(b"content-length")
        if length is None:
            return UNTIL_CLOSE
        too_long = len(length) > 18  # noqa: PLR2004 - it must fit 64 bits
        if too_long or special.lengths_differ or not length.isdigit():
            raise Refused(
                502,
                "the upstream's answer has no certain length",
                expected="one Content-Length of digits",
                got=length,
            )
        return int(length)


def _request_length(values: dict[bytes, bytes], *, is_http_10: bool) -> int:
    # llhttp has seen to it that there is one of the two at most, and that a length is a number.
    length = values.get(b"content-length")
    if length is not None:
        return int(length)
    coding = values.get(b"transfer-encoding")
    if coding is None:
        return 0
    if is_http_10:
        raise Refused(
            400, "HTTP/1.0 has no Transfer-Encoding", expected="Content-Length", got=coding
        )
    if coding != b"chunked":
        raise Refused(
            501, "this Transfer-Encoding is not supported", expected="chunked", got=coding
        )
    return CHUNKED


def _check_host(hosts: int, *, is_http_10: bool) -> None:
    if hosts > 1 or (hosts == 0 and not is_http_10):
        raise Refused(
            400,
            "the request must have one Host",
            expected="one Host header",
            got=b"%d" % hosts,
        )


def _check_with_llhttp(raw: bytes) -> None:
    try:
        httptools.HttpRequestParser(_NO_CALLBACKS).feed_data(raw)
    except httptools.HttpParserUpgrade:
        return
    except httptools.HttpParserError as error:
        raise Refused(
            400,
            "the head of the request is not valid HTTP/1.1",
            expected="RFC 9112: one length, no folded lines, no control characters",
            got=str(error).encode("latin-1", "replace"),
        ) from None


def _bad_request_line(raw: bytes) -> Refused:
    line = raw[: raw.find(b"\r\n")]
    version = line.rpartition(b" ")[2]
    if version.startswith(b"HTTP/") and version not in {b"HTTP/1.0", b"HTTP/1.1"}:
        return Refused(
            505, "this version of HTTP is not spoken here", expected="HTTP/1.1", got=version
        )
    return Refused(
        400, "the request line cannot be read", expected="METHOD target HTTP/1.1", got=line
    )
