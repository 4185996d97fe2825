"""The files of the embedded events journal, as their one writer has them."""

import errno
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

from sidelight.logger._checkpoint import Checkpoint, SealedSegment, Watch
from sidelight.logger._segments_beside import Beside
from sidelight.logger._segments_folder import (
    SIGNED_VERSION,
    DurableMark,
    FolderLock,
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
from sidelight.logger._segments_recovery import Recovery, recover
from sidelight.logger._segments_signature import Signer
from sidelight.logger.errors import JournalError, JournalFull

log = logging.getLogger(__name__)

_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Archive:
    """The segments of one data folder, written group by group.

    One caller at a time, but for `retire`, which may be called in any thread. Parameters and
    errors are those of ``SegmentWriter``.

    Attributes
    ----------
    recovery : Recovery
        What the start found.
    end : int
        The position behind the last durable record.
    sync_seconds : float
        Spent in syncs of groups.
    usual_sync_s : float
        How long one of them has taken lately.
    is_seal_wanted : bool
        Whether the next group is to begin a new segment.
    begun_ns : int
        Receive time of the first record of this segment; 0 when it has none.

    """

    def __init__(
        self,
        data: Path,
        *,
        segment_bytes: int,
        signer: Signer | None,
        clock: Callable[[], int],
        sync: Callable[[int], None] | None,
        watch: Watch | None = None,
    ) -> None:
        version = open_folder(data)
        self._signer = signer
        self._clock = clock
        self._sync = sync
        self._data = data
        self._segment_bytes = segment_bytes
        self._lock = FolderLock(data, "events")
        # Held while the list of segments changes: one writes and seals, others retire.
        self._listing = threading.RLock()
        self._mark = DurableMark(data, writable=True)
        self._closed = False
        self._file, self._first, self._size = -1, 0, 0
        self._digest = CHAIN_START
        # What was signed of the segment that is written to.
        self._progress: SealedSegment | None = None
        self.is_seal_wanted = False
        self.begun_ns = 0
        self.sync_seconds = 0.0
        self.usual_sync_s = 0.0
        try:
            trusted = None if signer is None or version < SIGNED_VERSION else signer.trusted
            self.recovery: Recovery = recover(data, self._mark, trusted=trusted)
            self._sealed = self.recovery.segments
            self.end = self.recovery.next_position
            is_first_signed = signer is not None and version < SIGNED_VERSION
            self._adopted = self.end if is_first_signed else self.recovery.adopted
            self._time_ns = self.recovery.time_ns
            self._beside = Beside(
                None if signer is None else watch,
                head=self.recovery.access,
                findings=self.recovery.findings,
            )
            self._begin(version)
        except OSError as error:
            self._release()
            raise journal_error(error) from error
        except BaseException:
            self._release()
            raise
        self._mark.value = self.end

    @property
    def is_segment_over(self) -> bool:
        """Whether the next group begins a new segment."""
        return self._file < 0 or self._size >= self._segment_bytes or self.is_seal_wanted

    def write(self, group: Sequence[tuple[bytes, bytes, object]]) -> None:
        """Make a group of (head, body, ...) durable, or leave everything as it was.

        Raises
        ------
        OSError
            When it could not be made durable.

        """
        if self.is_segment_over:
            self.roll()
        time_ns = max(self._clock(), self._time_ns)
        header, payloads, digest = encode_group(
            self._digest,
            first=self.end,
            time_ns=time_ns,
            records=group,
        )
        try:
            write_all(self._file, (header, payloads))
        except BaseException:
            self._take_back()
            raise
        before = time.perf_counter()
        try:
            (self._sync or os.fdatasync)(self._file)
        except BaseException:
            self._take_back()
            self._abandon()
            raise
        took_s = time.perf_counter() - before
        self.sync_seconds += took_s
        self.usual_sync_s += (took_s - self.usual_sync_s) / 8
        self.begun_ns = self.begun_ns or time_ns
        self._size += len(header) + len(payloads)
        self._digest, self._time_ns = digest, time_ns
        self.end += len(group)
        self._mark.value = self.end

    def sign_progress(self) -> bool:
        """Have the checkpoint cover what is durable by now, unless it does already.

        Only a clean end covers the last segment otherwise: after a kill whoever can write to the
        folder could make anew what was acknowledged since that segment was begun.

        Returns
        -------
        bool
            Whether there was anything to sign, and it is durable.

        Raises
        ------
        OSError
            When the checkpoint cannot be stored; the former one stays.

        """
        if self._signer is None or self._file < 0:
            return False
        signed = self._first if self._progress is None else self._progress.next_position
        if signed == self.end and not self.is_beside_new:
            return False
        with self._listing:
            before = self._progress
            if self.end > self._first:
                self._progress = self._as_sealed()
            try:
                self._checkpoint(closed=False)
            except OSError:
                self._progress = before
                raise
        return True

    def look_beside(self) -> None:
        """Look how far the access log goes; the next checkpoint says it. In any thread."""
        self._beside.look()

    @property
    def is_beside_new(self) -> bool:
        """Whether the last look at the access log saw what no checkpoint says yet."""
        return self._beside.seen != self._beside_signed

    def roll(self) -> None:
        """Seal this segment and begin the next one."""
        with self._listing:
            if self._file >= 0:
                self._seal()
            self._begin_segment()

    def close(self) -> None:
        """Seal the segment, cover every byte by the checkpoint, let the folder go."""
        with self._listing:
            if self._closed:
                return
            self.look_beside()
            try:
                self._seal()
                self._checkpoint(closed=True)
            except OSError:
                # Nothing acknowledged is lost: the next start checks the segment and seals it.
                log.exception("the journal could not be sealed at its end")
            finally:
                self._closed = True
                self._release()

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
                raise journal_error(error) from error
        try:
            for name in chosen:
                (self._data / "raw" / name).unlink(missing_ok=True)
            sync_folder(self._data / "raw")
        except OSError:
            log.exception("a retired segment could not be deleted; the next start does it")
        return list(chosen.values())

    def _begin(self, version: int) -> None:
        """Begin to write; the folder says what its checkpoints hold before the first does.

        But where a checkpoint is that nobody has signed: that version would ask who did.
        """
        is_old = version < SIGNED_VERSION
        is_unsigned = is_old and (self._data / "raw" / "checkpoint.json").exists()
        if not is_unsigned:
            self._upgrade(version)
            self.look_beside()
        self._begin_segment()
        if is_unsigned:
            self._upgrade(version)
            self.look_beside()

    def _upgrade(self, version: int) -> None:
        if self._signer is not None:
            upgrade_folder(self._data, from_version=version)

    def _release(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        self._mark.close()
        self._lock.close()

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
        self._progress = None
        if self.end == self._first:
            # Nothing of it is durable, and the next segment will have its name.
            with suppress(OSError):
                (self._data / "raw" / segment_name(self._first)).unlink()
        else:
            with self._listing:
                self._sealed = (*self._sealed, self._as_sealed())

    def _seal(self) -> None:
        if self._file < 0:
            return
        os.close(self._file)
        self._file = -1
        self._progress = None
        if self.end == self._first:
            (self._data / "raw" / segment_name(self._first)).unlink()
            sync_folder(self._data / "raw")
        else:
            self._sealed = (*self._sealed, self._as_sealed())

    def _checkpoint(self, *, closed: bool) -> None:
        access, findings = beside = self._beside.seen
        checkpoint = Checkpoint(
            segments=self._sealed,
            closed=closed,
            findings=findings,
            open=self._progress,
            access=access,
            adopted=self._adopted,
        )
        if self._signer is not None:
            checkpoint = checkpoint.signed_by(self._signer)
        checkpoint.store(self._data)
        self._beside_signed = beside

    @property
    def is_lost(self) -> bool:
        """Whether the segment that is written to was deleted: nobody could read what it gets."""
        file = self._file
        try:
            return file >= 0 and os.fstat(file).st_nlink == 0
        except OSError:
            # Closed by the thread that writes, for the next one.
            return False

    def _as_sealed(self) -> SealedSegment:
        return SealedSegment(
            name=segment_name(self._first),
            bytes=self._size,
            records=self.end - self._first,
            first=self._first,
            digest=self._digest.hex(),
            time_ns=self._time_ns,
        )

    def _begin_segment(self) -> None:
        # The checkpoint first: a segment that it does not list is newer than all that it lists.
        self._checkpoint(closed=False)
        path = self._data / "raw" / segment_name(self.end)
        previous = bytes.fromhex(self._sealed[-1].digest) if self._sealed else CHAIN_START
        header = encode_segment_header(self.end, previous)
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            write_all(file, (header,))
            os.fdatasync(file)
            sync_folder(path.parent)
        except BaseException:
            os.close(file)
            path.unlink()
            raise
        self._file, self._first, self._size = file, self.end, SEGMENT_HEADER_BYTES
        self.begun_ns, self.is_seal_wanted = 0, False
        self._digest = chain_seed(header)


def journal_error(error: Exception) -> JournalError:
    """Return what to tell those whose records could not be made durable."""
    if not isinstance(error, OSError):
        return JournalError(
            f"events journal: expected to write and sync, got {type(error).__name__}; "
            "nothing was acknowledged, send again"
        )
    if error.errno in _FULL:
        return JournalFull(
            "events journal: expected room on the disk, got none; nothing was written, "
            "free some space and send again"
        )
    return JournalError(
        f"events journal: expected to write and sync, got {os.strerror(error.errno or 0)}; "
        "nothing was acknowledged, send again"
    )
