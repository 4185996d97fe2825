"""The embedded events journal: one write is both the acknowledgement and the audit record."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue

from sidelight.logger._checkpoint import SealedSegment, Watch
from sidelight.logger._segments_archive import Archive, journal_error
from sidelight.logger._segments_outage import Outage
from sidelight.logger._segments_reader import SegmentReader
from sidelight.logger._segments_recovery import Recovery
from sidelight.logger._segments_signature import Signer
from sidelight.logger.errors import JournalError

__all__ = ["Deliver", "Done", "SegmentReader", "SegmentWriter"]

log = logging.getLogger(__name__)

Done = Callable[[int, JournalError | None], None]
"""Called once with the position when the record is durable, or with the reason why it is not."""

Deliver = Callable[[Callable[[], None]], object]
"""Runs the calls for one group somewhere, such as ``loop.call_soon_threadsafe``."""

SEGMENT_BYTES = 128 << 20
# A group is joined in memory before it is written; more than this waits for the next one.
_GROUP_BYTES = 4 << 20
# A quick sync costs a loop less than handing it to a thread and back; a slow one would stop it.
_SLOW_SYNC_S = 1e-3
# Clients that wait for their answers come back together, and half of them would come too late for
# the next sync: it waits a little for most of those who were answered by the last. A loop that
# looks at its connections twice more finds them, for a few microseconds.
_ENOUGH = 0.95
_MORE_TURNS = 2
_PATIENCE_S = 1e-3

_Waiting = tuple[bytes, bytes, Done]


class SegmentWriter:
    """Appends records durably: what arrives during one sync is the group of the next.

    One thread writes, or the loop that hands over where its disk is quick. A lone record waits for
    one ``fdatasync`` and nothing else. As many as came last are waited for: by a loop for two more
    turns, where syncs take more than a millisecond up to another.
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
    watch : callable, optional
        Looks at the access log, whose end each signed checkpoint states.

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
        watch: Watch | None = None,
    ) -> None:
        self._archive = Archive(
            data,
            segment_bytes=segment_bytes,
            signer=signer,
            clock=time.time_ns if clock is None else clock,
            sync=sync,
            watch=watch,
        )
        self.recovery: Recovery = self._archive.recovery
        self._deliver = deliver
        self._gather = gather
        # Held by whoever writes: the thread or the loop.
        self._writing = threading.Lock()
        self._wanted = 0.0
        self.groups = 0
        self.failed_groups = 0
        self._outage = Outage()
        self._unsigned = Outage("checkpoints")
        self.largest_group = 0
        self._waiting: deque[_Waiting] = deque()
        # What waits is taken at once; only a thread that sleeps needs to be told.
        self._tokens: SimpleQueue[None] = SimpleQueue()
        self._is_told = False
        self._turns = 0
        self._stopping = False
        self._is_progress_wanted = False
        self.sign_seconds = 0.0
        self._thread = threading.Thread(target=self._run, name="sidelight-commit", daemon=True)
        self._thread.start()

    @property
    def end(self) -> int:
        """The position behind the last durable record."""
        return self._archive.end

    @property
    def is_lost(self) -> bool:
        """Whether somebody deleted the segment that is written to."""
        return self._archive.is_lost

    @property
    def sync_seconds(self) -> float:
        """Spent in syncs of groups."""
        return self._archive.sync_seconds

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
        self._stopping = True
        self._tokens.put(None)
        self._thread.join()
        with self._writing:
            self._archive.close()

    def seal_begun_before(self, time_ns: int) -> None:
        """Have a new segment begun when the first record of this one came before a time.

        What is written to is never retired: without it little traffic would keep its segment
        for years.
        """
        if 0 < self._archive.begun_ns < time_ns:
            self._archive.is_seal_wanted = True
            self._tokens.put(None)

    def sign_progress(self, *, for_events: bool = True) -> None:
        """Have the signed checkpoint cover, soon, what is durable by now; it reads a file.

        Parameters
        ----------
        for_events : bool, default True
            False leaves the checkpoint as it is unless the access log has grown.

        """
        self._archive.look_beside()
        if for_events or self._archive.is_beside_new:
            self._is_progress_wanted = True
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
        return self._archive.retire(reasons)

    def _write_or_tell(self) -> None:
        takes_long = self._takes_long()
        if self._gather and not takes_long and self._turns < _MORE_TURNS and not self._is_enough():
            self._turns += 1
            self._gather(self._write_or_tell)
            return
        self._turns = 0
        # Before looking: who hands over after the last look tells again.
        self._is_told = False
        if takes_long or not self._writing.acquire(blocking=False):
            self._tokens.put(None)
            return
        try:
            self._write_waiting(in_thread=False)
        finally:
            self._writing.release()

    def _is_enough(self) -> bool:
        return len(self._waiting) >= self._wanted or self._stopping

    def _takes_long(self) -> bool:
        """Whether the next group is no work for a loop, which has others to serve."""
        return self._archive.usual_sync_s > _SLOW_SYNC_S or self._archive.is_segment_over

    def _run(self) -> None:
        while True:
            self._tokens.get()
            self._is_told = False
            with self._writing:
                self._write_waiting(in_thread=True)
                if self._archive.is_seal_wanted:
                    self._roll_at_rest()
                if self._is_progress_wanted:
                    self._is_progress_wanted = False
                    self._sign_progress()
            if self._stopping:
                return

    def _write_waiting(self, *, in_thread: bool) -> None:
        waiting = self._waiting
        deliver = self._deliver if in_thread else None
        while waiting:
            if in_thread and self._archive.usual_sync_s > _SLOW_SYNC_S:
                self._wait_for_company()
            records = [waiting.popleft() for _ in range(len(waiting))]
            for group in _groups(records):
                self._commit(group, deliver)
            if not in_thread:
                # Who was answered may have handed over the next one and said so: the loop has
                # others to serve before it.
                return

    def _wait_for_company(self) -> None:
        until = time.perf_counter() + _PATIENCE_S
        while not self._is_enough():
            left_s = until - time.perf_counter()
            if left_s <= 0:
                return
            with suppress(Empty):
                self._tokens.get(timeout=left_s)
            self._is_told = False

    def _roll_at_rest(self) -> None:
        try:
            self._archive.roll()
        except OSError:
            # The next record tries again.
            log.exception("a new segment could not be begun")

    def _sign_progress(self) -> None:
        begun_s = time.perf_counter()
        try:
            if self._archive.sign_progress():
                self._unsigned.passed()
            self.sign_seconds = time.perf_counter() - begun_s
        except OSError as failure:
            # The next time tries again; until then the checkpoint covers what it did.
            self._unsigned.failed(failure)

    def _commit(self, group: list[_Waiting], deliver: Deliver | None = None) -> None:
        position, error = self._archive.end, None
        try:
            self._archive.write(group)
            self.groups += 1
            self.largest_group = max(self.largest_group, len(group))
            # Who is answered now comes again, and joins who came meanwhile.
            self._wanted = _ENOUGH * (len(group) + len(self._waiting))
            self._outage.passed()
        except Exception as failure:  # noqa: BLE001 - whatever it is, senders are waiting
            error = journal_error(failure)
            self.failed_groups += 1
            self._outage.failed(failure)
        answer = partial(_answer, group, position, error)
        if deliver is None:
            answer()
        else:
            # The loop of a door that is going down may be closed already; its clients are gone.
            with suppress(RuntimeError):
                deliver(answer)


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
