"""What pairing remembers of one inference: a few packed bytes."""

import struct
from typing import Final, Literal, NamedTuple, Self

from sidelight.payloads import RawRef

Side = Literal["request", "response"]

_HEADER: Final = struct.Struct("<BHq")
_DIGEST_BYTES: Final = 8
_REF: Final = struct.Struct("<IQI")
_REQUEST: Final = 1
_RESPONSE: Final = 2
_STORED: Final = 4
_HALF_BYTES: Final = _DIGEST_BYTES + _REF.size
_WHOLE: Final = struct.Struct("<BHq8sIQI8sIQI")
# What is remembered for ever, in 24 bytes: of a whole inference nobody asks where its halves are.
_REMEMBERED_WHOLE: Final = struct.Struct("<BB8s8s6x")
_REMEMBERED_HALF: Final = struct.Struct("<BB8sHQI")
_NOWHERE: Final = RawRef(partition=0, position=0, index=0)


class Half(NamedTuple):
    """One half: 8 bytes that stand for its data, and where it is kept."""

    digest: bytes
    ref: RawRef


class PairState(NamedTuple):
    """Which halves of an inference came, and whether it was handed on.

    Parameters
    ----------
    request, response : Half or None
        The halves that came.
    is_stored : bool
        False while the first half waits for the second; then True, complete or as an orphan.
    revision : int
        Of the next time that the inference is handed on, if ever.
    received_ns : int
        Receive time of the first half.

    """

    request: Half | None
    response: Half | None
    is_stored: bool
    revision: int
    received_ns: int

    @property
    def alone(self) -> Side | None:
        """The half that is there when the other is not."""
        if self.request and self.response:
            return None
        return "request" if self.request else "response"

    def half(self, side: Side) -> Half | None:
        """Return one of the halves."""
        return self.request if side == "request" else self.response

    def pack(self) -> bytes:
        """Return the value for the committed state: 35 bytes for one half, 59 for two."""
        flags = _STORED if self.is_stored else 0
        if self.request and self.response:
            # Most are complete, and one call is a third of many.
            (request, asked), (response, answered) = self.request, self.response
            return _WHOLE.pack(
                *(flags | _REQUEST | _RESPONSE, self.revision, self.received_ns),
                *(request, asked.partition, asked.position, asked.index),
                *(response, answered.partition, answered.position, answered.index),
            )
        parts = [b""]
        for bit, half in ((_REQUEST, self.request), (_RESPONSE, self.response)):
            if half:
                flags |= bit
                ref = half.ref
                parts.append(half.digest + _REF.pack(ref.partition, ref.position, ref.index))
        parts[0] = _HEADER.pack(flags, self.revision, self.received_ns)
        return b"".join(parts)

    def remember(self) -> bytes:
        """Return the 24 bytes that are kept for ever of an inference that was handed on."""
        if self.request and self.response:
            return remember_whole(self.revision, self.request.digest, self.response.digest)
        half = self.request or self.response
        if half is None:
            return _REMEMBERED_HALF.pack(_STORED, self.revision, b"", 0, 0, 0)
        flags = _STORED | (_REQUEST if self.request else _RESPONSE)
        ref = half.ref
        place = (ref.partition, ref.position, ref.index)
        return _REMEMBERED_HALF.pack(flags, self.revision, half.digest, *place)

    @classmethod
    def recall(cls, value: bytes) -> Self:
        """Read what ``remember`` wrote; its receive time, and places of a whole one, are gone."""
        flags = value[0]
        if flags & _REQUEST and flags & _RESPONSE:
            _, revision, asked, answered = _REMEMBERED_WHOLE.unpack(value)
            return cls(
                Half(asked, _NOWHERE),
                Half(answered, _NOWHERE),
                is_stored=True,
                revision=revision,
                received_ns=0,
            )
        _, revision, digest, partition, position, index = _REMEMBERED_HALF.unpack(value)
        half = Half(digest, RawRef(partition=partition, position=position, index=index))
        request = half if flags & _REQUEST else None
        response = half if flags & _RESPONSE else None
        return cls(request, response, is_stored=True, revision=revision, received_ns=0)

    @classmethod
    def unpack(cls, value: bytes) -> Self:
        """Read what ``pack`` wrote."""
        flags, revision, received_ns = _HEADER.unpack_from(value)
        place = _HEADER.size
        request = response = None
        if flags & _REQUEST:
            request = _half(value, place)
            place += _HALF_BYTES
        if flags & _RESPONSE:
            response = _half(value, place)
        return cls(request, response, bool(flags & _STORED), revision, received_ns)


def remember_whole(revision: int, request: bytes, response: bytes) -> bytes:
    """Return what ``remember`` does of an inference whose halves have these digests."""
    return _REMEMBERED_WHOLE.pack(_STORED | _REQUEST | _RESPONSE, revision, request, response)


def _half(value: bytes, place: int) -> Half:
    partition, position, index = _REF.unpack_from(value, place + _DIGEST_BYTES)
    digest = value[place : place + _DIGEST_BYTES]
    return Half(digest, RawRef(partition=partition, position=position, index=index))
