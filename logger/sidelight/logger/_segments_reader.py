"""Reading the events journal, also while another process writes it."""

import mmap
import os
import struct
import time
from bisect import bisect_right
from pathlib import Path

from sidelight.logger._checkpoint import Checkpoint
from sidelight.logger._journal import EventRecord
from sidelight.logger._sealed_records import SealedRecords
from sidelight.logger._segments_folder import DurableMark
from sidelight.logger._segments_format import (
    GROUP_HEADER_BYTES,
    HEAD_LENGTH,
    SEGMENT_HEADER_BYTES,
    BadBytes,
    Group,
    decode_group_header,
    find_group,
    segment_name,
    segment_paths,
)
from sidelight.logger._segments_recovery import scan_segment
from sidelight.logger.errors import JournalDamaged

_CHUNK_BYTES = 1 << 20
_SURELY_TICKED_NS = 1_000_000_000
_INDEX_BYTES = 1 << 20
_MAX_OPEN = 8


class SegmentReader:
    """Reads records by position, never behind the durable end.

    Structure is checked while reading (it must be, to find the next record), digests are not:
    ``verify`` does that, and half a microsecond an event is a tenth of what a consumer spends.
    Not for several threads at once.

    Parameters
    ----------
    data : Path
        The data folder; it may be empty, and may be written by another process.
    opens : bool, default True
        Whether sealed records are opened with the keys of the folder; else they stay as stored.

    """

    def __init__(self, data: Path, *, opens: bool = True) -> None:
        self._data = data
        self._sealed = SealedRecords(data) if opens else None
        self._mark: DurableMark | None = None
        self._cold_end: int | None = None
        self._firsts: list[int] = []
        self._listed_ns = -1
        self._segments: dict[int, _Segment] = {}

    def close(self) -> None:
        """Close every file."""
        for segment in self._segments.values():
            segment.close()
        self._segments.clear()
        if self._sealed is not None:
            self._sealed.close()
        if self._mark is not None:
            self._mark.close()
            self._mark = None

    def end(self) -> int:
        """Return the position behind the last durable record."""
        if self._mark is None:
            try:
                self._mark = DurableMark(self._data)
            except FileNotFoundError:
                return self._scanned_end()
        return self._mark.value

    def begin(self) -> int:
        """Return the position of the oldest record that the archive has."""
        self._list_segments()
        return self._firsts[0] if self._firsts else self.end()

    def read(self, position: int, *, max_records: int, max_bytes: int) -> list[EventRecord]:
        """Return consecutive durable records from ``position`` on; maybe none.

        Parameters
        ----------
        position : int
            The first one.
        max_records, max_bytes : int
            Where to stop; a single larger record is returned all the same.

        Raises
        ------
        JournalDamaged
            When the record at ``position`` cannot be found; ``skip`` says where to go on.
        SealingKeyError
            When sealed records cannot be opened now.

        """
        end = self.end()
        records: list[EventRecord] = []
        while position < end and len(records) < max_records and max_bytes > 0:
            try:
                some = self._read_segment(
                    position, min(end, position + max_records - len(records)), max_bytes
                )
            except (BadBytes, FileNotFoundError, IsADirectoryError) as error:
                if records:
                    break
                raise self._damage(position, error) from error
            taken = sum(len(record.head) + len(record.body) for record in some)
            if records and taken > max_bytes:
                break
            records += some
            position += len(some)
            max_bytes -= taken
        return records if self._sealed is None else self._sealed.opened(records)

    def record(self, position: int) -> EventRecord | None:
        """Return one record, None when the archive does not have it (any more, or yet)."""
        if not 0 <= position < self.end() or position < self.begin():
            return None
        try:
            return self.read(position, max_records=1, max_bytes=1)[0]
        except JournalDamaged:
            if self.retired_until(position) is None:
                raise
            return None

    def retired_until(self, position: int) -> int | None:
        """Return the position behind what was deleted on purpose there, None when nothing was."""
        checkpoint = Checkpoint.load(self._data) or Checkpoint()
        for segment in checkpoint.segments:
            if segment.is_retired and segment.first <= position < segment.next_position:
                return segment.next_position
        return None

    def skip(self, position: int) -> int:
        """Return the next position behind damage that can be read."""
        end = self.end()
        self._list_segments()
        index = bisect_right(self._firsts, position) - 1
        if index >= 0:
            found = self._segment(self._firsts[index]).resume(position)
            if found is not None:
                return min(found, end)
        return min(self._firsts[index + 1], end) if index + 1 < len(self._firsts) else end

    def _read_segment(self, position: int, stop: int, max_bytes: int) -> list[EventRecord]:
        index = bisect_right(self._firsts, position) - 1
        if index < 0 or index == len(self._firsts) - 1:
            # Only behind the newest segment can there be one not seen yet.
            self._list_segments()
            index = bisect_right(self._firsts, position) - 1
        if index < 0:
            raise BadBytes("the archive begins later", offset=0, position=position)
        if index + 1 < len(self._firsts):
            # A group whose sync failed may stand behind the end of a segment that was left.
            stop = min(stop, self._firsts[index + 1])
        return self._segment(self._firsts[index]).read(position, stop, max_bytes)

    def _list_segments(self) -> None:
        raw = self._data / "raw"
        try:
            changed_ns = raw.stat().st_mtime_ns
        except FileNotFoundError:
            return
        if changed_ns == self._listed_ns:
            return
        # Two changes within one tick of the file system's clock have one time: only an old one
        # proves that nothing was missed.
        self._listed_ns = changed_ns if time.time_ns() - changed_ns > _SURELY_TICKED_NS else -1
        self._firsts = [first for first, _ in segment_paths(raw)]
        # An open file keeps its room on the disk, whether it was deleted or not.
        for first in self._segments.keys() - set(self._firsts):
            self._segments.pop(first).close()

    def _segment(self, first: int) -> "_Segment":
        segment = self._segments.pop(first, None)
        if segment is None:
            segment = _Segment(self._data / "raw" / segment_name(first), first)
        self._segments[first] = segment
        if len(self._segments) > _MAX_OPEN:
            self._segments.pop(next(iter(self._segments))).close()
        return segment

    def _scanned_end(self) -> int:
        """Without a mark nobody has written here since the archive was put in its place."""
        if self._cold_end is None:
            checkpoint = Checkpoint.load(self._data) or Checkpoint()
            end = checkpoint.segments[-1].next_position if checkpoint.segments else 0
            for first, path in segment_paths(self._data / "raw"):
                if first >= end:
                    end = scan_segment(path, first=first, previous=None).next_position
            self._cold_end = end
        return self._cold_end

    def _damage(self, position: int, error: Exception) -> JournalDamaged:
        why = error.why if isinstance(error, BadBytes) else "its segment is missing"
        return JournalDamaged(
            f"events journal: expected a record at position {position}, got: {why}; "
            "run `sidelight verify` to see what was changed"
        )


