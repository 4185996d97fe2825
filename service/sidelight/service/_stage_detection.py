"""The third stage: rows are judged; verdicts, alarms and scores are published."""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from numpy.typing import ArrayLike

from sidelight.adapters import Scores, ScoreTable
from sidelight.detectors import (
    DeploymentMonitor,
    DetectorError,
    Look,
    Step,
    load_distributions,
)
from sidelight.logger import BatchRecord, Commit, Document, Documents, Journals, Slice
from sidelight.logger.errors import JournalError
from sidelight.payloads import Batch
from sidelight.service._columns import (
    joined_batches,
    parts_of,
    rows_of,
    times_of,
    watched_batch,
    watched_columns,
)
from sidelight.service._detection_results import (
    alarm_document,
    look_documents,
    look_gauges,
    monitor_gauges,
)
from sidelight.service._detection_state import (
    changed_state,
    forgetting_state,
    forgotten_batches,
    stored_watched,
)
from sidelight.service._lake_commits import LakeCommits
from sidelight.service._metrics import split_name
from sidelight.service._registered import RegisteredSettings
from sidelight.service._settings_deployment import DeploymentSettings
from sidelight.service._stage import DETECTION, Counts
from sidelight.service._watched import Watched, token_of
from sidelight.service.errors import ConfigurationError

log = logging.getLogger(__name__)

_MAX_RECORDS = 4096
_MAX_BYTES = 64 << 20
_GATHER_NS = 300_000_000
# Each deployment costs a millisecond, a state and a few documents, however few its rows are.
_GATHER_A_DEPLOYMENT_NS = 10_000_000
_MOST_GATHER_NS = 1_000_000_000
# A reference file that cannot be read may be put right without a change of the configuration.
_AGAIN_NS = 30_000_000_000


class DetectionStage:
    """Takes decoded batches, in journal order, through one monitor for each deployment."""

    name = DETECTION

    def __init__(
        self, journals: Journals, documents: Documents, scores: ScoreTable, data: Path
    ) -> None:
        self._journals = journals
        self._registered = RegisteredSettings(documents)
        self._scores = scores
        self._commits = LakeCommits(journals, documents, scores)
        self._data = data
        load_distributions()
        self.reset()

    def reset(self) -> None:
        """Begin again from what is committed."""
        self._watched: dict[str, Watched] = {}
        self._broken: dict[str, tuple[str, int]] = {}
        self._tokens: dict[str, tuple[DeploymentSettings, str, str]] = {}
        self._committed_ns = 0
        self._gather_ns = _GATHER_NS
        self._now_ns = 0

    def step(self, now_ns: int) -> bool:
        """Judge what was decoded."""
        # A clock that was set back makes nobody wait for what it showed before.
        if 0 <= now_ns - self._committed_ns < self._gather_ns:
            return False
        self._now_ns = now_ns
        slices = self._journals.read_inferences(
            DETECTION, max_records=_MAX_RECORDS, max_bytes=_MAX_BYTES
        )
        for part in slices:
            self._judge(part)
            self._committed_ns = 0 if len(part.records) >= _MAX_RECORDS else now_ns
        return bool(slices)

    def _judge(self, part: Slice[BatchRecord]) -> None:
        by_deployment: dict[str, list[Batch]] = {}
        for record in part.records:
            batch = watched_columns(Batch.from_ipc(record.payload))
            if batch is not None:
                by_deployment.setdefault(batch.deployment, []).append(batch)
        work = _Work()
        for name, batches in by_deployment.items():
            work.add(self._judged(name, batches))
        with self._commits.staging():
            staged = self._scores.stage_scores(
                [Scores.joined(work.scores)],
                first=part.first,
                last=part.last,
                partition=part.partition,
            )
        commit = Commit(
            group=DETECTION,
            journal="inferences",
            positions={part.partition: part.last + 1},
            state=work.state,
            documents=work.documents + staged,
            counters=work.counts,
        )
        # When it fails the next try may have more records, and files of another name.
        self._commits.commit(commit)
        for watched, published in work.touched:
            watched.note_committed()
            watched.published |= published
        waiting_ns = _GATHER_A_DEPLOYMENT_NS * len(by_deployment)
        self._gather_ns = min(max(_GATHER_NS, waiting_ns), _MOST_GATHER_NS)

    def _judged(self, name: str, batches: list[Batch]) -> "_Work":
        """Judge the rows of one deployment; what fails there costs no other deployment anything."""
        for update in (_update, _update_with_care):
            try:
                return self._attempt(name, batches, update)
            except JournalError:
                raise
            except Exception:
                log.exception("detection failed", extra={"deployment": name})
                # Half changed: begun again from what is committed.
                self._watched.pop(name, None)
        work = _Work()
        work.counts.add("detector_errors_total", split_name(name), len(batches))
        return work

    def _attempt(self, name: str, batches: list[Batch], update: "_Update") -> "_Work":
        work = _Work()
        watched = self._of(name, batches[0], work)
        if watched is None:
            return work
        update(watched, batches, work, self._data)
        work.state |= changed_state(name, watched)
        standing = [
            _reference_document(name, watched),
            monitor_gauges(name, watched.monitor),
            *look_gauges(name, work.looks[-1:]),
        ]
        changed = {
            document.key + document.collection: document
            for document in standing
            if watched.published.get(document.key + document.collection) != document
        }
        work.documents += changed.values()
        work.touched.append((watched, changed))
        return work

    def _of(self, name: str, batch: Batch, work: "_Work") -> Watched | None:
        """Return the deployment, from memory, from the committed state, or begun now."""
        settings, deletion = self._registered.settings_now(name)
        if not settings.detection.enabled:
            return None
        token = self._token(settings, deletion)
        watched = self._watched.get(name) or stored_watched(self._journals, name)
        if watched is None or watched.token != token:
            broken, since_ns = self._broken.get(name, ("", 0))
            if broken == token and 0 <= self._now_ns - since_ns < _AGAIN_NS:
                return None
            if watched is not None:
                work.documents += _ended_alarms(watched, batch)
            try:
                watched = Watched.start(settings, token, self._data)
            except (ConfigurationError, DetectorError) as error:
                log.error("not watched", extra={"deployment": name, "reason": str(error)})  # noqa: TRY400 - a sentence for a person
                self._broken[name] = (token, self._now_ns)
                return None
            work.state |= forgetting_state(self._journals, name)
        self._watched[name] = watched
        return watched

    def _token(self, settings: DeploymentSettings, deletion: str) -> str:
        known = self._tokens.get(settings.name)
        if known is None or known[0] is not settings or known[1] != deletion:
            known = settings, deletion, token_of(settings, deletion)
            self._tokens[settings.name] = known
        return known[2]


