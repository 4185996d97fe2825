"""The embedded events journal: one write is both the acknowledgement and the audit record."""

import errno
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue

from sidelight.logger._segments_folder import (
    SIGNED_VERSION,
    Checkpoint,
    DurableMark,
    FolderLock,
    SealedSegment,
    open_folder,
    sync_folder,
    upgrade_folder,
    write_all,
)
from sidelight.logger._segments_format import (
    CHAIN_START,
    SEGMENT_HEADER_BYTES,
    chain_seed,
    encode_group,
    encode_segment_header,
    segment_name,
)
from sidelight.logger._segments_reader import SegmentReader
from sidelight.logger._segments_recovery import Recovery, recover
from sidelight.logger._segments_signature import Signer
from sidelight.logger.errors import JournalError, JournalFull

__all__ = ["Deliver", "Done", "SegmentReader", "SegmentWriter"]

log = logging.getLogger(__name__)

Done = Callable[[int, JournalError | None], None]
"""Called once with the position when the record is durable, or with the reason why it is not."""

Deliver = Callable[[Callable[[], None]], object]
"""Runs the calls for one group somewhere, such as ``loop.call_soon_threadsafe``."""

SEGMENT_BYTES = 128 << 20
# A group is joined in memory before it is written; more than this waits for the next one.
_GROUP_BYTES = 4 << 20
# A quick sync costs a loop less than handing it to a thread and back. Where syncs are slow a thread
# waits for them, and it waits for company as well: clients that wait for their answers come back
# together, and half of them would come too late for the next sync.
_SLOW_SYNC_S = 1e-3
_PATIENCE_S = 1e-3
_ENOUGH = 0.95
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

_Waiting = tuple[bytes, bytes, Done]