class _Segment:
    """One open segment and a sparse index of its groups."""

    def __init__(self, path: Path, first: int) -> None:
        self._path = path
        self._file = os.open(path, os.O_RDONLY)
        self._positions = [first]
        self._offsets = [SEGMENT_HEADER_BYTES]
        # Where the last read stopped: a consumer goes on there, and the index stays sparse.
        self._cursor = (first, SEGMENT_HEADER_BYTES)

    def close(self) -> None:
        os.close(self._file)

    def read(self, position: int, stop: int, max_bytes: int) -> list[EventRecord]:
        """Return at least one record, from ``position`` on, none at ``stop`` or behind it."""
        size = os.fstat(self._file).st_size
        offset = self._find(position, size)
        records: list[EventRecord] = []
        chunk, base = b"", offset
        try:
            while position < stop and offset < size and max_bytes > 0:
                group = self._whole_group(chunk, offset - base, offset, size)
                if group is None:
                    chunk, base = self._load(offset, size, max_bytes), offset
                    group, _ = decode_group_header(chunk, 0, offset=offset, size=size)
                taken, max_bytes = _records(chunk, offset - base, group, position, stop, max_bytes)
                records += taken
                position += len(taken)
                self._cursor = (group.first, offset)
                if position == group.next_position:
                    offset = group.end
                    self._cursor = (position, offset)
        except BadBytes:
            if not records:
                raise
        if not records:
            raise BadBytes("the segment ends before it", offset=offset, position=position)
        return records

    def resume(self, position: int) -> int | None:
        """Return the next position in this segment that stands behind damage at ``position``."""
        size = os.fstat(self._file).st_size
        try:
            behind = self._find(position, size) + 1
        except BadBytes as bad:
            behind = bad.offset + 1
        if behind >= size:
            return None
        with mmap.mmap(self._file, size, access=mmap.ACCESS_READ) as data:
            found = find_group(data, behind=behind, position=position)  # type: ignore[arg-type]
        if found is None:
            return None
        index = bisect_right(self._positions, found.first)
        self._positions.insert(index, found.first)
        self._offsets.insert(index, found.offset)
        return found.first

    def _find(self, position: int, size: int) -> int:
        """Return the offset of the group that holds ``position``, going from group to group."""
        nearest = bisect_right(self._positions, position) - 1
        first, offset = self._positions[nearest], self._offsets[nearest]
        if first <= self._cursor[0] <= position:
            first, offset = self._cursor
        while offset < size:
            header = os.pread(self._file, GROUP_HEADER_BYTES, offset)
            group, _ = decode_group_header(header, 0, offset=offset, size=size)
            if group.first != first:
                raise BadBytes("a group is out of order", offset=offset, position=position)
            if position < group.next_position:
                return offset
            first, offset = group.next_position, group.end
            if first > self._positions[-1] and offset - self._offsets[-1] >= _INDEX_BYTES:
                self._positions.append(first)
                self._offsets.append(offset)
        return offset

    def _whole_group(self, chunk: bytes, at: int, offset: int, size: int) -> Group | None:
        if len(chunk) - at < GROUP_HEADER_BYTES:
            return None
        group, _ = decode_group_header(chunk, at, offset=offset, size=size)
        return group if at + group.end - offset <= len(chunk) else None

    def _load(self, offset: int, size: int, max_bytes: int) -> bytes:
        wanted = min(max(max_bytes, GROUP_HEADER_BYTES), _CHUNK_BYTES)
        chunk = os.pread(self._file, wanted, offset)
        group, _ = decode_group_header(chunk, 0, offset=offset, size=size)
        missing = group.end - offset - len(chunk)
        return chunk + os.pread(self._file, missing, offset + len(chunk)) if missing > 0 else chunk


