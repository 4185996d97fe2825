"""Compressed payloads, known by what the sender says or by their first bytes."""

from typing import Final

import pyarrow as pa

from sidelight.adapters.dialects._half import Undecodable
from sidelight.logger import GZIP_MAGIC, InflateError, inflate, spend

_ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"
# Codings beyond those of the envelope, by the name that Arrow has for them.
_STREAMS: Final = {"zstd": "zstd", "br": "brotli"}


def coding_of(data: bytes, stated: str) -> str:
    """Return the coding of a body: its magic bytes win over what was stated.

    Examples
    --------
    >>> coding_of(bytes.fromhex("1f8b08"), "identity")
    'gzip'

    """
    if data[:2] == GZIP_MAGIC:
        return "gzip"
    return "zstd" if data[:4] == _ZSTD_MAGIC else stated.strip().lower()


def inflated(data: bytes, coding: str, *, max_bytes: int) -> bytes:
    """Undo a coding.

    Raises
    ------
    Undecodable
        When the body is damaged, is larger inflated than ``max_bytes``, or the coding is unknown.

    """
    if name := _STREAMS.get(coding):
        return _streamed(data, name, max_bytes)
    try:
        return inflate(data, coding, max_bytes=max_bytes)
    except InflateError as error:
        raise Undecodable(f"encoding_{error.reason}") from None


def _streamed(data: bytes, name: str, max_bytes: int) -> bytes:
    try:
        with pa.CompressedInputStream(pa.BufferReader(data), name) as stream:
            text: bytes = stream.read(max_bytes + 1)
    except (OSError, ValueError):
        raise Undecodable("encoding_damaged") from None
    if len(text) > max_bytes:
        raise Undecodable("encoding_too_large")
    spend(len(text))
    return text
