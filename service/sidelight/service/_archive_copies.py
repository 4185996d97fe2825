"""Sealed segments of the archive in a bucket, byte for byte, for checks of a downloaded copy."""

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from sidelight.adapters import Bucket, LakeError
from sidelight.logger import Document, Documents
from sidelight.logger._checkpoint import Checkpoint, SealedSegment
from sidelight.logger.errors import JournalDamaged

COPIES: Final = "archive_copies"
"""Collection of the files that are in the bucket, by their name."""

_PAGE: Final = 1000
# In a bucket that keeps versions each checkpoint is one more object.
_PROGRESS_S: Final = 10.0


class ArchiveCopies:
    """Copies what is sealed, then the checkpoint that names it; deletes what was retired.

    Parameters
    ----------
    data : Path
        The data folder.
    bucket : Bucket
        Where ``raw/`` and ``format`` go, under the names that they have in the folder.
    documents : Documents
        What is written down of the copies.
    clock : callable, default time.monotonic
        Seconds.

    """

    def __init__(
        self,
        data: Path,
        bucket: Bucket,
        documents: Documents,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._data = data
        self._bucket = bucket
        self._documents = documents
        self._clock = clock
        self._put: tuple[Checkpoint, float] | None = None

    def round(self, stopping: threading.Event) -> None:
        """Copy and delete whatever is due; done again it changes nothing.

        Raises
        ------
        LakeUnreachable
            When the bucket does not answer.
        LakeError
            When the checkpoint is damaged.

        """
        try:
            checkpoint = Checkpoint.load(self._data)
        except JournalDamaged as error:
            raise LakeError(f"segments are not copied: {error}") from error
        if checkpoint is None:
            return
        copied = dict(every(self._documents, COPIES))
        for segment in checkpoint.segments:
            if stopping.is_set():
                return
            if not segment.is_retired and segment.name not in copied:
                self._copy(segment)
        # Behind its segments: whoever downloads the folder finds all that it names.
        self._put_checkpoint(checkpoint, copied)
        self._replace("format", (self._data / "format").read_bytes(), copied)
        for segment in checkpoint.segments:
            if segment.is_retired and segment.name in copied:
                self._bucket.delete(f"raw/{segment.name}")
                self._note(segment.name, None)

    def _copy(self, segment: SealedSegment) -> None:
        try:
            size = self._bucket.put(self._data / "raw" / segment.name, f"raw/{segment.name}")
        except FileNotFoundError:
            return  # retired meanwhile; the next checkpoint says so
        self._note(segment.name, {"bytes": size})

    def _put_checkpoint(self, checkpoint: Checkpoint, copied: dict[str, Any]) -> None:
        """Put it at once when it says other things of segments; else what came on, now and then."""
        steady, now_s = replace(checkpoint, open=None, access=None, signature=""), self._clock()
        if self._put is not None:
            known, put_s = self._put
            if steady == known and now_s - put_s < _PROGRESS_S:
                return
        if self._replace("raw/checkpoint.json", checkpoint.encode(), copied):
            self._put = steady, now_s

    def _replace(self, name: str, content: bytes, copied: dict[str, Any]) -> bool:
        """Put what the bucket does not have; return whether it had to be."""
        value = {"sha256": hashlib.sha256(content).hexdigest()}
        if copied.get(name) == value:
            return False
        self._bucket.put_bytes(content, name)
        self._note(name, value)
        return True

    def _note(self, key: str, value: dict[str, Any] | None) -> None:
        self._documents.put([Document(collection=COPIES, key=key, value=value)])


def every(documents: Documents, collection: str) -> Iterator[tuple[str, Any]]:
    """Yield key and value of all documents of a collection."""
    after: tuple[str, str] | None = None
    while True:
        page = documents.find(collection, descending=False, after=after, limit=_PAGE)
        yield from ((key, value) for _, key, value in page)
        if len(page) < _PAGE:
            return
        after = page[-1][0], page[-1][1]
