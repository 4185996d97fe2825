"""What a service behind an HTTP connection sees: requests, answers and problem documents."""

import json
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Final, Protocol

Respond = Callable[[bytes], None]
"""Takes the whole HTTP response as bytes; called once, maybe later, on the loop."""

# A problem document quotes what was got, but never at length.
_QUOTE_CHARS: Final = 200

# RFC 9110 15.3.5 and 15.4.5: these never have a body, nor (204) a Content-Length.
_BODILESS: Final = frozenset({204, 304})

_STATUS_LINES: Final = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus
}


class Request:
    """One request whose body was collected.

    Attributes
    ----------
    method : bytes
        As sent.
    target : bytes
        As sent, with the query.
    head : bytes
        Raw, from the request line through the blank line.
    body : bytes
        Whole, without the framing of a chunked transfer.
    route : bytes
        The target without its query.
    """

    __slots__ = ("_folded", "body", "head", "method", "route", "target")

    def __init__(self, method: bytes, target: bytes, head: bytes, body: bytes) -> None:
        self.method = method
        self.target = target
        self.head = head
        self.body = body
        self.route = target.partition(b"?")[0]
        self._folded = b""

    def header(self, name: bytes) -> bytes | None:
        """Value of the first header of this name, without the blanks around it.

        Parameters
        ----------
        name : bytes
            Any case.

        Returns
        -------
        bytes or None
            None when there is no such header; empty when it has no value.
        """
        folded = self._folded
        if not folded:
            folded = self._folded = self.head.lower()
        return find_header(self.head, folded, name.lower())


class Service(Protocol):
    """What decides about requests and answers those that it collects."""

    def admit(self, method: bytes, target: bytes, head: bytes) -> int | bytes | None:
        """Decide by the head alone what becomes of a request.

        Returns
        -------
        int or bytes or None
            A number: collect the body, up to that many bytes, then call `handle`. Bytes: refuse
            at once with this response. None: relay to the upstream, streaming.
        """
        ...

    def handle(self, request: Request, respond: Respond) -> None:
        """Answer a collected request, now or later, by calling `respond` once."""
        ...


def find_header(head: bytes, folded: bytes, name: bytes) -> bytes | None:
    """Value of the first header `name` (lower case) of `head`; `folded` is the head in lower case.

    Valid heads only: without folded lines and without blanks before a colon, a name that follows
    a line end and is followed by a colon is a header's.
    """
    start = folded.find(b"\r\n" + name + b":")
    if start < 0:
        return None
    start += len(name) + 3
    return head[start : head.find(b"\r\n", start)].strip(b" \t")


def response(
    status: int,
    *,
    body: bytes = b"",
    content_type: bytes = b"",
    headers: Sequence[tuple[bytes, bytes]] = (),
) -> bytes:
    r"""Build a whole HTTP response.

    Parameters
    ----------
    status : int
        Status code, 200..599.
    body : bytes, default empty
        Sent with its Content-Length; left out for 204 and 304.
    content_type : bytes, default empty
        Left out when empty.
    headers : sequence of (bytes, bytes)
        Further headers, written as they are.

    Examples
    --------
    >>> response(200, body=b"ok", content_type=b"text/plain")
    b'HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nok'
    """
    line = _STATUS_LINES.get(status)
    parts = [line if line is not None else b"HTTP/1.1 %d \r\n" % status]
    if content_type:
        parts.append(b"content-type: " + content_type + b"\r\n")
    parts.extend(name + b": " + value + b"\r\n" for name, value in headers)
    if status in _BODILESS:
        parts.append(b"\r\n")
    else:
        parts.append(b"content-length: %d\r\n\r\n" % len(body))
        parts.append(body)
    return b"".join(parts)


def problem(
    status: int,
    detail: str,
    *,
    expected: str | None = None,
    got: bytes | str | None = None,
    hint: str | None = None,
    headers: Sequence[tuple[bytes, bytes]] = (),
) -> bytes:
    """Build a response with a problem document (RFC 9457).

    Parameters
    ----------
    status : int
        Status code, 400..599; its phrase becomes the title.
    detail : str
        What is wrong with this request.
    expected, hint : str, optional
        What would have been right, and what to do.
    got : bytes or str, optional
        What came instead; cut at 200 characters. The document is ASCII with everything else
        escaped, so nothing of a request is echoed raw.
    headers : sequence of (bytes, bytes)
        Further headers, for example ``(b"retry-after", b"1")``.
    """
    document: dict[str, str | int] = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
    }
    if expected is not None:
        document["expected"] = expected
    if got is not None:
        text = got.decode("latin-1") if isinstance(got, bytes) else got
        document["got"] = text[:_QUOTE_CHARS]
    if hint is not None:
        document["hint"] = hint
    # "<" is escaped as well: a document that a browser is talked into reading as HTML stays text.
    body = json.dumps(document).replace("<", "\\u003c").encode()
    return response(status, body=body, content_type=b"application/problem+json", headers=headers)
