"""An answer of the upstream on its way to the client: read, and framed for who reads it."""

from collections.abc import Callable
from typing import Final

from sidelight.logger._http_chunks import Chunks
from sidelight.logger._http_head import (
    CHUNKED,
    UNTIL_CLOSE,
    Refused,
    RequestHead,
    ResponseHead,
)
from sidelight.logger._http_special import without_headers
from sidelight.logger._upstream_link import Link

Identify = Callable[[ResponseHead], bytes]
"""Gives the id that the client is told in the head of its answer; empty for none."""

_SWITCHING_PROTOCOLS: Final = 101
_FIRST_FINAL: Final = 200
_NOTHING: Final[list[bytes]] = []
_VERSION: Final = b"HTTP/1."
_CR: Final = 13


class Answer:
    """Reads one answer after the other.

    Attributes
    ----------
    head : ResponseHead or None
        Of the final answer, once it has come; its beginning is on the way to the client then.
    heard : bool
        Whether the upstream has sent anything, an interim answer or half a head.
    ended : bool
        Whether the answer is whole.
    ends_with_connection : bool
        Whether only the end of the connection ends it.
    client_keep_alive, link_keep_alive : bool
        Whether the connections may be used again after it.
    """

    __slots__ = (
        "_chunks",
        "_held",
        "_identify",
        "_left",
        "_request",
        "_unframe",
        "client_keep_alive",
        "ended",
        "ends_with_connection",
        "head",
        "heard",
        "link_keep_alive",
    )

    _request: RequestHead

    def __init__(self) -> None:
        self.head: ResponseHead | None = None
        self.heard = False
        self.ended = False
        self.ends_with_connection = False
        self.client_keep_alive = False
        self.link_keep_alive = False
        self._identify: Identify | None = None
        self._held = b""
        self._left = 0
        self._chunks: Chunks | None = None
        self._unframe = False

    def reset(self, request: RequestHead, identify: Identify | None) -> None:
        """Await the answer to a request; with `identify`, its head can tell the client an id."""
        self._request = request
        self._identify = identify
        self.head = None
        self.heard = False
        self.ended = False
        self.ends_with_connection = False
        self._held = b""
        self._chunks = None

    def feed(
        self, data: bytes, link: Link, *, may_keep: bool, max_head_bytes: int
    ) -> tuple[bytes, list[bytes]]:
        """Read on.

        Parameters
        ----------
        data : bytes
            What the upstream sent.
        link : Link
            Its connection, which remembers the head before.
        may_keep : bool
            Whether the client's connection could be used again.
        max_head_bytes : int
            Bound of a head.

        Returns
        -------
        out : bytes
            For the client.
        parts : list of bytes
            The body's own bytes in it.

        Raises
        ------
        Refused
            If it is no valid answer.
        """
        if self.head is not None:
            return self._body(data)
        if self._held:
            data = self._held + data
            self._held = b""
        head = link.last_head
        out = b""
        if head is None or not data.startswith(head.raw):
            head, out, data = self._read_heads(data, max_head_bytes)
            if head is None:
                return out, _NOTHING
            link.last_head = head
        self.head = head
        size = len(head.raw)
        request = self._request
        length = 0 if request.method == b"HEAD" else head.length
        if length == len(data) - size and may_keep and not request.is_http_10 and not out:
            self.ended = True
            self.client_keep_alive = True
            self.link_keep_alive = head.keep_alive
            body = data[size:]
            forward = head.forward if self._identify is None else self._identified(head)
            whole = data if forward is head.raw else forward + body
            return whole, [body] if body else _NOTHING
        out += self._begin(head, length, may_keep=may_keep)
        framed, parts = self._body(data[size:])
        return out + framed, parts

    def _read_heads(
        self, data: bytes, max_head_bytes: int
    ) -> tuple[ResponseHead | None, bytes, bytes]:
        self.heard = True
        out = b""
        while True:
            end = data.find(b"\r\n\r\n", 0, max_head_bytes) + 4
            if end < 4:  # noqa: PLR2004 - not found
                if len(data) >= max_head_bytes:
                    raise Refused(
                        502,
                        "the head of the upstream's answer is too long",
                        expected=f"at most {max_head_bytes} bytes",
                    )
                _check_beginning(data)
                self._held = data
                return None, out, b""
            head = ResponseHead(data[:end])
            if head.status >= _FIRST_FINAL:
                return head, out, data
            if head.status == _SWITCHING_PROTOCOLS:
                if not self._request.upgrades:
                    raise Refused(502, "the upstream switched to a protocol nobody asked for")
                return head, out, data
            if not self._request.is_http_10:
                out += head.forward
            data = data[end:]

    def _identified(self, head: ResponseHead) -> bytes:
        request_id = self._identify(head) if self._identify is not None else b""
        return head.with_request_id(request_id) if request_id else head.forward

    def _begin(self, head: ResponseHead, length: int, *, may_keep: bool) -> bytes:
        request = self._request
        is_switch = head.status == _SWITCHING_PROTOCOLS
        out = head.forward if is_switch else self._identified(head)
        self.link_keep_alive = head.keep_alive
        self._unframe = request.is_http_10 and head.length == CHUNKED
        if self._unframe:
            out = without_headers(out, frozenset({b"transfer-encoding", b"trailer"}))
        self._left = length
        self._chunks = Chunks() if length == CHUNKED else None
        self.ends_with_connection = length == UNTIL_CLOSE
        keep = may_keep and length != UNTIL_CLOSE and not (self._unframe and length)
        self.client_keep_alive = keep
        if is_switch:
            return out
        if not keep:
            return out[:-2] + b"Connection: close\r\n\r\n"
        if request.is_http_10:
            return out[:-2] + b"Connection: keep-alive\r\n\r\n"
        return out

    def _body(self, data: bytes) -> tuple[bytes, list[bytes]]:
        chunks = self._chunks
        if chunks is not None:
            framed, parts = chunks.feed(data)
            self.ended = chunks.ended
            if chunks.rest:
                self.link_keep_alive = False
            return (b"".join(parts) if self._unframe else framed), parts
        if self.ends_with_connection:
            return data, [data]
        if self.head is not None and self.head.status == _SWITCHING_PROTOCOLS:
            self.ended = True
            return data, _NOTHING
        left = self._left
        if len(data) > left:
            # More than was announced: whatever it is, it answers nothing that was asked.
            self.link_keep_alive = False
            data = data[:left]
        self._left = left - len(data)
        self.ended = self._left == 0
        return data, [data]


def _check_beginning(data: bytes) -> None:
    """Refuse what cannot become the head of an answer, so that nobody waits for its end."""
    line_end = data.find(b"\n")
    is_bare = line_end >= 0 and data[line_end - 1] != _CR
    if is_bare or not _VERSION.startswith(data[: len(_VERSION)]):
        raise Refused(
            502,
            "the upstream's answer is not HTTP/1.1",
            expected="a status line, lines that end with CR LF",
        )
