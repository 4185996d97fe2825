"""Heads of requests and responses: refused when ambiguous, understood once, forwarded as they came.

A head is checked by llhttp (through httptools, without callbacks) and looked through by one
regular expression for the few headers that matter to a relay. Everything else stays raw bytes.
"""

import re
from typing import Final

import httptools

from sidelight.logger._http import problem
from sidelight.logger.errors import LoggerError

CHUNKED: Final = -1
"""Length of a body that comes in chunks."""

UNTIL_CLOSE: Final = -2
"""Length of a response that ends with its connection."""

_REQUEST_LINE: Final = re.compile(rb"([A-Z!#$%&'*+.^_`|~0-9-]+) ([\x21-\x7e]+) HTTP/1\.([01])\r\n")
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: [^\r\n]*)?\r\n")

# The headers that change how a message is framed or forwarded; searched in a head in lower case.
_SPECIAL: Final = re.compile(
    rb"\r\n(connection|proxy-connection|keep-alive|te|transfer-encoding|upgrade"
    rb"|content-length|expect|host):[ \t]*([^\r\n]*)"
)

# RFC 9110 7.6.1. Transfer-Encoding belongs to them, but the chunks are passed on, so it stays.
_HOP_BY_HOP: Final = frozenset(
    {b"connection", b"proxy-connection", b"keep-alive", b"te", b"upgrade"}
)

# Connection may not name these: without them the next hop would frame or route another message.
_NEVER_DROPPED: Final = frozenset({b"content-length", b"transfer-encoding", b"host", b"trailer"})

_SAFE_TO_REPEAT: Final = frozenset({b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE", b"TRACE"})

# RFC 9110 6.4.1: responses that end with their head, whatever it says.
_BODILESS: Final = frozenset({204, 304})

_HTTP_1_0: Final = b"0"


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
        special = _SPECIAL.findall(raw.lower())
        self.length = _request_length(special, is_http_10=self.is_http_10)
        options = _connection_options(special)
        self.keep_alive = b"keep-alive" in options if self.is_http_10 else b"close" not in options
        names = [name for name, _ in special]
        _check_host(names, is_http_10=self.is_http_10)
        self.upgrades = b"upgrade" in options and b"upgrade" in names and not self.is_http_10
        self.expects_continue = not self.is_http_10 and (b"expect", b"100-continue") in special
        self.is_repeatable = self.method in _SAFE_TO_REPEAT
        self.forward = self._forwarded(names, options)

    def _forwarded(self, names: list[bytes], options: set[bytes]) -> bytes:
        if self.upgrades:
            # RFC 9110 7.8: what it takes to switch is named in Connection, so all of it goes on.
            return self.raw
        raw = without_hop_by_hop(self.raw, names, options)
        if self.is_http_10:
            # RFC 9112 2.3: an intermediary sends its own version, and 1.1 demands a Host.
            raw = raw.replace(b" HTTP/1.0\r\n", b" HTTP/1.1\r\n", 1)
            if b"host" not in names:
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
    """

    __slots__ = ("forward", "keep_alive", "length", "raw", "status")

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
        special = _SPECIAL.findall(raw.lower())
        options = _connection_options(special)
        keep = b"keep-alive" in options if minor == _HTTP_1_0 else b"close" not in options
        self.length = self._length(special)
        self.keep_alive = keep and self.length != UNTIL_CLOSE
        names = [name for name, _ in special]
        if self.status != 101:  # noqa: PLR2004 - Switching Protocols: all that it takes goes on
            raw = without_hop_by_hop(raw, names, options)
        if self.length == CHUNKED and b"content-length" in names:
            # RFC 9112 6.3: the chunks count, and the length must not travel on.
            raw = without_headers(raw, frozenset({b"content-length"}))
        if minor == _HTTP_1_0:
            raw = b"HTTP/1.1" + raw[8:]
        self.forward = raw

    def _length(self, special: list[tuple[bytes, bytes]]) -> int:
        if self.status < 200 or self.status in _BODILESS:  # noqa: PLR2004 - interim responses
            return 0
        codings = [value for name, value in special if name == b"transfer-encoding"]
        if codings:
            is_chunked = codings[-1].rstrip(b" \t").endswith(b"chunked")
            return CHUNKED if is_chunked else UNTIL_CLOSE
        lengths = {value.rstrip(b" \t") for name, value in special if name == b"content-length"}
        if not lengths:
            return UNTIL_CLOSE
        length = lengths.pop()
        if lengths or not length.isdigit() or len(length) > 18:  # noqa: PLR2004 - fits 64 bits
            raise Refused(
                502,
                "the upstream's answer has no certain length",
                expected="one Content-Length of digits",
                got=length,
            )
        return int(length)


def without_hop_by_hop(raw: bytes, names: list[bytes], options: set[bytes]) -> bytes:
    """Head without the headers that are meant for one hop (RFC 9110 7.6.1).

    Parameters
    ----------
    raw : bytes
        Valid head.
    names : list of bytes
        Names, in lower case, of the special headers it has.
    options : set of bytes
        Members of Connection, in lower case.
    """
    if not options and _HOP_BY_HOP.isdisjoint(names):
        return raw
    return without_headers(raw, _HOP_BY_HOP | (options - _NEVER_DROPPED))


def without_headers(raw: bytes, dropped: frozenset[bytes]) -> bytes:
    """Head without the headers of these names (lower case)."""
    lines = raw.split(b"\r\n")
    kept = [line for line in lines[1:] if line.partition(b":")[0].lower() not in dropped]
    return b"\r\n".join([lines[0], *kept])


def _connection_options(special: list[tuple[bytes, bytes]]) -> set[bytes]:
    options: set[bytes] = set()
    for name, value in special:
        if name == b"connection":
            options.update(option.strip(b" \t") for option in value.split(b","))
    options.discard(b"")
    return options


def _request_length(special: list[tuple[bytes, bytes]], *, is_http_10: bool) -> int:
    for name, value in special:
        if name == b"content-length":
            return int(value)
        if name == b"transfer-encoding":
            if is_http_10:
                raise Refused(
                    400,
                    "HTTP/1.0 has no Transfer-Encoding",
                    expected="Content-Length",
                    got=value,
                )
            if value.rstrip(b" \t") != b"chunked":
                raise Refused(
                    501,
                    "this Transfer-Encoding is not supported",
                    expected="chunked",
                    got=value,
                )
            return CHUNKED
    return 0


def _check_host(names: list[bytes], *, is_http_10: bool) -> None:
    hosts = names.count(b"host")
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
