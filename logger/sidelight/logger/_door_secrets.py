"""What of a request is not kept in the archive: the secret of its sender."""

import re
from typing import Final

from sidelight.logger._http import Request

# The secret behind the public part of a token; that part stays, so that an audit knows the sender.
_SECRET: Final = re.compile(rb"(sl_[0-9a-f]{12})_[A-Za-z0-9_-]+")
# Basic credentials hide the token in base64.
_BASIC: Final = re.compile(rb"(\r\nauthorization:[ \t]*basic)[^\r\n]*", re.IGNORECASE)


def without_secrets(request: Request) -> Request:
    r"""Return a request of whose tokens only the public part is left.

    Examples
    --------
    >>> head = b"POST /events/sl_0123456789ab_c2VjcmV0 HTTP/1.1\r\n\r\n"
    >>> without_secrets(Request(b"POST", b"/events/sl_0123456789ab_c2VjcmV0", head, b"")).head
    b'POST /events/sl_0123456789ab HTTP/1.1\r\n\r\n'

    """
    head = head_without_secrets(request.head)
    if head == request.head:
        return request
    return Request(request.method, _SECRET.sub(rb"\1", request.target), head, request.body)


def head_without_secrets(head: bytes) -> bytes:
    """Return a head in which of tokens only the public part is left."""
    # Both looks are quick, and most heads have none.
    if b"sl_" in head:
        head = _SECRET.sub(rb"\1", head)
    if b"\r\nauthorization:" in head.lower():
        head = _BASIC.sub(rb"\1", head)
    return head
