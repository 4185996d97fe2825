"""The disk behind the proxy's memory: bounded, in order, whole after a kill."""

import errno
import logging
import os
import secrets
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from sidelight.logger._spool_folder import (
    SegmentFile,
    cut_torn_tail,
    find_segments,
    locked,
    read_from,
    synchronise,
)
from sidelight.logger._spool_position import SpoolPosition
from sidelight.logger._spool_segment import HEADER_BYTES, SpoolRecord, encode, payload, scan
from sidelight.logger.errors import SpoolError

log = logging.getLogger(__name__)


class Spool:
    """A queue of records in a folder, numbered without gaps.

    Records are written to segments and synchronised before ``append`` returns; a segment is
    deleted when all of it is acknowledged. After a kill everything appended and not acknowledged
    is found again. Not safe for several threads at once; one process holds a folder.

    Parameters
    ----------
    folder : Path
        Made when it is missing, readable by its owner only: it holds payloads.
    max_bytes : int, default 1 GiB
        Bound of all segments together.
    segment_bytes : int, default 4 MiB
        A segment is closed when it has reached that size. Reading holds one in memory.

    Attributes
    ----------
    recovered : int
        Records found at the start.

    Raises
    ------
    SpoolError
        When the folder cannot be used or another process holds it.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     spool = Spool(Path(folder))
    ...     n_taken = spool.append([b"first", b"second"])
    ...     records = spool.peek(max_records=1)
    ...     n_done = spool.ack(records[0].number)
    ...     spool.close()
    ...     Spool(Path(folder)).recovered
    1

    """

    def __init__(
        self, folder: Path, *, max_bytes: int = 1 << 30, segment_bytes: int = 4 << 20
    ) -> None:
        if max_bytes < 1 or segment_bytes < 1:
            raise ValueError(f"bounds: expected positive, got {max_bytes} and {segment_bytes}")
        self._folder = folder
        self._max_bytes = max_bytes
        self._segment_bytes = min(segment_bytes, max(max_bytes // 8, 1))
        self._writer: int | None = None
        self._ahead: deque[SpoolRecord] = deque()
        self._lost: deque[range] = deque()
        self._n_damaged = 0
        self._offset = 0
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = locked(folder)
            self._position = SpoolPosition(folder / "position")
            self._segments = find_segments(folder)
            self._next, self._first = self._recover()
            self._delete_done()
        except OSError as error:
            raise SpoolError(
                f"spool folder {folder}: expected a folder to write in, got "
                f"{error.strerror or error}; choose another one or free it"
            ) from error
        self._cursor = self._first
        self._n_records: int = self._next - self._first
        self.recovered = self._n_records

    def __len__(self) -> int:
        """Return how many records wait; damaged ones count until they are met."""
        return self._n_records

    @property
    def size(self) -> int:
        """Bytes of all segments."""
        return sum(segment.size for segment in self._segments)

    @property
    def n_damaged(self) -> int:
        """Records met so far whose bytes are not what was written."""
        return self._n_damaged

    def append(self, payloads: Sequence[bytes]) -> range:
        """Write records durably; return the numbers of those that found room, from the first on.

        Raises
        ------
        OSError
            When the disk refuses; then nothing was appended.

        """
        room = self._max_bytes - self.size
        n_fitting = 0
        for record in payloads:
            room -= HEADER_BYTES + len(record)
            if room < 0:
                break
            n_fitting += 1
        numbers = range(self._next, self._next + n_fitting)
        if n_fitting:
            segment, writer = self._writable()
            text = encode(payloads[:n_fitting], first=self._next, salt=segment.salt)
            self._write(segment, writer, text)
            self._next = segment.end = numbers.stop
            self._n_records += n_fitting
        return numbers

    def peek(self, *, max_records: int = 256, max_bytes: int = 1 << 20) -> list[SpoolRecord]:
        """Return the first sound records without taking them; at least one when there is any.

        Damaged records are stepped over and counted.

        Raises
        ------
        OSError
            When the disk cannot be read; try again later.

        """
        size = sum(len(record.payload) for record in self._ahead)
        while len(self._ahead) < max_records and size < max_bytes and self._cursor < self._next:
            size += self._load()
        if self._lost and self._lost[0].start == self._first:
            self._advance(self._first)
        chosen: list[SpoolRecord] = []
        for record in self._ahead:
            max_bytes -= len(record.payload)
            if chosen and (max_bytes < 0 or len(chosen) >= max_records):
                break
            chosen.append(record)
        return chosen

    def ack(self, number: int) -> int:
        """Be done with every record up to ``number``, included; return how many they were."""
        before = self._n_records
        if number >= self._first:
            self._advance(min(number + 1, self._next))
        return before - self._n_records

    def close(self) -> None:
        """Give the folder back; what waits stays in it."""
        self._close_writer()
        self._position.close()
        os.close(self._lock)

    def _recover(self) -> tuple[int, int]:
        for segment, following in zip(self._segments, self._segments[1:], strict=False):
            segment.end = following.first
        if self._segments and not cut_torn_tail(self._segments[-1]):
            self._segments.pop().path.unlink()
        known = self._position.number
        end = max(self._segments[-1].end if self._segments else 0, known or 0)
        if known is not None or not self._segments:
            # Both slots are settled before a segment is deleted: what is missing is lost.
            return end, known or 0
        return end, self._segments[0].first

    def _advance(self, first: int) -> None:
        n_done = first - self._first
        while self._lost and self._lost[0].start <= first:
            lost = self._lost.popleft()
            if lost.stop > first:
                n_done += lost.stop - first
                first = lost.stop
            n_done -= len(lost)
        while self._ahead and self._ahead[0].number < first:
            self._ahead.popleft()
        if self._cursor < first:
            self._cursor, self._offset = first, 0
        self._n_records -= n_done
        self._first = first
        try:
            self._position.move(first)
            self._delete_done()
        except OSError:
            # The records are sent again after a restart; their identity makes that harmless.
            log.exception("the position of the spool could not be kept")

    def _delete_done(self) -> None:
        while self._segments and self._segments[0].end <= self._first:
            self._position.settle(self._first)
            if len(self._segments) == 1:
                self._close_writer()
                self._offset = 0
            self._segments[0].path.unlink(missing_ok=True)
            self._segments.pop(0)

    def _load(self) -> int:
        segment = next(segment for segment in self._segments if segment.end > self._cursor)
        if segment.first >= self._cursor:
            self._lose(self._cursor, segment.first)
            self._cursor, self._offset = segment.first, 0
        data = read_from(segment, self._offset)
        size = 0
        for found in scan(data, salt=segment.salt):
            if not self._cursor <= found.number < segment.end:
                continue
            self._lose(self._cursor, found.number)
            self._cursor = found.number + 1
            if found.is_sound:
                self._ahead.append(SpoolRecord(found.number, payload(data, found)))
                size += len(self._ahead[-1].payload)
            else:
                self._lose(found.number, self._cursor)
        self._lose(self._cursor, segment.end)
        self._cursor = segment.end
        self._offset = segment.size
        return size

    def _lose(self, first: int, end: int) -> None:
        if first < end:
            self._lost.append(range(first, end))
            self._n_damaged += end - first
            self._n_records -= end - first
            log.error("spooled records are damaged", extra={"records": end - first})

    def _writable(self) -> tuple[SegmentFile, int]:
        if self._writer is not None and self._segments[-1].size < self._segment_bytes:
            return self._segments[-1], self._writer
        self._close_writer()
        salt = secrets.randbits(32)
        path = self._folder / f"{self._next:016x}-{salt:08x}.spool1"
        self._writer = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        segment = SegmentFile(path=path, salt=salt, first=self._next, end=self._next, size=0)
        self._segments.append(segment)
        synchronise(self._folder)
        return segment, self._writer

    def _write(self, segment: SegmentFile, writer: int, text: bytes) -> None:
        rest = memoryview(text)
        try:
            while rest:
                rest = rest[os.write(writer, rest) :]
            os.fdatasync(writer)
            if not os.fstat(writer).st_nlink:
                # Somebody has cleared the folder: what is written there, no one finds again.
                raise FileNotFoundError(errno.ENOENT, "the segment was deleted", segment.path.name)
        except OSError:
            self._take_back(segment, writer)
            raise
        segment.size += len(text)

    def _take_back(self, segment: SegmentFile, writer: int) -> None:
        try:
            os.ftruncate(writer, segment.size)
            os.lseek(writer, segment.size, os.SEEK_SET)
            is_usable = os.fstat(writer).st_nlink > 0
        except OSError:
            # The rest of a record stays; the next segment begins with its number.
            log.exception("a torn write to the spool could not be taken back")
            is_usable = False
        if not is_usable:
            self._close_writer()
            if segment.first == segment.end:
                # Two segments never begin with the same number.
                self._segments.remove(segment)
                segment.path.unlink(missing_ok=True)

    def _close_writer(self) -> None:
        if self._writer is not None:
            os.close(self._writer)
            self._writer = None
