"""What is past its retention goes: rows of the lake, results, segments of the archive.

It works beside the other stages in slices of a few milliseconds. Whole files go first, since that
needs no room; a kill at any moment leaves what was there before or after, and the next sweep does
the rest.
"""

import logging
import time
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any, Final, Literal

from sidelight.adapters import Decoder, Lake, LakeError, LakeFile, Manifest
from sidelight.logger import WAITING_PREFIX, Commit, Document, Documents, EventLimits, Journals
from sidelight.logger._checkpoint import Checkpoint, SealedSegment
from sidelight.logger._pairing_state import PairState
from sidelight.logger.errors import JournalDamaged
from sidelight.service._deployments import deployment_names, get_settings
from sidelight.service._gauges import gauges_document
from sidelight.service._holds import Hold, Holds
from sidelight.service._label_values import instant, is_time
from sidelight.service._lake_commits import LakeCommits
from sidelight.service._metrics import Labels, split_name
from sidelight.service._registered import RegisteredSettings
from sidelight.service._retention_period import cutoff_us, pause_s
from sidelight.service._retirement import Retirement, ask
from sidelight.service._segment_contents import SegmentContents
from sidelight.service._segment_scan import scanned
from sidelight.service._settings import Settings
from sidelight.service._stage import DECODING, RETENTION, Counts

log = logging.getLogger(__name__)

CONTENTS: Final = "segment_contents"
_RESULTS: Final = ("verdicts", "alarms", "labels", "explanations", "replies")
_TABLES: Final[tuple[Literal["inferences", "scores"], ...]] = ("inferences", "scores")
_SLICE_S: Final = 0.01
_PAGE: Final = 200
_DAY_US: Final = 86_400_000_000
# As long as queries may hold what was hidden.
_GRACE_NS: Final = 60_000_000_000

_Work = Generator[None, None, None]


