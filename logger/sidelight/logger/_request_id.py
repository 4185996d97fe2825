"""The id by which the halves of an exchange meet: the caller's, or one of ours."""

import itertools
import re
import secrets
from typing import Final

import orjson

ID_HEADERS: Final = (b"\r\nx-request-id:", b"\r\nce-id:", b"\r\nseldon-puid:")
"""Where callers give ids, in the order of their weight; as ``header`` looks for them."""

# The id of an Open Inference Protocol body, when it comes first as the known clients write it.
_FIRST: Final = re.compile(rb'[ \t\r\n]*\{[ \t\r\n]*"id"[ \t\r\n]*:[ \t\r\n]*("[^"\\]{1,256}")')
_MAX_ID: Final = 256
# An id behind that much is not worth the time that the parsing takes from the traffic.
_MAX_SEARCHED_BYTES: Final = 64 * 1024
# The known clients write it before the tensors or behind them. To look between them as well would
# cost 7 us for 64 rows of 20 numbers, more than all the rest of a capture.
_EDGE_BYTES: Final = 1024


class RequestIds:
    """Make ids that are unique without a lock or a system call.

    Each is 72 random bits of this object, then a number.

    Examples
    --------
    >>> ids = RequestIds()
    >>> ids.new() != ids.new()
    True

    """

    def __init__(self) -> None:
        self._prefix = secrets.token_urlsafe(9).encode()
        self._numbers = itertools.count(1)

    def new(self) -> bytes:
        """Return the next id, ASCII."""
        return b"%b-%x" % (self._prefix, next(self._numbers))


def id_in_head(head: bytes, lowered: bytes) -> bytes:
    """Return the id that a head of HTTP/1.1 gives, stripped; empty when there is none.

    Parameters
    ----------
    head : bytes
        Raw, from the first line through the blank line.
    lowered : bytes
        The same in lower case.

    """
    for name in ID_HEADERS:
        if given := header(head, lowered, name):
            return given
    return b""


def id_in_body(body: bytes) -> bytes:
    """Return the id that a body of the Open Inference Protocol gives; empty when there is none.

    It is found in the first or last KiB of a body of at most 64 KiB, and as the first member of a
    longer one.
    """
    if not _may_have_id(body):
        return b""
    if match := _FIRST.match(body, 0, 512):
        try:
            orjson.loads(match[1])
        except orjson.JSONDecodeError:  # bytes that are no UTF-8, or control characters
            return b""
        return match[1][1:-1]
    return _searched(body) if len(body) <= _MAX_SEARCHED_BYTES else b""


def _may_have_id(body: bytes) -> bool:
    if len(body) <= 2 * _EDGE_BYTES:
        return b'"id"' in body
    return b'"id"' in body[:_EDGE_BYTES] or b'"id"' in body[-_EDGE_BYTES:]


def _searched(body: bytes) -> bytes:
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        return b""
    given = found.get("id") if isinstance(found, dict) else None
    if not isinstance(given, str) or not 0 < len(given) <= _MAX_ID:
        return b""
    is_usable = given.isprintable() and given == given.strip()
    return given.encode() if is_usable else b""


def header(head: bytes, lowered: bytes, name: bytes) -> bytes:
    r"""Return the first header of that name, stripped; empty when there is none.

    ``name`` is in lower case, with the line break before and the colon behind it.

    Examples
    --------
    >>> head = b"POST / HTTP/1.1\r\nX-Tenant: a\r\n\r\n"
    >>> header(head, head.lower(), b"\r\nx-tenant:")
    b'a'

    """
    start = lowered.find(name)
    if start < 0:
        return b""
    start += len(name)
    return head[start : head.find(b"\r\n", start)].strip(b" \t")
