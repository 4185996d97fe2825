"""gRPC's framing around the one message of a unary call."""

from sidelight.adapters.dialects._encodings import coding_of, inflated
from sidelight.adapters.dialects._half import Undecodable
from sidelight.logger._grpc_frames import frames


def unframed(data: bytes, *, max_bytes: int) -> bytes:
    """Return the message of a body, which may stand in a frame or bare.

    Raises
    ------
    Undecodable
        When there are several, or the message is damaged or larger inflated than ``max_bytes``.

    """
    # No field has the number 0: a message cannot begin like a frame.
    if data[:1] not in {b"\x00", b"\x01"}:
        return data
    try:
        parts = list(frames(data))
    except ValueError:
        raise Undecodable("not_protobuf") from None
    if len(parts) != 1:
        raise Undecodable("frames")
    message, is_compressed = parts[0].message, parts[0].is_compressed
    if not is_compressed:
        return message
    # The frame does not say how: gzip is known by its magic, and zlib is what else gRPC has.
    return inflated(message, coding_of(message, "deflate"), max_bytes=max_bytes)
