"""The head of the next request in what a client has sent so far."""

import re
from typing import Final

from sidelight.logger._http_head import Refused, RequestHead

_TOKEN_START: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ!#$%&'*+.^_`|~0123456789-")
# A method, and the scheme and authority of a target in absolute form (RFC 9110 4.2); bounded, since
# it is looked for again whenever more of a head has come.
_ABSOLUTE: Final = re.compile(
    rb"([A-Z!#$%&'*+.^_`|~0-9-]{1,32}+ )[Hh][Tt][Tt][Pp][Ss]?://"
    rb"[A-Za-z0-9._~!$&'()*+,;=:@%\[\]-]{1,512}+(?=[/? ])"
)


def in_origin_form(data: bytes) -> bytes:
    """Take scheme and authority out of the target of the request that the data begin with.

    A server takes such targets, too (RFC 9112 3.2.2), and what follows is all that tells what is
    asked for: there is one host here.

    Examples
    --------
    >>> in_origin_form(b"GET http://door:8090?a HTTP/1.1")
    b'GET /?a HTTP/1.1'

    """
    absolute = _ABSOLUTE.match(data)
    if absolute is None:
        return data
    rest = data[absolute.end() :]
    return absolute[1] + (rest if rest.startswith(b"/") else b"/" + rest)


def without_empty_lines(data: bytes) -> bytes:
    """Drop the empty lines before a request (RFC 9112 2.2)."""
    return data.lstrip(b"\r\n") if data.startswith(b"\r\n") else data


def read_head(data: bytes, bound: int) -> RequestHead | None:
    """Head of the request that the data begin with, None when it has not come to its end.

    Raises
    ------
    Refused
        If it is no valid head, cannot become one, or is longer than `bound` bytes.
    """
    end = data.find(b"\r\n\r\n", 0, bound) + 4
    if end >= 4:  # noqa: PLR2004 - found
        return RequestHead(data[:end])
    if len(data) >= bound:
        raise Refused(
            431,
            "the head of the request is too long",
            expected=f"at most {bound} bytes",
            hint="send long values in the body",
        )
    _check_beginning(data)
    return None


def _check_beginning(data: bytes) -> None:
    """Refuse what cannot become a request, so that nobody waits for the end of its head."""
    line_end = data.find(b"\n")
    broken = line_end == 0 or (line_end > 0 and data[line_end - 1] != 13)  # noqa: PLR2004 - CR
    if data and data[0] != 13 and (broken or data[0] not in _TOKEN_START):  # noqa: PLR2004 - CR
        raise Refused(
            400,
            "this is no HTTP/1.1 request",
            expected="METHOD target HTTP/1.1, lines that end with CR LF",
            hint="TLS and HTTP/2 are not spoken here",
        )
