"""The fourth stage, where it is configured: decoded rows become documents of a search server.

A server that is down or slow must delay nobody else. Everything that waits for it happens in a
thread of its own; a step only looks whether the last piece of work is done, commits it, and hands
over the next one.
"""

import hashlib
import logging
from collections import Counter
from collections.abc import Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Final

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from sidelight.adapters import AlarmSpan, Joined, ScoreReader, StoppedError
from sidelight.logger import Commit, Document, Documents, Journals
from sidelight.payloads import Batch
from sidelight.service._indexing_work import DocumentStore, Troubles, Work
from sidelight.service._label_values import instant
from sidelight.service._metrics import split_name
from sidelight.service._reply_verdicts import REPLIES
from sidelight.service._search_upkeep import (
    SEARCH_ERASURES,
    SearchErasures,
    SearchRetention,
)
from sidelight.service._stage import DETECTION, INDEXING, LABEL_CHANGES, REPLY_CHANGES, Counts

log = logging.getLogger(__name__)

_MAX_RECORDS: Final = 1024
_MAX_BYTES: Final = 16 << 20
_MAX_LABELS: Final = 1000
_PAGE: Final = 1000
# What comes one by one is gathered this long; a search server likes few large requests.
_GATHER_NS: Final = 200_000_000
_COUNTED_NS: Final = 1_000_000_000
_AGAIN_NS: Final = 5_000_000_000
_ALARMS_NS: Final = 60_000_000_000
_ALARM: Final = b"alarm|"
_EXPIRED: Final = "expired"