class _Work:
    """What one commit gathers."""

    def __init__(self) -> None:
        self.touched: list[tuple[Watched, dict[str, Document]]] = []
        self.state: dict[bytes, bytes | None] = {}
        self.documents: list[Document] = []
        self.looks: list[Look] = []
        self.scores: list[tuple[Batch, ArrayLike, ArrayLike, ArrayLike]] = []
        self.counts = Counts()

    def add(self, other: "_Work") -> None:
        """Take over what another gathered."""
        self.touched += other.touched
        self.state |= other.state
        self.documents += other.documents
        self.looks += other.looks
        self.scores += other.scores
        for (name, labels), value in other.counts.items():
            self.counts.add(name, labels, value)


_Update = Callable[[Watched, list[Batch], _Work, Path], None]


def _update(watched: Watched, batches: list[Batch], work: _Work, data: Path) -> None:
    """Judge batches; those of the same columns as one, which changes no answer."""
    for batch in joined_batches(batches):
        _update_batch(watched, batch, work, data)


def _update_with_care(watched: Watched, batches: list[Batch], work: _Work, data: Path) -> None:
    """Judge each batch, or leave everything as it was before it."""
    for batch in batches:
        monitor = watched.monitor.snapshot()
        reference = watched.monitor.reference_bytes()
        collected, stored_batches = list(watched.collected), watched.stored_batches
        own = _Work()
        try:
            _update_batch(watched, batch, own, data)
        except Exception:
            log.exception("batch left out", extra={"deployment": batch.deployment})
            watched.monitor = DeploymentMonitor.restore(monitor, reference)
            watched.collected, watched.stored_batches = collected, stored_batches
            work.counts.add("detector_errors_total", split_name(batch.deployment))
        else:
            work.add(own)


def _update_batch(watched: Watched, batch: Batch, work: _Work, data: Path) -> None:
    """Judge a batch; a long one in parts, which changes no answer."""
    for part in parts_of(batch):
        _update_part(watched, part, work, data)


def _update_part(watched: Watched, batch: Batch, work: _Work, data: Path) -> None:
    chosen = watched_batch(batch)
    start = 0
    for rows in rows_of(chosen.records) if len(chosen) else ():
        part = chosen
        if len(rows) < len(chosen):
            part = Batch(chosen.records.slice(start, len(rows)))
        start += len(rows)
        watched.collect(part.records)
        step = watched.monitor.update(rows)
        _note(watched, part, step, work, data)


def _note(watched: Watched, batch: Batch, step: Step, work: _Work, data: Path) -> None:
    name = batch.deployment
    labels = split_name(name)
    if step.reference_completed is not None:
        watched.complete(data, step.reference_completed)
        work.state |= forgotten_batches(name, range(watched.forget_collected()))
    work.looks += step.looks
    work.documents += look_documents(step.looks)
    for alarm in step.alarms:
        work.documents.append(alarm_document(alarm))
        if alarm.state == "open":
            work.counts.add("drift_alarms_total", (*labels, ("kind", alarm.kind)))
    work.counts.add("detector_rows_total", labels, len(batch))
    work.counts.add("outlier_rows_total", labels, float(step.outliers.sum()))
    if watched.monitor.reference is not None:
        found = batch, step.outlier_scores, step.outlier_p_values, step.outliers
        work.scores.append(found)


def _ended_alarms(watched: Watched, batch: Batch) -> list[Document]:
    """End what is open with the tests that raised it: nobody would ever end it otherwise."""
    at = times_of(batch.records.slice(0, 1))[0]
    return [
        alarm_document(replace(alarm, state="ended", ended_at=at))
        for alarm in watched.monitor.open_alarms
    ]


def _reference_document(name: str, watched: Watched) -> Document:
    return Document(
        collection="references", key=name, deployment=name, value=watched.reference_json()
    )