def _records(
    chunk: bytes, at: int, group: Group, position: int, stop: int, max_bytes: int
) -> tuple[list[EventRecord], int]:
    """Return the wanted records of one group and the bytes left to read."""
    lengths = struct.unpack_from(f"<{group.n}I", chunk, at + GROUP_HEADER_BYTES)
    begin = at + GROUP_HEADER_BYTES + 4 * group.n
    if not group.first <= position < group.next_position:
        raise BadBytes("another group stands there", offset=group.offset, position=position)
    if begin + sum(lengths) != at + group.end - group.offset:
        raise BadBytes("lengths and payload differ", offset=group.offset, position=position)
    skipped = position - group.first
    begin += sum(lengths[:skipped])
    records: list[EventRecord] = []
    for length in lengths[skipped : stop - group.first]:
        if records and length > max_bytes:
            return records, 0
        (head_bytes,) = HEAD_LENGTH.unpack_from(chunk, begin)
        if length < head_bytes + 4:
            raise BadBytes("a record is cut", offset=group.offset, position=position)
        body = begin + 4 + head_bytes
        end = begin + length
        records.append(
            EventRecord(0, position, group.time_ns, chunk[begin + 4 : body], chunk[body:end])
        )
        position += 1
        begin = end
        max_bytes -= length
        if max_bytes <= 0:
            break
    return records, max_bytes
