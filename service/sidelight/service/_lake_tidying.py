"""Keeping the files of the lake few: hot rows move, small files become large ones."""

import logging
import time
from contextlib import suppress
from typing import Final

import pyarrow as pa

from sidelight.adapters import Compaction, Lake, LakeError, Manifest
from sidelight.logger import Commit, Documents, Journals
from sidelight.logger.errors import JournalError
from sidelight.service._background import Background
from sidelight.service._lake_commits import LakeCommits
from sidelight.service._stage import STORING

log = logging.getLogger(__name__)

_TIDY_NS: Final = 15_000_000_000
# Hot rows move when there are so many files of them, or when nothing has come for a while.
_MANY_HOT_FILES: Final = 64
_MANY_FILES: Final = 32
# What is merged when there is nothing else to do.
_FEW_FILES: Final = 8
_QUIET_NS: Final = 10_000_000_000
# Queries hold files that a compaction replaced for no longer than this.
_GRACE_NS: Final = 60_000_000_000
_TRIED: Final = b"tidying_tried"


class LakeTidying:
    """Moves and merges in a thread of its own, so that new rows do not wait; commits in the stage.

    Parameters
    ----------
    journals : Journals
        Where changes of the manifest are committed.
    documents : Documents
        The manifest as it is committed.
    lake : Lake
    manifest : Manifest

    """

    def __init__(
        self, journals: Journals, documents: Documents, lake: Lake, manifest: Manifest
    ) -> None:
        self._commits = LakeCommits(journals, documents, lake)
        self._lake = lake
        self._manifest = manifest
        self._work: Background[Compaction | None] = Background("lake-tidying")
        self._obsolete: list[tuple[int, tuple[str, ...]]] = []
        self._noted_ns = 0
        self._tidied_ns = 0

    def note(self, now_ns: int) -> None:
        """Take note that new files were written."""
        self._noted_ns = now_ns

    def step(self, now_ns: int) -> bool:
        """Begin, or commit what is done; return whether something was committed."""
        if self._work.is_busy:
            return self._taken(now_ns)
        # A clock that was set back makes nobody wait for what it showed before.
        if 0 <= now_ns - self._tidied_ns < _TIDY_NS:
            return False
        self._tidied_ns = now_ns
        forgotten = self._forget(now_ns)
        if self._commits.are_unsure:
            # Perhaps there is nothing to merge any more, and no other commit to come.
            self._commits.commit(
                Commit(group=STORING, journal="inferences", state={_TRIED: str(now_ns).encode()})
            )
        is_quiet = not 0 <= now_ns - self._noted_ns < _QUIET_NS
        self._work.start(self._when_quiet if is_quiet else self._under_way)
        return forgotten

    def close(self) -> None:
        """Wait for what is under way, and commit it."""
        self._work.wait()
        with suppress(JournalError):
            # What cannot be committed is removed by the next start, and done again.
            self._taken(time.time_ns())

    def _under_way(self) -> Compaction | None:
        return self._tidied(min_hot_files=_MANY_HOT_FILES, min_files=_MANY_FILES)

    def _when_quiet(self) -> Compaction | None:
        return self._tidied(min_hot_files=1, min_files=_FEW_FILES)

    def _tidied(self, *, min_hot_files: int, min_files: int) -> Compaction | None:
        moved = self._lake.settle(self._manifest, min_files=min_hot_files)
        done = moved or self._lake.compact(self._manifest, min_files=min_files)
        if done is not None:
            # What a merge held is not kept for the next one.
            pa.default_memory_pool().release_unused()
        return done

    def _taken(self, now_ns: int) -> bool:
        try:
            with self._commits.staging():
                results = self._work.take()
        except LakeError as error:
            # No room, or a damaged file: nothing has changed, and the next time tries again.
            log.warning("lake not tidied", extra={"reason": str(error)})
            return False
        for compaction in results:
            if compaction is not None:
                self._commit(compaction, now_ns)
                return True
        return False

    def _commit(self, compaction: Compaction, now_ns: int) -> None:
        self._tidied_ns = 0
        try:
            is_current = self._manifest.are_visible(compaction.obsolete)
        except JournalError:
            self._commits.doubt(compaction.documents)
            raise
        if not (is_current and self._lake.has(compaction)):
            # Retention or an erasure has replaced one of the files since the work began; an
            # erasure makes the same new files, and may have deleted them or named them.
            self._commits.give_up(compaction.documents)
            return
        self._commits.commit(
            Commit(group=STORING, journal="inferences", documents=compaction.documents)
        )
        self._obsolete.append((now_ns, compaction.obsolete))

    def _forget(self, now_ns: int) -> bool:
        due = [paths for since, paths in self._obsolete if abs(now_ns - since) > _GRACE_NS]
        self._obsolete = [item for item in self._obsolete if abs(now_ns - item[0]) <= _GRACE_NS]
        forgotten = [document for paths in due for document in self._lake.remove(paths)]
        if forgotten:
            self._commits.commit(Commit(group=STORING, journal="inferences", documents=forgotten))
        return bool(forgotten)
