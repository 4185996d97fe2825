"""Files of the lake and of the archive go to a bucket, in a thread of their own.

Everything is written and merged in the data folder first and visible there, so that nothing waits
for the bucket: while it is down files wait on the disk, and the door takes events for as long as
there is room. What is in the bucket is written down before the local copy may go.
"""

import json
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from sidelight.adapters import Bucket, LakeError, LakeFile, Manifest
from sidelight.adapters._lake_file import TableName
from sidelight.adapters._lake_remote import OWNER
from sidelight.logger import Document, Documents
from sidelight.logger.errors import JournalError
from sidelight.service._archive_copies import ArchiveCopies, every
from sidelight.service._gauges import gauges_document
from sidelight.service._metrics import Labels

log = logging.getLogger(__name__)

OBJECTS: Final = "lake_objects"
"""Collection of the lake's files that are in the bucket, by their path."""

SENDING: Final = "lake_sending"
"""Collection of what may be in the bucket without being written down: an erasure waits for it."""

_PLACE: Final = "lake_place"
_TABLES: Final[tuple[TableName, ...]] = ("inferences", "scores")
_LAST_FILE_S: Final = 3.0
_ROUND_S: Final = 2.0
_LONGEST_PAUSE_S: Final = 30.0
# A file that is merged with others soon need not be sent.
_CALM_S: Final = 20.0