class IndexingStage:
    """Takes decoded batches behind the detectors, so that scores go with the rows.

    Parameters
    ----------
    journals, documents : Journals, Documents
    scores : ScoreReader
        Where the detectors left the scores of rows.
    store : DocumentStore
        Closed with the stage.
    troubles : Troubles
        What the store had to send again.
    retention : SearchRetention, optional
        Deletes what is too old; nothing is when absent.

    """

    name = INDEXING

    def __init__(
        self,
        journals: Journals,
        documents: Documents,
        scores: ScoreReader,
        store: DocumentStore,
        troubles: Troubles,
        retention: SearchRetention | None = None,
    ) -> None:
        self._journals = journals
        self._erasures = SearchErasures(documents)
        self._retention = retention
        self._is_prepared = False
        self._documents = documents
        self._scores = scores
        self._store = store
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="sidelight-indexing")
        self._work: Work | None = None
        self._result: Future[Counter[str]] | None = None
        self._troubles = troubles
        self._not_before_ns = 0
        self._counted_ns = 0
        self._alarms_looked_ns = 0
        self._is_troubled = False
        self._known = dict(journals.scan(INDEXING, _ALARM))

    def reset(self) -> None:
        """Begin again from what is committed; what is under way comes to its end first."""
        self._work = self._result = None
        self._known = dict(self._journals.scan(INDEXING, _ALARM))

    def close(self) -> None:
        """Give up what is under way: it is done again after the next start."""
        self._store.stop()
        self._pool.shutdown(cancel_futures=True)
        self._store.close()
        if self._retention is not None:
            self._retention.close()

    def step(self, now_ns: int) -> bool:
        """Commit what is done and hand over what is new; never waits for the server."""
        if self._result is not None:
            if not self._result.done():
                self._count_troubles(now_ns)
                return False
            return self._finish(now_ns)
        # A clock that was set back makes nobody wait for what it showed before.
        if 0 <= self._not_before_ns - now_ns < _AGAIN_NS:
            return False
        if not self._is_prepared:
            self._is_prepared = True
            # Before the first rows come, which then wait less; what fails here is told by them.
            self._pool.submit(self._store.prepare)
        work = self._next(now_ns)
        if work.is_empty:
            self._not_before_ns = now_ns + _GATHER_NS
            return False
        self._work = work
        self._result = self._pool.submit(self._do, work)
        return True

    def _finish(self, now_ns: int) -> bool:
        work, result = self._work, self._result
        assert work is not None  # noqa: S101 - both are set together
        assert result is not None  # noqa: S101
        self._work = self._result = None
        try:
            outcomes = result.result()
        except StoppedError:
            return False
        except Exception:
            log.exception("not indexed, tried again")
            self._troubles.add("failed")
            self._not_before_ns = now_ns + _AGAIN_NS - 1
            return False
        self._commit(work, outcomes)
        if self._is_troubled:
            self._is_troubled = False
            log.info("search server takes documents again")
        most = max(len(work.changes), len(work.replies))
        is_full = len(work.payloads) >= _MAX_RECORDS or most >= _MAX_LABELS
        self._not_before_ns = 0 if is_full else now_ns + _GATHER_NS
        return True

    def _commit(self, work: Work, outcomes: Counter[str]) -> None:
        counts = Counts()
        for outcome, number in outcomes.items():
            name, _, deployment = outcome.partition("|")
            if name == _EXPIRED:
                labels = (*split_name(deployment), ("table", "search"))
                counts.add("expired_rows_total", labels, number)
            else:
                counts.add("indexed_documents_total", (("outcome", outcome),), number)
        self._add_troubles(counts)
        state: dict[bytes, bytes | None] = {
            _ALARM + str(alarm["id"]).encode(): _digest(alarm) for alarm in work.alarms
        }
        state |= {_ALARM + name.encode(): None for name in work.gone_alarms}
        positions = {work.partition: work.last + 1} if work.payloads else {}
        self._journals.commit(
            Commit(
                group=INDEXING,
                journal="inferences",
                positions=positions,
                state=state,
                documents=[
                    *(Document(collection=LABEL_CHANGES, key=key) for key, _ in work.changes),
                    *(Document(collection=REPLY_CHANGES, key=key) for key, _ in work.replies),
                    *(Document(collection=SEARCH_ERASURES, key=key) for key in work.erasures.done),
                    *self._scores.indexed(work.partition, work.last),
                ],
                counters=counts,
            )
        )
        known = {**self._known, **state}
        self._known = {key: value for key, value in known.items() if value is not None}

    def _next(self, now_ns: int) -> Work:
        """Read, in the thread that owns the journals, what is to be done."""
        is_due = self._retention is not None and self._retention.is_due(now_ns)
        erasures = self._erasures.next(
            position=sum(self._journals.positions(INDEXING, "inferences").values()),
            end=sum(self._journals.ends("inferences").values()),
        )
        alarms, spans = self._alarms()
        changes, replies = self._changes(LABEL_CHANGES), self._changes(REPLY_CHANGES)
        work = Work(
            changes=changes,
            replies=replies,
            alarms=alarms,
            gone_alarms=self._gone_alarms(now_ns),
            spans=spans,
            erasures=erasures,
            sweeps_at_ns=now_ns if is_due else None,
        )
        for part in self._journals.read_inferences(
            INDEXING, max_records=_MAX_RECORDS, max_bytes=_MAX_BYTES
        ):
            judged = self._journals.positions(DETECTION, "inferences").get(part.partition, 0)
            records = [item for item in part.records if item.position < judged]
            if records:
                return replace(
                    work,
                    partition=part.partition,
                    first=part.first,
                    last=records[-1].position,
                    payloads=[item.payload for item in records],
                )
        return work

    def _changes(self, collection: str) -> list[tuple[str, str]]:
        """Return what was noted, and the key of what it is about."""
        found = self._documents.find(collection, descending=False, limit=_MAX_LABELS)
        return [(key, str(value["key"])) for _, key, value in found]

    def _alarms(self) -> tuple[list[dict[str, Any]], dict[str, list[AlarmSpan]]]:
        """Return the alarms that changed, and where all of them stand."""
        changed: list[dict[str, Any]] = []
        spans: dict[str, list[AlarmSpan]] = {}
        for _, key, value in self._documents.find("alarms", limit=_PAGE):
            spans.setdefault(value["deployment"], []).append(_span(value))
            if self._known.get(_ALARM + key.encode()) != _digest(value):
                changed.append(value)
        return changed, spans

    def _gone_alarms(self, now_ns: int) -> list[str]:
        """Return the alarms that the server has and retention has deleted since, now and then."""
        if 0 <= now_ns - self._alarms_looked_ns < _ALARMS_NS:
            return []
        self._alarms_looked_ns = now_ns
        names = [key.removeprefix(_ALARM).decode() for key in self._known]
        there = self._documents.present("alarms", names) if names else set()
        return [name for name in names if name not in there]

    def _do(self, work: Work) -> Counter[str]:
        """Do the work, in the stage's thread: rows, then what changes rows that are there."""
        outcomes: Counter[str] = Counter()
        erased = work.erasures
        batches = [_staying(Batch.from_ipc(item), erased.standing) for item in work.payloads]
        if batches:
            outcomes += self._store.write(batches, self._joined(batches, work))
        by_deployment: dict[str, dict[tuple[str, int], dict[str, Any]]] = {}
        for key in {key for _, key in work.changes}:
            # Read now: a change that came meanwhile is in it, and is worked off again later.
            value = self._documents.get("labels", key)
            if value is not None:
                rows = by_deployment.setdefault(value["deployment"], {})
                rows[value["request_id"], value["row"]] = value["labels"]
        for deployment, labels in by_deployment.items():
            outcomes["refused"] += self._store.label(deployment, labels)["refused"]
        for alarm in work.alarms:
            outcomes["refused"] += self._store.alarm(alarm, _span(alarm))["refused"]
        if work.replies:
            found = [self._documents.get(REPLIES, key) for key in {key for _, key in work.replies}]
            outcomes["refused"] += self._store.reply([item for item in found if item])["refused"]
        if work.gone_alarms:
            self._store.forget_alarms(work.gone_alarms)
        for deployment, places in erased.by_deployment().items():
            self._store.erase(deployment, *places)
        if work.sweeps_at_ns is not None:
            self._sweep(work.sweeps_at_ns, outcomes)
        return outcomes

    def _sweep(self, now_ns: int, outcomes: Counter[str]) -> None:
        def note(deployment: str, number: int) -> None:
            outcomes[f"{_EXPIRED}|{deployment}"] += number

        assert self._retention is not None  # noqa: S101 - or nothing would be due
        if not self._retention.sweep(now_ns, note):
            self._troubles.add("retention")

    def _joined(self, batches: list[Batch], work: Work) -> dict[str, Joined]:
        by_deployment: dict[str, list[Batch]] = {}
        for batch in batches:
            by_deployment.setdefault(batch.deployment, []).append(batch)
        return {
            name: Joined(
                labels=self._labels(name, some),
                scores=self._scores.read(
                    name, some, partition=work.partition, first=work.first, last=work.last
                ),
                alarms=work.spans.get(name, []),
            )
            for name, some in by_deployment.items()
        }

    def _labels(
        self, deployment: str, batches: list[Batch]
    ) -> dict[tuple[str, int], dict[str, Any]]:
        if not self._documents.find("labels", deployment=deployment, limit=1):
            return {}
        found: dict[tuple[str, int], dict[str, Any]] = {}
        for batch in batches:
            ids = batch.records.column("request_id").to_pylist()
            rows = batch.records.column("row").to_pylist()
            for place in zip(ids, rows, strict=True):
                value = self._documents.get("labels", f"{deployment}|{place[0]}|{place[1]}")
                if value is not None:
                    found[place] = value["labels"]
        return found

    def _count_troubles(self, now_ns: int) -> None:
        """Show that the server is in trouble while it is, not only afterwards."""
        if 0 <= now_ns - self._counted_ns < _COUNTED_NS or not self._troubles:
            return
        self._counted_ns = now_ns
        counts = Counts()
        self._add_troubles(counts)
        self._journals.commit(Commit(group=INDEXING, journal="inferences", counters=counts))

    def _add_troubles(self, counts: Counts) -> None:
        noted = self._troubles.take()
        if noted and not self._is_troubled:
            self._is_troubled = True
            log.warning("search server takes no documents", extra={"reasons": sorted(noted)})
        for reason, number in noted.items():
            counts.add("indexing_retries_total", (("reason", reason),), number)


def _staying(batch: Batch, erased: Collection[tuple[str, str]]) -> Batch:
    """Return a batch without the rows of what is erased."""
    ids = [name for deployment, name in erased if deployment == batch.deployment]
    if not ids:
        return batch
    gone = pc.is_in(batch.records.column("id"), value_set=pa.array(ids, pa.string()))
    return Batch(batch.records.filter(pc.invert(gone)))


def _span(alarm: Mapping[str, Any]) -> AlarmSpan:
    ended = alarm["ended_at"]
    return AlarmSpan(
        id=alarm["id"],
        version=alarm["version"],
        start_us=_microseconds(alarm["since"]),
        end_us=None if ended is None else _microseconds(ended),
    )


def _microseconds(time: str) -> int:
    return round(instant(time)[0].timestamp() * 1_000_000)


def _digest(alarm: Mapping[str, Any]) -> bytes:
    return hashlib.sha256(orjson.dumps(alarm, option=orjson.OPT_SORT_KEYS)).digest()