class SegmentWriter:
    """Appends records durably: what arrives during one sync is the group of the next.

    One thread writes, or the loop that hands over where its disk is quick. A lone record waits for
    one ``fdatasync`` and nothing else; only where syncs take more than a millisecond, as many as
    came last are waited for, up to another millisecond.
    A group that cannot be written is taken back as a whole and each of its records fails; later
    ones are tried again. A file whose sync failed is never synced again: the kernel may have
    dropped its pages and would report success.

    Parameters
    ----------
    data : Path
        The data folder; made when missing.
    segment_bytes : int, default 128 MiB
        A segment that has reached this size is sealed and the next one begun.
    deliver : callable, optional
        Where the calls of ``append`` run; default the commit thread itself.
    gather : callable, optional
        Of a loop that hands over: runs a call there a little later, such as ``loop.call_soon``.
        What is handed over until then is one group. Default at once, and always in the thread.
    signer : Signer, optional
        Signs each checkpoint.
    clock : callable, default time.time_ns
        Receive time of a group, nanoseconds since 1970; a replay tells former ones.
    sync : callable, default os.fdatasync
        Makes durable what was written to a file descriptor; a measurement stands for other disks.

    Raises
    ------
    FolderInUse, FolderTooNew, JournalDamaged
        When the folder cannot be had.
    JournalFull, JournalError
        When the first segment cannot be begun.

    """

    def __init__(
        self,
        data: Path,
        *,
        segment_bytes: int = SEGMENT_BYTES,
        deliver: Deliver | None = None,
        gather: Deliver | None = None,
        signer: Signer | None = None,
        clock: Callable[[], int] | None = None,
        sync: Callable[[int], None] | None = None,
    ) -> None:
        version = open_folder(data)
        self._signer = signer
        self._clock = time.time_ns if clock is None else clock
        self._sync = sync
        self._data = data
        self._segment_bytes = segment_bytes
        self._deliver = deliver
        self._gather = gather
        self._lock = FolderLock(data, "events")
        # Held while the list of segments changes: the commit thread seals, others retire.
        self._listing = threading.RLock()
        # Held by whoever writes: the thread or the loop.
        self._writing = threading.Lock()
        self._mark = DurableMark(data, writable=True)
        self._closed = False
        self._begun_ns = 0
        self._is_seal_wanted = False
        self._file, self._first, self._size = -1, 0, 0
        self._digest = CHAIN_START
        self.groups = 0
        self.sync_seconds = 0.0
        self._usual_sync_s = 0.0
        self._wanted = 0.0
        self.failed_groups = 0
        self.largest_group = 0
        try:
            trusted = None if signer is None or version < SIGNED_VERSION else signer.trusted
            self.recovery: Recovery = recover(data, self._mark, trusted=trusted)
            self._sealed = self.recovery.segments
            self._end = self.recovery.next_position
            self._time_ns = self.recovery.time_ns
            self._begin_segment()
            if signer is not None:
                upgrade_folder(data, from_version=version)
        except OSError as error:
            self._release()
            raise _journal_error(error) from error
        except BaseException:
            self._release()
            raise
        self._mark.value = self._end
        self._waiting: deque[_Waiting] = deque()
        # What waits is taken at once; only a thread that sleeps needs to be told.
        self._tokens: SimpleQueue[None] = SimpleQueue()
        self._is_told = False
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="sidelight-commit", daemon=True)
        self._thread.start()

    @property
    def end(self) -> int:
        """The position behind the last durable record."""
        return self._end

    def append(self, head: bytes, body: bytes, done: Done) -> None:
        """Hand over one record; ``done`` is called when it is durable or has failed."""
        self._waiting.append((head, body, done))
        if not self._is_told:
            self._is_told = True
            if self._gather is None:
                self._tokens.put(None)
            else:
                self._gather(self._write_or_tell)

    def write(self, head: bytes, body: bytes) -> "Future[int]":
        """Hand over one record; the future gives its position when it is durable."""
        future: Future[int] = Future()

        def done(position: int, error: JournalError | None) -> None:
            if error is None:
                future.set_result(position)
            else:
                future.set_exception(error)

        self.append(head, body, done)
        return future

    def close(self) -> None:
        """Finish what was handed over, seal the segment, cover every byte by the checkpoint.

        Nothing may be handed over during or after it.
        """
        if self._file < 0 and not self._thread.is_alive():
            return
        self._stopping = True
        self._tokens.put(None)
        self._thread.join()
        with self._writing, self._listing:
            try:
                self._seal()
                self._checkpoint(closed=True)
            except OSError:
                # Nothing acknowledged is lost: the next start checks the segment and seals it.
                log.exception("the journal could not be sealed at its end")
            finally:
                self._closed = True
                self._release()

    def seal_begun_before(self, time_ns: int) -> None:
        """Have a new segment begun when the first record of this one came before a time.

        What is written to is never retired: without it little traffic would keep its segment
        for years.
        """
        if 0 < self._begun_ns < time_ns:
            self._is_seal_wanted = True
            self._tokens.put(None)

    def retire(self, reasons: Mapping[str, str]) -> list[SealedSegment]:
        """Delete sealed segments on purpose; the signed checkpoint keeps what they were, and why.

        The checkpoint comes first: a kill leaves files that it calls deleted, never a deleted
        file that it does not. The next start deletes them.

        Parameters
        ----------
        reasons : mapping of str to str
            Why, by the name of the segment. Names of what is not sealed, is deleted already or
            is damaged are passed over: damage is evidence.

        Returns
        -------
        list of SealedSegment
            What was deleted.

        Raises
        ------
        JournalError
            When nothing signs here, the journal is closed or the disk refuses; then nothing was
            deleted.

        """
        if self._signer is None:
            raise JournalError("events journal: expected a key to sign with, got none; not deleted")
        with self._listing:
            if self._closed:
                raise JournalError("events journal: expected it to be open, got a closed one")
            before, now_ns = self._sealed, max(self._clock(), 1)
            chosen = {
                segment.name: replace(segment, retired_ns=now_ns, why=reasons[segment.name])
                for segment in before
                if segment.name in reasons and not (segment.is_retired or segment.damaged)
            }
            if not chosen:
                return []
            try:
                self._sealed = tuple(chosen.get(segment.name, segment) for segment in before)
                self._checkpoint(closed=False)
            except OSError as error:
                self._sealed = before
                raise _journal_error(error) from error
        try:
            for name in chosen:
                (self._data / "raw" / name).unlink(missing_ok=True)
            sync_folder(self._data / "raw")
        except OSError:
            log.exception("a retired segment could not be deleted; the next start does it")
        return list(chosen.values())

    def _release(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        self._mark.close()
        self._lock.close()

    def _write_or_tell(self) -> None:
        # Before looking: who hands over after the last look tells again.
        self._is_told = False
        if self._takes_long() or not self._writing.acquire(blocking=False):
            self._tokens.put(None)
            return
        try:
            self._write_waiting(in_thread=False)
        finally:
            self._writing.release()

    def _takes_long(self) -> bool:
        """Whether the next group is no work for a loop, which has others to serve."""
        return self._usual_sync_s > _SLOW_SYNC_S or self._is_segment_over()

    def _is_segment_over(self) -> bool:
        return self._file < 0 or self._size >= self._segment_bytes or self._is_seal_wanted

    def _run(self) -> None:
        while True:
            self._tokens.get()
            self._is_told = False
            with self._writing:
                self._write_waiting(in_thread=True)
                if self._is_seal_wanted:
                    self._roll_at_rest()
            if self._stopping:
                return

    def _write_waiting(self, *, in_thread: bool) -> None:
        waiting = self._waiting
        deliver = self._deliver if in_thread else None
        while waiting:
            if in_thread and self._usual_sync_s > _SLOW_SYNC_S:
                self._wait_for_company()
            records = [waiting.popleft() for _ in range(len(waiting))]
            for group in _groups(records):
                self._commit(group, deliver)

    def _wait_for_company(self) -> None:
        until = time.perf_counter() + _PATIENCE_S
        while len(self._waiting) < self._wanted and not self._stopping:
            left_s = until - time.perf_counter()
            if left_s <= 0:
                return
            with suppress(Empty):
                self._tokens.get(timeout=left_s)
            self._is_told = False

    def _roll_at_rest(self) -> None:
        try:
            self._roll()
        except OSError:
            # The next record tries again.
            log.exception("a new segment could not be begun")

    def _commit(self, group: list[_Waiting], deliver: Deliver | None = None) -> None:
        position, error = self._end, None
        try:
            self._write_group(group)
        except OSError as failure:
            error = _journal_error(failure)
            self.failed_groups += 1
            log.error("a group could not be made durable", extra={"errno": failure.errno})  # noqa: TRY400
        answer = partial(_answer, group, position, error)
        if deliver is None:
            answer()
        else:
            # The loop of a door that is going down may be closed already; its clients are gone.
            with suppress(RuntimeError):
                deliver(answer)

    def _write_group(self, group: list[_Waiting]) -> None:
        if self._is_segment_over():
            self._roll()
        time_ns = max(self._clock(), self._time_ns)
        header, payloads, digest = encode_group(
            self._digest,
            first=self._end,
            time_ns=time_ns,
            records=group,
        )
        try:
            write_all(self._file, (header, payloads))
        except OSError:
            self._take_back()
            raise
        before = time.perf_counter()
        try:
            (self._sync or os.fdatasync)(self._file)
        except OSError:
            self._take_back()
            self._abandon()
            raise
        took_s = time.perf_counter() - before
        self.sync_seconds += took_s
        self._usual_sync_s += (took_s - self._usual_sync_s) / 8
        self._begun_ns = self._begun_ns or time_ns
        self._size += len(header) + len(payloads)
        self._digest, self._time_ns = digest, time_ns
        self._end += len(group)
        self._mark.value = self._end
        self.groups += 1
        self.largest_group = max(self.largest_group, len(group))
        # Who is answered now comes again, and joins who came meanwhile.
        self._wanted = _ENOUGH * (len(group) + len(self._waiting))

    def _take_back(self) -> None:
        try:
            os.ftruncate(self._file, self._size)
            os.lseek(self._file, self._size, os.SEEK_SET)
        except OSError:
            log.exception("a group could not be taken back; a new segment is begun")
            self._abandon()

    def _abandon(self) -> None:
        """Leave the file: what it holds up to the durable end stays, nothing more is written."""
        if self._file < 0:
            return
        os.close(self._file)
        self._file = -1
        if self._end == self._first:
            # Nothing of it is durable, and the next segment will have its name.
            with suppress(OSError):
                (self._data / "raw" / segment_name(self._first)).unlink()
        else:
            with self._listing:
                self._sealed = (*self._sealed, self._as_sealed())

    def _roll(self) -> None:
        with self._listing:
            if self._file >= 0:
                self._seal()
            self._begin_segment()

    def _seal(self) -> None:
        if self._file < 0:
            return
        os.close(self._file)
        self._file = -1
        if self._end == self._first:
            (self._data / "raw" / segment_name(self._first)).unlink()
            sync_folder(self._data / "raw")
        else:
            self._sealed = (*self._sealed, self._as_sealed())

    def _checkpoint(self, *, closed: bool) -> None:
        findings = self.recovery.findings
        checkpoint = Checkpoint(segments=self._sealed, closed=closed, findings=findings)
        if self._signer is not None:
            checkpoint = checkpoint.signed_by(self._signer)
        checkpoint.store(self._data)

    def _as_sealed(self) -> SealedSegment:
        return SealedSegment(
            name=segment_name(self._first),
            bytes=self._size,
            records=self._end - self._first,
            first=self._first,
            digest=self._digest.hex(),
            time_ns=self._time_ns,
        )

    def _begin_segment(self) -> None:
        # The checkpoint first: a segment that it does not list is newer than all that it lists.
        self._checkpoint(closed=False)
        path = self._data / "raw" / segment_name(self._end)
        previous = bytes.fromhex(self._sealed[-1].digest) if self._sealed else CHAIN_START
        header = encode_segment_header(self._end, previous)
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            write_all(file, (header,))
            os.fdatasync(file)
            sync_folder(path.parent)
        except BaseException:
            os.close(file)
            path.unlink()
            raise
        self._file, self._first, self._size = file, self._end, SEGMENT_HEADER_BYTES
        self._begun_ns, self._is_seal_wanted = 0, False
        self._digest = chain_seed(header)


def _groups(records: list[_Waiting]) -> Iterator[list[_Waiting]]:
    """Split what waited into groups of a bounded size; mostly it is one."""
    if sum([len(head) + len(body) for head, body, _ in records]) <= _GROUP_BYTES:
        yield records
        return
    group: list[_Waiting] = []
    size = 0
    for record in records:
        size += len(record[0]) + len(record[1])
        if group and size > _GROUP_BYTES:
            yield group
            group, size = [], len(record[0]) + len(record[1])
        group.append(record)
    yield group


def _answer(group: list[_Waiting], position: int, error: JournalError | None) -> None:
    for index, (_, _, done) in enumerate(group):
        try:
            done(position + index, error)
        except Exception:
            # One connection that went away must not cost the others their answers.
            log.exception("an acknowledgement failed")


def _journal_error(error: OSError) -> JournalError:
    if error.errno in _FULL:
        return JournalFull(
            "events journal: expected room on the disk, got none; nothing was written, "
            "free some space and send again"
        )
    return JournalError(
        f"events journal: expected to write and sync, got {os.strerror(error.errno or 0)}; "
        "nothing was acknowledged, send again"
    )
