"""What a status code of gRPC is over HTTP, so that errors are found by one number."""

from typing import Final

OK: Final = 0
CANCELLED: Final = 1
UNKNOWN: Final = 2
DEADLINE_EXCEEDED: Final = 4

# google/rpc/code.proto; 499 is nginx's, as in the HTTP proxy.
_HTTP: Final = (
    *(200, 499, 500, 400, 504, 404, 409, 403),
    *(429, 400, 409, 400, 501, 500, 503, 500, 401),
)


def http_status(code: int) -> int:
    """Return the status of HTTP that stands for a code of gRPC; 500 for one that does not exist.

    Examples
    --------
    >>> http_status(0), http_status(5), http_status(14)
    (200, 404, 503)

    """
    return _HTTP[code] if 0 <= code < len(_HTTP) else 500
