"""Heads in the form of HTTP/1.1 for calls of gRPC, so that ids and marks are read in one place."""

import base64
from collections.abc import Iterable
from typing import Final

Metadata = Iterable[tuple[str, str | bytes]]

PROTOBUF: Final = b"application/protobuf"
FRAMED: Final = b"application/grpc"
REQUEST_ID: Final = "x-request-id"
ID_KEYS: Final = (REQUEST_ID, "ce-id", "seldon-puid")
"""Metadata that gives the id of a request, in the order of their weight."""

# They describe the transport of the call, not the message that is kept.
_UNKEPT: Final = frozenset(
    {"content-type", "content-encoding", "content-length", "transfer-encoding", "te"}
)


def request_head(target: bytes, metadata: Metadata, *, is_one_of_many: bool = False) -> bytes:
    r"""Return the head of a request.

    Parameters
    ----------
    target : bytes
        Path, maybe with a query.
    metadata : iterable of (str, str or bytes)
        Of the call; binary values are written in base64, as they are on the wire.
    is_one_of_many : bool, default False
        Whether the call has more messages than this: an id in the metadata is not its own then,
        and is left out.

    Examples
    --------
    >>> request_head(b"/a.B/C", [("x-tenant", "red")])
    b'POST /a.B/C HTTP/1.1\r\ncontent-type: application/protobuf\r\nx-tenant: red\r\n\r\n'

    """
    left_out = ID_KEYS if is_one_of_many else ()
    lines = [b"POST %b HTTP/1.1" % target, b"content-type: " + PROTOBUF]
    lines += [_line(key, value) for key, value in metadata if key not in left_out and _kept(key)]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def response_head(status: int, code: int, metadata: Metadata, *, media: bytes = PROTOBUF) -> bytes:
    """Return the head of an answer; ``code`` is gRPC's and stands in ``grpc-status``."""
    lines = [b"HTTP/1.1 %d" % status, b"content-type: " + media, b"grpc-status: %d" % code]
    lines += [_line(key, value) for key, value in metadata if _kept(key)]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def given_id(metadata: Metadata) -> bytes:
    """Return the id that the caller gives in the metadata; empty when there is none."""
    found = {key: value for key, value in metadata if key in ID_KEYS}
    for key in ID_KEYS:
        value = found.get(key, "")
        if isinstance(value, str) and (stripped := value.strip()):
            return _encoded(stripped)
    return b""


def _kept(key: str) -> bool:
    return key not in _UNKEPT and not key.startswith((":", "grpc-accept", "grpc-encoding"))


def _line(key: str, value: str | bytes) -> bytes:
    if isinstance(value, bytes):
        return _encoded(key) + b": " + base64.b64encode(value)
    # gRPC lets no line break pass; one made up by a servicer must not become another header.
    return _encoded(key) + b": " + _encoded(value).replace(b"\r", b" ").replace(b"\n", b" ")


def _encoded(text: str) -> bytes:
    return text.encode("latin-1", "replace")