class LakeMover:
    """Sends what is new, deletes what was replaced, and makes room on the disk.

    Parameters
    ----------
    data : Path
        The data folder.
    bucket : Bucket
        Where files go; nobody else writes there.
    documents : Documents
        The manifest, and what is written down of objects.
    keep_bytes : int
        Local copies of what is in the bucket, together.
    copies_archive : bool, default False
        Whether sealed segments go there, too.
    calm_s : float, default 20
        Age of a file that is sent, in seconds since it was seen first.
    clock : callable
        Monotonic seconds.

    """

    def __init__(
        self,
        data: Path,
        bucket: Bucket,
        documents: Documents,
        *,
        keep_bytes: int,
        copies_archive: bool = False,
        calm_s: float = _CALM_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._data = data
        self._lake = data / "lake"
        self._bucket = bucket
        self._documents = documents
        self._keep_bytes = keep_bytes
        archive = ArchiveCopies(data, bucket, documents, clock=clock)
        self._archive = archive if copies_archive else None
        self._calm_s = calm_s
        self._clock = clock
        self._manifest = Manifest(documents)
        self._objects: dict[str, int] = {}
        self._sending: set[str] = set()
        self._seen_s: dict[str, float] = {}
        self._published: dict[tuple[str, Labels], float] = {}
        self._is_ready = False
        self._is_up = True
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lake-mover", daemon=True)

    def start(self) -> None:
        """Begin to work beside everything else."""
        self._thread.start()

    def close(self) -> None:
        """Stop; a file that takes longer than a moment is sent again at the next start."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(_LAST_FILE_S)

    def round(self) -> None:
        """Send and delete whatever is due.

        Raises
        ------
        LakeUnreachable
            When the bucket does not answer; the next round goes on.

        """
        visible = {
            file.entry: file
            for table in _TABLES
            for file in self._manifest.files(table)
            if file.hot is None
        }
        try:
            if not self._is_ready:
                self._begin(visible)
            self._send(visible)
            self._delete(visible)
            self._make_room()
            if self._archive is not None:
                self._archive.round(self._stopping)
        finally:
            self._publish(visible)

    def _run(self) -> None:
        pause_s = _ROUND_S
        while not self._stopping.is_set():
            try:
                self.round()
            except (LakeError, JournalError, OSError) as error:
                if self._is_up:
                    log.warning("bucket of the lake: files wait", extra={"reason": str(error)})
                self._is_up = False
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            except Exception:
                if self._stopping.is_set():
                    return  # the database was closed before a slow store had answered
                log.exception("bucket of the lake: files wait")
                self._is_up = False
                pause_s = _LONGEST_PAUSE_S
            else:
                if not self._is_up:
                    log.info("bucket of the lake: it answers again")
                self._is_up, pause_s = True, _ROUND_S
            self._stopping.wait(pause_s)

    def _begin(self, visible: dict[str, LakeFile]) -> None:
        """Make sure that nobody else has the place; delete what a kill left there."""
        self._claim()
        self._objects = {key: value["bytes"] for key, value in every(self._documents, OBJECTS)}
        for name in self._bucket.names("lake"):
            entry = name.removeprefix("lake/")
            if entry not in self._objects and entry not in visible:
                self._bucket.delete(name)
        self._sending = {key for key, _ in every(self._documents, SENDING)}
        for entry in self._sending & self._objects.keys():
            self._sent(entry)
        self._is_ready = True

    def _claim(self) -> None:
        known = self._documents.get(_PLACE, "folder")
        if known is None:
            known = {"id": uuid4().hex}
            self._documents.put([Document(collection=_PLACE, key="folder", value=known)])
        found = self._bucket.read(OWNER)
        if found is None:
            self._bucket.put_bytes(json.dumps({"folder": known["id"]}).encode(), OWNER)
        elif json.loads(found).get("folder") != known["id"]:
            raise LakeError(
                f"store.lake: the place belongs to another data folder; expected none or "
                f"{known['id']} in {OWNER}, got another; use another prefix"
            )

    def _send(self, visible: dict[str, LakeFile]) -> None:
        now_s = self._clock()
        new = [entry for entry in visible if entry not in self._objects]
        self._seen_s = {entry: self._seen_s.get(entry, now_s) for entry in new}
        for entry in sorted(new, key=lambda entry: self._seen_s[entry]):
            if self._stopping.is_set():
                return
            if now_s - self._seen_s[entry] < self._calm_s:
                continue
            if not self._is_announced(entry):
                continue
            try:
                size = self._bucket.put(self._lake / entry, f"lake/{entry}")
            except FileNotFoundError:
                continue  # replaced meanwhile
            self._note(OBJECTS, entry, {"bytes": size})
            self._objects[entry] = size
            self._sent(entry)

    def _is_announced(self, entry: str) -> bool:
        """Write down that a file is about to be sent; False when it was replaced already.

        Whoever replaces it afterwards sees that, and knows that the bucket may get it yet.
        """
        self._documents.put([Document(collection=SENDING, key=entry, value={})])
        self._sending.add(entry)
        return self._manifest.are_visible([entry])

    def _sent(self, entry: str) -> None:
        self._note(SENDING, entry, None)
        self._sending.discard(entry)

    def _delete(self, visible: dict[str, LakeFile]) -> None:
        for entry in [entry for entry in self._objects if entry not in visible]:
            self._bucket.delete(f"lake/{entry}")
            self._note(OBJECTS, entry, None)
            del self._objects[entry]
        for entry in [entry for entry in self._sending if entry not in visible]:
            self._bucket.delete(f"lake/{entry}")
            self._sent(entry)

    def _make_room(self) -> None:
        """Delete local copies that were used longest ago, but none that a query may still read."""
        copies = []
        now_s = time.time()
        for entry in self._objects:
            try:
                copies.append(((self._lake / entry).stat(), entry))
            except FileNotFoundError:
                continue
        excess = sum(found.st_size for found, _ in copies) - self._keep_bytes
        for found, entry in sorted(copies, key=lambda copy: copy[0].st_atime):
            if excess <= 0:
                return
            # ``Copies`` says so: their last use is to come.
            if found.st_atime > now_s:
                continue
            if self._bucket.size(f"lake/{entry}") != found.st_size:
                # It is not what was sent: it goes there once more.
                self._note(OBJECTS, entry, None)
                del self._objects[entry]
                continue
            (self._lake / entry).unlink(missing_ok=True)
            excess -= found.st_size

    def _publish(self, visible: dict[str, LakeFile]) -> None:
        waiting = [file.bytes for entry, file in visible.items() if entry not in self._objects]
        values: dict[tuple[str, Labels], float] = {
            ("lake_waiting_files", ()): float(len(waiting)),
            ("lake_waiting_bytes", ()): float(sum(waiting)),
        }
        if values != self._published:
            self._documents.put([gauges_document("lake", values)])
            self._published = values

    def _note(self, collection: str, key: str, value: dict[str, Any] | None) -> None:
        self._documents.put([Document(collection=collection, key=key, value=value)])
