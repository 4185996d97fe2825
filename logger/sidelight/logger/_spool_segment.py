"""The bytes of the spool: whatever was damaged, a record is found again or known to be lost."""

import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

_MAGIC: Final = b"\xf5SpL"
_BODY: Final = struct.Struct("<4sIQI")
_CHECK: Final = struct.Struct("<I")
HEADER_BYTES: Final = _BODY.size + _CHECK.size


@dataclass(frozen=True, slots=True)
class SpoolRecord:
    """One record with its number; numbers have no gaps, so a gap counts what is lost."""

    number: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Found:
    """A record of which at least the header is sound.

    Parameters
    ----------
    number : int
        Of the record.
    start, end : int
        Its bytes, header included; ``end`` lies behind the end of a torn segment.
    is_sound : bool
        Whether the payload is whole and unchanged.

    """

    number: int
    start: int
    end: int
    is_sound: bool


def encode(payloads: Sequence[bytes], *, first: int, salt: int) -> bytes:
    """Return records numbered from ``first`` as they stand in a segment.

    A record is a header of 24 bytes and the payload; the header (magic, length, number, CRC-32 of
    the payload) has a CRC-32 of its own, so that a wrong length is not followed. All checksums
    begin with ``salt``, which is random for each segment: a payload cannot hold bytes that pass
    for a record when the reader looks for the next one behind a damage.
    """
    parts: list[bytes] = []
    for number, payload in enumerate(payloads, first):
        body = _BODY.pack(_MAGIC, len(payload), number, zlib.crc32(payload, salt))
        parts += (body, _CHECK.pack(zlib.crc32(body, salt)), payload)
    return b"".join(parts)


def scan(segment: bytes, *, salt: int) -> Iterator[Found]:
    """Yield the records of a segment in rising order of their numbers.

    Stretches without a sound header are stepped over. The length in a header is trusted only when
    the payload is sound as well: bytes may have been cut out.
    """
    offset, lowest = 0, 0
    while offset + HEADER_BYTES <= len(segment):
        found = _record_at(segment, offset, salt)
        if found is not None and found.number >= lowest:
            yield found
            lowest = found.number + 1
        if found is not None and found.is_sound:
            offset = found.end
            continue
        offset = segment.find(_MAGIC, offset + 1)
        if offset < 0:
            return


def payload(segment: bytes, found: Found) -> bytes:
    """Return the payload of a sound record."""
    return segment[found.start + HEADER_BYTES : found.end]


def _record_at(segment: bytes, offset: int, salt: int) -> Found | None:
    body = segment[offset : offset + _BODY.size]
    (check,) = _CHECK.unpack_from(segment, offset + _BODY.size)
    magic, length, number, checksum = _BODY.unpack(body)
    if magic != _MAGIC or zlib.crc32(body, salt) != check:
        return None
    start = offset + HEADER_BYTES
    end = start + length
    is_sound = end <= len(segment) and zlib.crc32(memoryview(segment)[start:end], salt) == checksum
    return Found(number, offset, end, is_sound)
