"""The folder of the spool: its lock, and its segments as a restart finds them."""

import fcntl
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sidelight.logger._spool_segment import HEADER_BYTES, scan
from sidelight.logger.errors import SpoolError

# First number and salt; the end of the name is the version of the format.
_NAME: Final = re.compile(r"([0-9a-f]{16})-([0-9a-f]{8})\.spool1")


@dataclass(slots=True, kw_only=True)
class SegmentFile:
    """One segment.

    Attributes
    ----------
    path : Path
    salt : int
        Where its checksums begin.
    first, end : int
        Number of its first record, and the one behind its last.
    size : int
        Bytes that count; a torn write may have left more.

    """

    path: Path
    salt: int
    first: int
    end: int
    size: int


def locked(folder: Path) -> int:
    """Return the descriptor that holds the folder for this process."""
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise SpoolError(
            f"spool folder {folder}: expected it to be free, got one that another process holds; "
            "give each proxy a folder of its own"
        ) from None
    return lock


def find_segments(folder: Path) -> list[SegmentFile]:
    """Return the segments in order; where each ends is not known yet."""
    segments = []
    for path in folder.iterdir():
        if match := _NAME.fullmatch(path.name):
            first, salt = (int(part, 16) for part in match.groups())
            size = path.stat().st_size
            segments.append(SegmentFile(path=path, salt=salt, first=first, end=first, size=size))
    return sorted(segments, key=lambda segment: segment.first)


def cut_torn_tail(segment: SegmentFile) -> bool:
    """Find the end of the last segment, cut off an unfinished write; whether anything is left."""
    data = segment.path.read_bytes()
    end, torn = 0, None
    for found in scan(data, salt=segment.salt):
        if found.end > len(data):
            torn = found.start if torn is None else torn
        else:
            end, torn = found.end, None
            segment.end = found.number + 1
    if torn is not None:
        data = data[:torn]
    rest = data[end:]
    if len(rest) >= HEADER_BYTES and rest.strip(b"\0"):
        # A torn write leaves the beginning of a sound header, so this was one: one record at
        # least, and exactly one unless several in a row were damaged at the very end.
        segment.end += 1
        end = len(data)
    if end < segment.size:
        os.truncate(segment.path, end)
        segment.size = end
    return segment.first < segment.end


def read_from(segment: SegmentFile, offset: int) -> bytes:
    """Return a segment from an offset on; nothing when the file has gone."""
    try:
        with segment.path.open("rb") as file:
            file.seek(offset)
            return file.read(segment.size - offset)
    except FileNotFoundError:
        return b""


def synchronise(folder: Path) -> None:
    """Make new names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
