"""Frames of gRPC: how messages stand one behind the other in a body of ``application/grpc``.

Reference: grpc/grpc, doc/PROTOCOL-HTTP2.md, "Length-Prefixed-Message".
"""

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

_HEAD: Final = struct.Struct(">BI")


class Frame(NamedTuple):
    """One message of a body; ``is_compressed`` with the encoding that the call's head names."""

    is_compressed: bool
    message: bytes


def frame(message: bytes) -> bytes:
    r"""Return a message, not compressed, behind its head.

    Examples
    --------
    >>> frame(b"abc")
    b'\x00\x00\x00\x00\x03abc'

    """
    return _HEAD.pack(0, len(message)) + message


def frames(body: bytes) -> Iterator[Frame]:
    r"""Yield the messages of a body.

    Raises
    ------
    ValueError
        When the body is not made of whole frames.

    Examples
    --------
    >>> [item.message for item in frames(frame(b"abc") + frame(b""))]
    [b'abc', b'']

    """
    position, end = 0, len(body)
    while position < end:
        start = position + _HEAD.size
        if start > end:
            raise ValueError(
                f"gRPC frame: expected a head of {_HEAD.size} bytes, got {end - position}"
            )
        flag, size = _HEAD.unpack_from(body, position)
        if flag > 1:
            raise ValueError(f"gRPC frame: expected a flag of 0 or 1, got {flag}")
        position = start + size
        if position > end:
            raise ValueError(f"gRPC frame: expected {size} bytes, got {end - start}")
        yield Frame(flag == 1, body[start:position])
