"""How the events journal stands on disk: segments of groups, chained by SHA-256.

A segment is a header and groups; a group is what one ``fdatasync`` made durable::

    segment  magic 8 | format u32 | first u64 | digest of what came before 32
    group    magic 4 | n u32 | first u64 | payload u64 | time_ns u64 | sha256 32 | n lengths u32
             | payloads
    record   head length u32 | head | body

All numbers are little-endian. The digest of a group covers the digest before it, its own header,
its lengths and its payloads, so one value is checksum, torn-write detector and audit chain. The
first group of a segment follows the SHA-256 of the segment's header, which holds the last digest
of the segment before.
"""

import hashlib
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

SEGMENT_MAGIC = b"SIDELSEG"
GROUP_MAGIC = b"\xf5SLg"
FORMAT_VERSION = 1
CHAIN_START = bytes(32)

_SEGMENT = struct.Struct("<8sIQ32s")
_GROUP = struct.Struct("<4sIQQQ")
HEAD_LENGTH = struct.Struct("<I")
SEGMENT_HEADER_BYTES = _SEGMENT.size
GROUP_HEADER_BYTES = _GROUP.size + 32

CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentHeader:
    """What the first bytes of a segment say."""

    first: int
    previous: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Where one group stands and what its header says; ``end`` is the byte behind it."""

    offset: int
    end: int
    first: int
    n: int
    time_ns: int
    digest: bytes

    @property
    def next_position(self) -> int:
        """The position behind the last record."""
        return self.first + self.n


class BadBytes(Exception):  # noqa: N818 - never leaves the portion
    """Bytes at ``offset`` are not what was written; ``position`` is the first record they hid."""

    def __init__(self, why: str, *, offset: int, position: int) -> None:
        super().__init__(why)
        self.why = why
        self.offset = offset
        self.position = position


def segment_name(first: int) -> str:
    """Return the file name of the segment that begins with position ``first``."""
    return f"{first:020d}.seg"


def segment_first(name: str) -> int | None:
    """Return the first position that a file name states, None when it names no segment."""
    stem = name.removesuffix(".seg")
    is_segment = stem != name and len(stem) == 20 and stem.isascii() and stem.isdigit()  # noqa: PLR2004
    return int(stem) if is_segment else None


def segment_paths(raw: Path) -> list[tuple[int, Path]]:
    """Return (first position, path) of every segment in a folder, in order."""
    found = ((segment_first(path.name), path) for path in raw.glob("*.seg"))
    return sorted((first, path) for first, path in found if first is not None)


def encode_segment_header(first: int, previous: bytes) -> bytes:
    """Return the first bytes of a segment."""
    return _SEGMENT.pack(SEGMENT_MAGIC, FORMAT_VERSION, first, previous)


def decode_segment_header(data: bytes) -> SegmentHeader:
    """Read the first bytes of a segment; raise ``BadBytes`` when they are none."""
    if len(data) < SEGMENT_HEADER_BYTES:
        raise BadBytes("the segment header is cut", offset=0, position=0)
    magic, version, first, previous = _SEGMENT.unpack_from(data)
    if magic != SEGMENT_MAGIC or version != FORMAT_VERSION:
        raise BadBytes("the segment header is not ours", offset=0, position=0)
    return SegmentHeader(first=first, previous=previous)


def chain_seed(header: bytes) -> bytes:
    """Return the digest that the first group of a segment follows."""
    return hashlib.sha256(header[:SEGMENT_HEADER_BYTES]).digest()


def encode_group(
    previous: bytes, *, first: int, time_ns: int, records: Sequence[tuple[bytes, bytes, object]]
) -> tuple[bytes, bytes, bytes]:
    """Return (header and lengths, payloads, digest) of a group of (head, body, ...) records."""
    pack = HEAD_LENGTH.pack
    lengths = struct.pack(
        f"<{len(records)}I", *[4 + len(head) + len(body) for head, body, _ in records]
    )
    payloads = b"".join(
        [part for head, body, _ in records for part in (pack(len(head)), head, body)]
    )
    header = _GROUP.pack(GROUP_MAGIC, len(records), first, len(payloads), time_ns)
    chain = hashlib.sha256(previous + header + lengths)
    chain.update(payloads)
    digest = chain.digest()
    return header + digest + lengths, payloads, digest


def decode_group_header(data: bytes, at: int, *, offset: int, size: int) -> tuple[Group, int]:
    """Read the group header at ``data[at:]``; it stands at ``offset`` of a file of ``size`` bytes.

    Returns the group and the bytes of its payloads; raises ``BadBytes`` when nothing there can be
    a whole group.
    """
    if len(data) - at < GROUP_HEADER_BYTES:
        raise BadBytes("a group header is cut", offset=offset, position=0)
    magic, n, first, payload, time_ns = _GROUP.unpack_from(data, at)
    if magic != GROUP_MAGIC:
        raise BadBytes("no group begins here", offset=offset, position=0)
    end = offset + GROUP_HEADER_BYTES + 4 * n + payload
    if n == 0 or payload < 4 * n or end > size:
        raise BadBytes("a group is cut or its header is wrong", offset=offset, position=first)
    digest = bytes(data[at + _GROUP.size : at + GROUP_HEADER_BYTES])
    group = Group(offset=offset, end=end, first=first, n=n, time_ns=time_ns, digest=digest)
    return group, payload


def checked_groups(file: BinaryIO, *, seed: bytes, first: int, size: int) -> Iterator[Group]:
    """Yield the groups of an open segment, each after its digest was found right.

    Parameters
    ----------
    file : binary file
        Stands behind the segment header.
    seed : bytes
        ``chain_seed`` of the segment header.
    first : int
        The position that the first group must begin with.
    size : int
        Bytes of the file to look at.

    Raises
    ------
    BadBytes
        At the first group that is not what was written.

    """
    offset, expected, chain, time_ns = SEGMENT_HEADER_BYTES, first, seed, 0
    while offset < size:
        header = file.read(min(GROUP_HEADER_BYTES, size - offset))
        try:
            group, payload = decode_group_header(header, 0, offset=offset, size=size)
        except BadBytes as error:
            raise BadBytes(error.why, offset=offset, position=expected) from error
        if group.first != expected or group.time_ns < time_ns:
            raise BadBytes("a group is out of order", offset=offset, position=expected)
        chain = _checked_digest(file, header, group, payload, previous=chain)
        yield group
        offset, expected, time_ns = group.end, group.next_position, group.time_ns


def _checked_digest(
    file: BinaryIO, header: bytes, group: Group, payload: int, *, previous: bytes
) -> bytes:
    left = 4 * group.n + payload
    # Most groups are one piece. A long one is read in several, the lengths whole in the first.
    first = chunk = file.read(min(left, max(4 * group.n, CHUNK_BYTES)))
    chain = hashlib.sha256(previous + header[: _GROUP.size])
    while chunk:
        chain.update(chunk)
        left -= len(chunk)
        chunk = file.read(min(left, CHUNK_BYTES))
    if left or chain.digest() != group.digest:
        raise BadBytes(
            "a group does not have its digest", offset=group.offset, position=group.first
        )
    if sum(struct.unpack_from(f"<{group.n}I", first)) != payload:
        raise BadBytes("lengths and payload differ", offset=group.offset, position=group.first)
    return group.digest


def find_group(data: bytes, *, behind: int, position: int) -> Group | None:
    """Return the first thing behind a byte that looks like a later group, by structure alone.

    ``data`` is a whole segment (bytes or a map of it), ``position`` the one that the damage hid.
    """
    at = data.find(GROUP_MAGIC, behind)
    while at >= 0:
        try:
            group, payload = decode_group_header(data, at, offset=at, size=len(data))
        except BadBytes:
            pass
        else:
            lengths = struct.unpack_from(f"<{group.n}I", data, at + GROUP_HEADER_BYTES)
            # A record takes eight bytes at least, so what was passed over bounds the positions.
            most = position + 1 + (at - behind) // 8
            if position < group.first <= most and sum(lengths) == payload:
                return group
        at = data.find(GROUP_MAGIC, at + 1)
    return None
