"""The third stage: rows are judged; verdicts, alarms and scores are published."""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from sidelight.adapters import Scores, ScoreTable
from sidelight.detectors import DeploymentMonitor, DetectorError, Step
from sidelight.logger import BatchRecord, Commit, Document, Documents, Journals, Slice
from sidelight.logger.errors import JournalError
from sidelight.payloads import Batch
from sidelight.service._columns import rows_of, times_of, watched_rows
from sidelight.service._detection_results import (
    alarm_document,
    look_documents,
    look_gauges,
    monitor_gauges,
)
from sidelight.service._metrics import split_name
from sidelight.service._registered import RegisteredSettings
from sidelight.service._stage import DETECTION, Counts
from sidelight.service._watched import Watched, token_of
from sidelight.service.errors import ConfigurationError

log = logging.getLogger(__name__)

_MAX_RECORDS = 4096
_MAX_BYTES = 64 << 20
_GATHER_NS = 300_000_000
# Each deployment costs a file of scores, a state and a few documents, however few its rows are.
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
        self._data = data
        self.reset()

    def reset(self) -> None:
        """Begin again from what is committed."""
        self._watched: dict[str, Watched] = {}
        self._broken: dict[str, tuple[str, int]] = {}
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
            batch = Batch.from_ipc(record.payload)
            by_deployment.setdefault(batch.deployment, []).append(batch)
        work = _Work()
        for name, batches in by_deployment.items():
            work.add(self._judged(name, batches))
        documents = work.documents + self._scores.stage_scores(
            work.scores, first=part.first, last=part.last, partition=part.partition
        )
        self._journals.commit(
            Commit(
                group=DETECTION,
                journal="inferences",
                positions={part.partition: part.last + 1},
                state=work.state,
                documents=documents,
                counters=work.counts,
            )
        )
        for watched in work.touched:
            watched.note_committed()
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
        for batch in batches:
            update(watched, batch, work, self._data)
        work.state |= _state_of(name, watched)
        work.documents.append(_reference_document(name, watched))
        work.documents.append(monitor_gauges(name, watched.monitor))
        work.touched.append(watched)
        return work

    def _of(self, name: str, batch: Batch, work: "_Work") -> Watched | None:
        """Return the deployment, from memory, from the committed state, or begun now."""
        settings = self._registered.settings(name)
        if not settings.detection.enabled:
            return None
        token = token_of(settings, self._registered.deletion(name))
        watched = self._watched.get(name) or self._restore(name)
        if watched is None or watched.token != token:
            broken, since_ns = self._broken.get(name, ("", 0))
            if broken == token and 0 <= self._now_ns - since_ns < _AGAIN_NS:
                return None
            if watched is not None:
                work.state.update(dict.fromkeys(self._part_keys(name)))
                work.documents += _ended_alarms(watched, batch)
            try:
                watched = Watched.start(settings, token, self._data)
            except (ConfigurationError, DetectorError) as error:
                log.error("not watched", extra={"deployment": name, "reason": str(error)})  # noqa: TRY400 - a sentence for a person
                self._broken[name] = (token, self._now_ns)
                return None
        self._watched[name] = watched
        return watched

    def _restore(self, name: str) -> Watched | None:
        keys = _keys(name)
        found = self._journals.state(DETECTION, keys.values())
        if keys["monitor"] not in found:
            return None
        monitor = DeploymentMonitor.restore(found[keys["monitor"]], found.get(keys["reference"]))
        watched = Watched(monitor=monitor, token=found[keys["token"]].decode())
        for key in self._part_keys(name):
            data = self._journals.state(DETECTION, [key])[key]
            with pa.ipc.open_stream(pa.py_buffer(data)) as reader:
                watched.collected.append(reader.read_next_batch())
        watched.note_committed()
        return watched

    def _part_keys(self, name: str) -> list[bytes]:
        return [key for key, _ in self._journals.scan(DETECTION, _part_prefix(name))]


