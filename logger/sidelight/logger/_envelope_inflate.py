"""Decompression that a sender cannot turn into a flood."""

import zlib
from typing import Final

from sidelight.logger._step_memory import spend

GZIP_MAGIC: Final = b"\x1f\x8b"

# zlib's window bits: gzip header, zlib header, neither (some senders call that deflate).
_GZIP: Final = 31
_ZLIB: Final = 15
_BARE: Final = -15

# Members of one gzip body. Each costs a copy of what is left, so their number is bounded too.
_MAX_MEMBERS: Final = 64


class InflateError(ValueError):
    """The bytes are damaged, cut short, or would inflate beyond the bound.

    ``reason`` is one word for a counter: ``damaged``, ``truncated`` or ``too_large``.
    """

    def __init__(self, reason: str, expected: str, got: str) -> None:
        super().__init__(f"compressed body: expected {expected}, got {got}")
        self.reason = reason
        self.expected = expected
        self.got = got


def gunzip(data: bytes, *, max_bytes: int) -> bytes:
    """Inflate a gzip body of one or more members to at most ``max_bytes``.

    Raises
    ------
    InflateError
        When the body is damaged, ends early, or is larger inflated than ``max_bytes``.

    Examples
    --------
    >>> import gzip
    >>> gunzip(gzip.compress(b"[1, 2]"), max_bytes=100)
    b'[1, 2]'

    """
    return _inflate(data, _GZIP, max_bytes)


def inflate(data: bytes, coding: str, *, max_bytes: int) -> bytes:
    """Undo a Content-Encoding of HTTP: ``gzip``, ``x-gzip``, ``deflate`` or ``identity``.

    Raises
    ------
    InflateError
        As ``gunzip``, and for codings that are not supported (``reason`` is ``coding``).

    """
    match coding.strip().lower():
        case "" | "identity":
            return data
        case "gzip" | "x-gzip":
            return _inflate(data, _GZIP, max_bytes)
        case "deflate":
            # RFC 9110 8.4.1.2 means zlib; some senders leave its header out.
            is_zlib = len(data) > 1 and data[0] & 15 == 8 and (data[0] << 8 | data[1]) % 31 == 0  # noqa: PLR2004 - RFC 1950 2.2
            return _inflate(data, _ZLIB if is_zlib else _BARE, max_bytes)
    raise InflateError("coding", "gzip, deflate or identity", coding[:40])


def inflated_json(body: bytes, coding: str, *, max_bytes: int) -> bytes:
    """Undo the Content-Encoding of JSON; gzip is known by its magic where nothing is stated.

    Raises
    ------
    InflateError
        As ``inflate``.

    """
    if not coding and body.startswith(GZIP_MAGIC):
        coding = "gzip"
    return inflate(body, coding, max_bytes=max_bytes)


def _inflate(data: bytes, window_bits: int, max_bytes: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    rest = data
    while rest:
        if len(parts) == _MAX_MEMBERS:
            raise InflateError("damaged", f"at most {_MAX_MEMBERS} gzip members", "more")
        engine = zlib.decompressobj(window_bits)
        try:
            part = engine.decompress(rest, max_bytes - size + 1)
        except zlib.error as error:
            raise InflateError("damaged", "a complete stream", str(error)) from None
        size += len(part)
        if size > max_bytes:
            raise InflateError("too_large", f"at most {max_bytes} bytes inflated", "more")
        spend(len(part))
        if not engine.eof:
            raise InflateError("truncated", "a complete stream", f"its first {len(data)} bytes")
        parts.append(part)
        rest = engine.unused_data if window_bits == _GZIP else b""
    if not parts:
        raise InflateError("truncated", "a complete stream", "0 bytes")
    return parts[0] if len(parts) == 1 else b"".join(parts)
