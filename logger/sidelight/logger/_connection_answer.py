"""Answers of ours, fitted to who asked."""

from sidelight.logger._http_head import RequestHead


def for_client(payload: bytes, head: RequestHead, *, keep_alive: bool) -> tuple[bytes, bool]:
    """Fit a whole response to the request that it answers.

    Parameters
    ----------
    payload : bytes
        The response, as `response` builds it.
    head : RequestHead
        Of the request: HEAD gets no body, HTTP/1.0 is told what becomes of the connection.
    keep_alive : bool
        Whether the connection can be used again.

    Returns
    -------
    (bytes, bool)
        What to send, and whether the connection can still be used again: the response may say
        that it ends.
    """
    end = payload.find(b"\r\n\r\n") + 2
    if payload.find(b"\r\nconnection: close\r\n", 0, end) >= 0:
        keep_alive = False
    elif not keep_alive:
        payload = with_header(payload, b"connection: close")
    elif head.is_http_10:
        payload = with_header(payload, b"connection: keep-alive")
    if head.method == b"HEAD":
        payload = payload[: payload.find(b"\r\n\r\n") + 4]
    return payload, keep_alive


def with_header(payload: bytes, line: bytes) -> bytes:
    """Response with one more header, the last."""
    end = payload.find(b"\r\n\r\n") + 2
    return payload[:end] + line + b"\r\n" + payload[end:]