class _Work:
    """What one commit gathers."""

    def __init__(self) -> None:
        self.touched: list[Watched] = []
        self.state: dict[bytes, bytes | None] = {}
        self.documents: list[Document] = []
        self.scores: list[Scores] = []
        self.counts = Counts()

    def add(self, other: "_Work") -> None:
        """Take over what another gathered."""
        self.touched += other.touched
        self.state |= other.state
        self.documents += other.documents
        self.scores += other.scores
        for (name, labels), value in other.counts.items():
            self.counts.add(name, labels, value)


_Update = Callable[[Watched, Batch, _Work, Path], None]


def _update_with_care(watched: Watched, batch: Batch, work: _Work, data: Path) -> None:
    """Judge a batch, or leave everything as it was before it."""
    monitor = watched.monitor.snapshot()
    reference = watched.monitor.reference_bytes()
    parts, stored_parts = list(watched.collected), watched.stored_parts
    own = _Work()
    try:
        _update(watched, batch, own, data)
    except Exception:
        log.exception("batch left out", extra={"deployment": batch.deployment})
        watched.monitor = DeploymentMonitor.restore(monitor, reference)
        watched.collected, watched.stored_parts = parts, stored_parts
        work.counts.add("detector_errors_total", split_name(batch.deployment))
    else:
        work.add(own)


def _update(watched: Watched, batch: Batch, work: _Work, data: Path) -> None:
    chosen = Batch(batch.records.filter(watched_rows(batch)))
    if not len(chosen):
        return
    start = 0
    for rows in rows_of(chosen.records):
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
        for number in range(watched.forget_collected()):
            work.state[_part_key(name, number)] = None
    work.documents += look_documents(name, step.verdicts)
    work.documents += look_gauges(name, step.verdicts)
    for alarm in step.alarms:
        work.documents.append(alarm_document(alarm))
        if alarm.state == "open":
            work.counts.add("drift_alarms_total", (*labels, ("kind", alarm.kind)))
    work.counts.add("detector_rows_total", labels, len(batch))
    work.counts.add("outlier_rows_total", labels, float(step.outliers.sum()))
    if watched.monitor.reference is not None:
        work.scores.append(
            Scores.of(
                batch,
                outlier_score=step.outlier_scores,
                p_value=step.outlier_p_values,
                outlier=step.outliers,
            )
        )


def _ended_alarms(watched: Watched, batch: Batch) -> list[Document]:
    """End what is open with the tests that raised it: nobody would ever end it otherwise."""
    at = times_of(batch.records.slice(0, 1))[0]
    return [
        alarm_document(replace(alarm, state="ended", ended_at=at))
        for alarm in watched.monitor.open_alarms
    ]


def _state_of(name: str, watched: Watched) -> dict[bytes, bytes | None]:
    keys = _keys(name)
    state: dict[bytes, bytes | None] = {
        keys["monitor"]: watched.monitor.snapshot(),
        keys["token"]: watched.token.encode(),
    }
    if watched.digest != watched.stored_digest:
        # Immutable and larger than all that moves: written once.
        state[keys["reference"]] = watched.monitor.reference_bytes()
    for number in range(watched.stored_parts, len(watched.collected)):
        state[_part_key(name, number)] = _ipc(watched.collected[number])
    return state


def _ipc(records: pa.RecordBatch) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, records.schema) as writer:
        writer.write_batch(records)
    return bytes(sink.getvalue())


def _keys(name: str) -> dict[str, bytes]:
    return {part: f"{part}|{name}".encode() for part in ("monitor", "reference", "token")}


def _part_prefix(name: str) -> bytes:
    return f"rows|{name}|".encode()


def _part_key(name: str, number: int) -> bytes:
    return _part_prefix(name) + b"%08d" % number


def _reference_document(name: str, watched: Watched) -> Document:
    return Document(
        collection="references", key=name, deployment=name, value=watched.reference_json()
    )