class RetentionStage:
    """Deletes what is older than its retention and on no legal hold.

    Parameters
    ----------
    journals : Journals
        Where the changes are committed.
    documents : Documents
        The manifest, the results and the configuration of deployments.
    lake : Lake
        Writes what stays of files.
    settings : Settings
        The data folder, the retention of deployments that say none, and of the archive.

    """

    name = RETENTION

    def __init__(
        self, journals: Journals, documents: Documents, lake: Lake, settings: Settings
    ) -> None:
        self._journals = journals
        self._documents = documents
        self._lake = lake
        self._commits = LakeCommits(journals, documents, lake)
        self._settings = settings
        self._data: Path = settings.data
        self._holds = Holds(settings.data)
        self._manifest = Manifest(documents)
        self._limits = EventLimits(max_inflated_bytes=settings.limits.decompressed)
        self._decoder = Decoder(
            RegisteredSettings(documents).schema, max_inflated_bytes=settings.limits.decompressed
        )
        self._obsolete: list[tuple[int, tuple[str, ...]]] = []
        # Files whose old rows are all on hold, by what was asked: they need not be read again.
        self._untouched: dict[str, object] = {}
        self._swept_ns = 0
        self._pause_s = 0.0
        self._failures = 0
        self._work: _Work | None = None

    def reset(self) -> None:
        """Give up the sweep that is under way; the next one begins anew."""
        self._work = None

    def step(self, now_ns: int) -> bool:
        """Go on with a sweep, or begin one when it is time."""
        if self._work is None:
            # A clock that was set back makes nobody wait for what it showed before.
            if 0 <= now_ns - self._swept_ns < self._pause_s * 1e9:
                return False
            self._swept_ns = now_ns
            self._work = self._sweep(now_ns)
        until_s = time.monotonic() + _SLICE_S
        try:
            for _ in self._work:
                if time.monotonic() > until_s:
                    return True
        except Exception:
            self._failures += 1
            self._work = None
            raise
        self._work = None
        return False

    def _sweep(self, now_ns: int) -> _Work:
        self._forget(now_ns)
        retentions = self._retentions()
        self._pause_s = pause_s(retentions.values())
        cutoffs = {name: cutoff_us(now_ns // 1000, of) for name, of in retentions.items()}
        yield from self._expire_files(cutoffs, now_ns)
        for name, before_us in cutoffs.items():
            for collection in _RESULTS:
                yield from self._expire_results(collection, name, before_us)
        overdue: dict[str, int] = {}
        if self._settings.audit.raw_retention is not None:
            yield from self._retire_segments(
                now_ns, self._settings.audit.raw_retention, cutoffs, overdue
            )
        self._publish(overdue)

    def _retentions(self) -> dict[str, float]:
        """Return the retention of each deployment that has one, in seconds."""
        names = set(deployment_names(self._documents))
        if self._settings.retention is not None:
            # Of a deployment that was deleted nothing else is known than its files.
            for table in _TABLES:
                names.update(file.deployment for file in self._manifest.files(table))
        given = {
            name: get_settings(self._documents, name).retention or self._settings.retention
            for name in sorted(names)
        }
        return {name: retention for name, retention in given.items() if retention is not None}

    def _forget(self, now_ns: int) -> None:
        """Delete files that were hidden a while ago, and count sweeps that failed."""
        due = [paths for since, paths in self._obsolete if abs(now_ns - since) > _GRACE_NS]
        self._obsolete = [item for item in self._obsolete if abs(now_ns - item[0]) <= _GRACE_NS]
        counts = Counts()
        counts.add("retention_failures_total", (), self._failures)
        forgotten = [document for paths in due for document in self._lake.remove(paths)]
        if forgotten or counts:
            self._commit(forgotten, counts)
        self._failures = 0

    def _expire_files(self, cutoffs: dict[str, int], now_ns: int) -> _Work:
        if not cutoffs:
            return
        old = [
            file
            for table in _TABLES
            for file in self._manifest.files(table)
            if file.min_us < cutoffs.get(file.deployment, file.min_us)
        ]
        self._untouched = {file.path: self._untouched.get(file.path) for file in old}
        # Whole files first: they give room for the others.
        for file in sorted(old, key=lambda item: item.max_us >= cutoffs[item.deployment]):
            yield
            try:
                self._expire_file(file, cutoffs[file.deployment], now_ns)
            except LakeError as error:
                # No room for what stays of it: the next sweep tries again, and the rest goes on.
                self._failures += 1
                log.warning("old rows not deleted", extra={"reason": str(error)})

    def _expire_file(self, file: LakeFile, before_us: int, now_ns: int) -> None:
        with self._holds.kept() as holds:
            kept = [hold.span for hold in holds if hold.deployment == file.deployment]
            asked = (before_us, tuple(kept))
            if self._untouched.get(file.path) == asked:
                return
            # What another stage merged since is found by the next sweep.
            if file not in self._manifest.files(file.table, deployment=file.deployment):
                return
            change = self._lake.expire(file, before_us=before_us, kept=kept)
            if change is None:
                self._untouched[file.path] = asked
                return
            counts = Counts()
            labels = (*split_name(file.deployment), ("table", file.table))
            counts.add("expired_rows_total", labels, file.rows - change.rows)
            self._commit(change.documents, counts)
        self._obsolete.append((now_ns, change.obsolete))

    def _expire_results(self, collection: str, name: str, before_us: int) -> _Work:
        after: tuple[str, str] | None = None
        while True:
            yield
            page = self._documents.find(
                collection, deployment=name, descending=False, after=after, limit=_PAGE
            )
            if not page:
                return
            old = [item for item in page if _is_over(collection, item[0], item[2], before_us)]
            if old:
                with self._holds.kept() as holds:
                    # Labels and explanations come later than what they belong to: a hold on any
                    # time of the deployment keeps them all.
                    if not any(hold.deployment == name for hold in holds):
                        self._delete(collection, name, [key for _, key, _ in old])
            last = page[-1][0]
            if len(page) < _PAGE or (is_time(last) and _time_us(last) > before_us + _DAY_US):
                return
            after = page[-1][0], page[-1][1]

    def _delete(self, collection: str, name: str, keys: Sequence[str]) -> None:
        also = ("acknowledgements",) if collection == "alarms" else ()
        documents = [Document(collection=of, key=key) for of in (collection, *also) for key in keys]
        counts = Counts()
        labels = (*split_name(name), ("kind", collection))
        counts.add("expired_results_total", labels, len(keys))
        self._commit(documents, counts)

    def _retire_segments(
        self, now_ns: int, raw_retention_s: float, cutoffs: dict[str, int], overdue: dict[str, int]
    ) -> _Work:
        wanted: list[Retirement] = []
        needed_from = self._needed_from()
        for segment in self._old_segments(now_ns, raw_retention_s):
            contents = yield from self._contents(segment)
            with self._holds.kept() as holds:
                reason = _kept_because(contents, cutoffs, holds)
            if segment.next_position > needed_from:
                reason = reason or "waiting"
            if reason:
                overdue[reason] = overdue.get(reason, 0) + 1
                continue
            why = f"older than {raw_retention_s / 86400:g} days, and than the retention of "
            names = ", ".join(sorted(contents.spans)) or "nobody"
            wanted.append(Retirement(name=segment.name, why=why + names, contents=contents))
        if wanted:
            ask(self._data, wanted)

    def _old_segments(self, now_ns: int, raw_retention_s: float) -> list[SealedSegment]:
        try:
            checkpoint = Checkpoint.load(self._data) or Checkpoint()
        except JournalDamaged as error:
            log.warning("segments are not retired", extra={"reason": str(error)})
            return []
        before_ns = now_ns - int(raw_retention_s * 1e9)
        old = [item for item in checkpoint.segments if item.time_ns < before_ns]
        gone = [
            Document(collection=CONTENTS, key=item.name)
            for item in old
            if item.is_retired and self._documents.get(CONTENTS, item.name) is not None
        ]
        if gone:
            self._commit(gone, Counts())
        return [item for item in old if not item.is_retired]

    def _contents(self, segment: SealedSegment) -> Generator[None, None, SegmentContents]:
        if segment.damaged:
            return SegmentContents(spans={}, is_sound=False, has_unknown=True)
        known = self._documents.get(CONTENTS, segment.name)
        if known is not None:
            return SegmentContents.from_json(known)
        contents = yield from scanned(self._data, segment, self._decoder, self._limits)
        document = Document(collection=CONTENTS, key=segment.name, value=contents.to_json())
        self._commit([document], Counts())
        return contents

    def _needed_from(self) -> int:
        """Return the first position that the decoding stage may still read."""
        position = self._journals.positions(DECODING, "events").get(0, 0)
        waiting = (
            half.ref.position
            for _, value in self._journals.scan(DECODING, WAITING_PREFIX)
            for half in PairState.unpack(value)[:2]
            if half is not None
        )
        return min(position, *waiting, position)

    def _publish(self, overdue: dict[str, int]) -> None:
        values: dict[tuple[str, Labels], float] = {
            ("overdue_segments", (("reason", reason),)): float(overdue.get(reason, 0))
            for reason in ("retention", "hold", "waiting", "damaged")
        }
        with self._holds.kept() as holds:
            values["legal_holds", ()] = float(len(holds))
        self._commit([gauges_document("retention", values)], Counts())

    def _commit(self, documents: Sequence[Document], counts: Counts) -> None:
        self._commits.commit(
            Commit(
                group=RETENTION,
                journal="inferences",
                documents=documents,
                counters=counts,
                erase=True,
            )
        )


def _kept_because(contents: SegmentContents, cutoffs: dict[str, int], holds: Sequence[Hold]) -> str:
    """Return why a segment may not go yet; empty when it may."""
    if not contents.is_sound:
        return "damaged"
    if holds and contents.has_unknown:
        return "hold"
    for name, (first_us, last_us) in contents.spans.items():
        if any(hold.covers(name, first_us, last_us) for hold in holds):
            return "hold"
    if any(last_us >= cutoffs.get(name, last_us) for name, (_, last_us) in contents.spans.items()):
        return "retention"
    return ""


def _is_over(collection: str, order: str, value: dict[str, Any], before_us: int) -> bool:
    if collection == "alarms":
        # One that is open is not over, however long ago it began.
        order = str(value.get("ended_at") or "") if value.get("state") == "ended" else ""
    return is_time(order) and _time_us(order) < before_us


def _time_us(text: str) -> int:
    return int(instant(text)[0].timestamp() * 1_000_000)
