"""The first stage: events become inferences, once; labels are kept until asked for."""

import logging
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

from sidelight.adapters import Decoder
from sidelight.logger import (
    WAITING_PREFIX,
    Arrival,
    Commit,
    Document,
    Documents,
    EventLimits,
    EventReader,
    EventRecord,
    Journals,
    Meeting,
    Outcome,
    Pair,
    Pairing,
    Rejected,
    Slice,
    StepTooLarge,
    move_old_identities,
    scan,
    step_memory,
)
from sidelight.logger.errors import JournalError
from sidelight.payloads import Batch, Event, RawRef
from sidelight.service._begun_records import BEGUN_PREFIX, BegunRecords
from sidelight.service._inventory import Inventory
from sidelight.service._label_values import instant, is_text
from sidelight.service._metrics import Labels, split_name
from sidelight.service._names import stored_name
from sidelight.service._registered import RegisteredSettings
from sidelight.service._stage import DECODING, LABEL_CHANGES, REPLY_CHANGES, Counts
from sidelight.service._stage_replies import reply_documents
from sidelight.service._step_portion import StepPortion
from sidelight.service._suspicion import Suspicion

log = logging.getLogger(__name__)

_MAX_RECORDS = 32768
_MAX_BYTES = 16 << 20
# What they inflate to, and what is read again for them: few bytes can stand for many.
_MAX_MEMORY = 128 << 20
# Each commit waits for the disk. Records that come one by one are gathered this long.
_GATHER_NS = 100_000_000
# A batch costs each stage a millisecond however short it is: where they are many they get longer.
_GATHER_A_BATCH_NS = 5_000_000
_MOST_GATHER_NS = 500_000_000
_IDLE_NS = 1_000_000_000
_FOR_EVER_NS = 1 << 62


class DecodingStage:
    """Takes events from the journal, pairs and decodes them, and appends to ``inferences``.

    What nobody foresaw costs nothing but itself: records that cannot be worked on are halved until
    the bad one is alone, and of that one only what fails is quarantined. Its bytes stay in the
    archive. What is too much for the memory at once is taken in smaller steps, down to one event;
    what becomes of an event does not depend on which others were taken with it.

    Parameters
    ----------
    journals : Journals
        Both journals.
    documents : Documents
        For reading what was published before.
    orphan_after_s : float
        A half that stays alone this long is stored as an orphan, in seconds.
    max_inflated_bytes : int
        Bound of a payload after decompression.
    notes_label_changes : bool, default False
        Whether labels are noted for the indexing stage, too.
    notes_replies : bool, default False
        Whether answers of other detectors are.
    must_wait : callable of now_ns, optional
        Says whether what came is left where it is for now.

    """

    name = DECODING

    def __init__(
        self,
        journals: Journals,
        documents: Documents,
        *,
        orphan_after_s: float,
        max_inflated_bytes: int,
        notes_label_changes: bool = False,
        notes_replies: bool = False,
        must_wait: Callable[[int], bool] | None = None,
    ) -> None:
        self._journals = journals
        self._documents = documents
        self._notes_label_changes = notes_label_changes
        self._notes_replies = notes_replies
        self._must_wait = must_wait
        self._suspicion = Suspicion(_MAX_RECORDS)
        self._portion = StepPortion(_MAX_BYTES)
        self._orphan_after_ns = int(orphan_after_s * 1e9)
        self._limits = EventLimits(max_inflated_bytes=max_inflated_bytes)
        self._memory_bytes = max(_MAX_MEMORY, 2 * max_inflated_bytes)
        self._decoder = Decoder(
            RegisteredSettings(documents).schema, max_inflated_bytes=max_inflated_bytes
        )
        move_old_identities(journals, DECODING)
        self.reset()

    def reset(self) -> None:
        """Begin again from what is committed."""
        self._reader = EventReader(self._journals.event, limits=self._limits)
        self._pairing = Pairing(
            self._reader,
            self._journals.scan(DECODING, WAITING_PREFIX),
            orphan_after_ns=self._orphan_after_ns,
        )
        self._begun = BegunRecords(self._journals.scan(DECODING, BEGUN_PREFIX))
        self._inventory = Inventory(self._documents)
        self._committed_ns = 0
        self._gather_ns = _GATHER_NS
        self._idle_since_ns = 0

    def step(self, now_ns: int) -> bool:
        """Decode what has arrived; give up halves that waited too long."""
        # A clock that was set back makes nobody wait for what it showed before.
        if 0 <= now_ns - self._committed_ns < self._gather_ns:
            return False
        if self._must_wait is not None and self._must_wait(now_ns):
            return False
        slices = self._journals.read_events(
            DECODING,
            max_records=1 if self._begun else self._suspicion.n_records,
            max_bytes=self._portion.n_bytes,
        )
        n_records = sum(len(part.records) for part in slices)
        try:
            with step_memory(self._memory(is_divisible=self._portion.is_divisible(n_records))):
                worked = self._take(slices, now_ns) if slices else self._expire(now_ns)
        except StepTooLarge:
            idle_since_ns = self._idle_since_ns
            self.reset()
            self._idle_since_ns = idle_since_ns
            self._portion.was_too_much(n_records)
            return True
        except JournalError:
            raise
        except Exception as error:
            log.exception("decoding failed", extra={"records": n_records})
            self._suspect(slices, n_records, error)
            return True
        if not self._begun:
            self._suspicion.passed(n_records)
        self._portion.passed(worked=worked, is_begun=bool(self._begun))
        return worked

    def _memory(self, *, is_divisible: bool) -> int | None:
        """Return what a step may have; what cannot be less has what it needs."""
        return self._memory_bytes if is_divisible else None

    def _take(self, slices: list[Slice[EventRecord]], now_ns: int) -> bool:
        self._idle_since_ns = 0
        if self._give_up_late(slices):
            return True
        counts = Counts()
        records = list(chain.from_iterable(part.records for part in slices))
        events, rejected = scan(records, self._limits)
        rest = self._begun.rest(events)
        some = self._portion.of(rest) if len(records) == 1 else rest
        outcome = self._pairing.step(some, self._lookup)
        _count_events(outcome, some, counts)
        if len(some) < len(rest):
            outcome.state.update(self._begun.begun(rest[len(some)]))
            self._commit({}, outcome, [], counts)
            self._committed_ns = 0
            return True
        positions = _behind(slices)
        outcome.state.update(self._begun.ended(positions))
        self._commit(positions, outcome, rejected, counts)
        # A full slice says that more is waiting: no reason to gather.
        full = len(records) >= self._suspicion.n_records
        self._committed_ns = 0 if full else now_ns
        return True

    def _give_up_late(self, slices: list[Slice[EventRecord]]) -> bool:
        """Give up what is late before these records, by itself where it is much."""
        n_late = self._portion.n_late
        more_than = n_late if self._portion.is_whole else 0
        for part in slices:
            late_ns = part.records[0].received_ns
            if not self._pairing.is_overdue(part.partition, late_ns, more_than):
                continue
            with step_memory(self._memory(is_divisible=n_late > 1)):
                outcome = self._pairing.expire(late_ns, partition=part.partition, most=n_late)
                if outcome.state:
                    self._commit({}, outcome, [], Counts())
                    return True
        return False

    def _suspect(self, slices: list[Slice[EventRecord]], n_records: int, error: Exception) -> None:
        """Begin again with fewer records, or give up the one that is left."""
        was_alone = self._suspicion.is_narrowed
        self.reset()
        if not was_alone:
            self._suspicion.failed(n_records)
            return
        if not n_records:
            raise error
        # Not even with care: not a payload, but the record itself.
        counts = Counts()
        refs = [
            RawRef(partition=record.partition, position=record.position)
            for part in slices
            for record in part.records
        ]
        documents = [_quarantined(_failing(ref, error), counts) for ref in refs]
        positions = _behind(slices)
        self._journals.commit(
            Commit(
                group=DECODING,
                journal="events",
                positions=positions,
                state=self._begun.ended(positions),
                documents=documents,
                counters=counts,
            )
        )
        self._suspicion.passed(n_records)

    def _expire(self, now_ns: int) -> bool:
        # Deadlines count receive times, so that a replay decides the same; only a journal that
        # stands still is measured by the clock.
        if not self._pairing.n_waiting:
            return False
        self._idle_since_ns = min(self._idle_since_ns or now_ns, now_ns)
        if now_ns - self._idle_since_ns < _IDLE_NS:
            return False
        outcome = self._pairing.expire(now_ns, most=self._portion.n_late)
        if not (outcome.pairs or outcome.state or outcome.remembered):
            return False
        self._commit({}, outcome, [], Counts())
        return True

    def give_up_waiting(self) -> None:
        """Store halves that wait as orphans now; whose other half comes later is completed."""
        while self._pairing.n_waiting:
            n_late = self._portion.n_late
            try:
                with step_memory(self._memory(is_divisible=n_late > 1)):
                    outcome = self._pairing.expire(_FOR_EVER_NS, most=n_late)
                    self._commit({}, outcome, [], Counts())
            except StepTooLarge:
                self.reset()
                self._portion.was_too_much(0)

    def _lookup(self, digests: Iterable[bytes]) -> Mapping[bytes, bytes]:
        return self._journals.remembered(DECODING, digests)

    def _commit(
        self,
        positions: dict[int, int],
        outcome: Outcome,
        rejected: list[Rejected],
        counts: Counts,
    ) -> None:
        if self._suspicion.is_narrowed:
            rejected = [*rejected, *self._leave_out(outcome)]
        decoded = self._decoder.decode(outcome.pairs)
        waiting_ns = _GATHER_A_BATCH_NS * len(decoded.batches)
        self._gather_ns = min(max(_GATHER_NS, waiting_ns), _MOST_GATHER_NS)
        labels, bad_labels = self._labels(outcome.feedback, counts)
        quarantine = [_quarantined(item, counts) for item in (*rejected, *bad_labels)]
        _count_outcome(outcome, counts)
        for (deployment, reason), number in decoded.undecoded.items():
            counts.add(
                "undecoded_events_total", (*split_name(deployment), ("reason", reason)), number
            )
        self._journals.commit(
            Commit(
                group=DECODING,
                journal="events",
                positions=positions,
                state=outcome.state,
                remembered=outcome.remembered,
                appended=[_appended(batch) for batch in decoded.batches],
                documents=[
                    *self._inventory.note(decoded.batches),
                    *labels,
                    *self._replies(outcome.others),
                    *quarantine,
                ],
                counters=counts,
            )
        )

    def _replies(self, events: Sequence[Event]) -> list[Document]:
        replies = reply_documents(events)
        if not self._notes_replies:
            return replies
        return [*replies, *(_change(item.key, REPLY_CHANGES) for item in replies)]

    def _leave_out(self, outcome: Outcome) -> list[Rejected]:
        """Take out of an outcome what cannot be worked on; return what it was."""
        rejected: list[Rejected] = []
        # What is only tried is not noted: rows would count twice.
        inventory = Inventory(self._documents)
        for pair in list(outcome.pairs):
            try:
                decoded = self._decoder.decode([pair])
                inventory.note(decoded.batches)
                [_appended(batch) for batch in decoded.batches]
            except StepTooLarge:
                raise
            except Exception as error:
                whole = pair.pair() if isinstance(pair, Meeting) else pair
                log.exception("inference given up", extra={"id": whole.id})
                outcome.pairs.remove(pair)
                rejected += [_failing(event.ref, error) for event in _halves(whole)]
        for event in list(outcome.feedback):
            try:
                self._labels([event], Counts())
            except (JournalError, StepTooLarge):
                raise
            except Exception as error:
                log.exception("labels given up", extra={"ref": str(event.ref)})
                outcome.feedback.remove(event)
                rejected.append(_failing(event.ref, error))
        return rejected

    def _labels(self, events: list[Event], counts: Counts) -> tuple[list[Document], list[Rejected]]:
        merged: dict[str, dict[str, Any]] = {}
        rejected: list[Rejected] = []
        for event in events:
            items, bad = self._decoder.labels(event)
            rejected += bad
            for item in items:
                if not is_text(item):
                    rejected.append(_no_text(event))
                    continue
                item["deployment"] = stored_name(item["deployment"])
                key = f"{item['deployment']}|{item['request_id']}|{item['row']}"
                known = merged.get(key) or self._documents.get("labels", key)
                merged[key] = _merged(known, item)
                counts.add("labels_total", split_name(item["deployment"]), len(item["labels"]))
        documents = [
            Document(
                collection="labels",
                key=key,
                deployment=item["deployment"],
                order=item["time"],
                value=item,
            )
            for key, item in merged.items()
        ]
        if self._notes_label_changes:
            documents += map(_change, merged)
        return documents, rejected


def _change(key: str, collection: str = LABEL_CHANGES) -> Document:
    # A name of its own: the one that works it off must not delete a later one.
    return Document(collection=collection, key=uuid.uuid4().hex, value={"key": key})


def _merged(known: dict[str, Any] | None, item: dict[str, Any]) -> dict[str, Any]:
    """Join labels of one row by name; what carries the later time wins."""
    if known is None:
        return item
    older, newer = sorted((known, item), key=lambda value: instant(str(value["time"])))
    return {**newer, "labels": {**older["labels"], **newer["labels"]}}


def _behind(slices: list[Slice[EventRecord]]) -> dict[int, int]:
    return {part.partition: part.last + 1 for part in slices}


def _halves(pair: Pair) -> list[Event]:
    return [event for event in (pair.request, pair.response) if event is not None]


def _failing(ref: RawRef, error: Exception) -> Rejected:
    return Rejected(
        ref=ref,
        index=ref.index,
        reason="internal",
        expected="an event that can be worked on",
        got=type(error).__name__,
    )


def _no_text(event: Event) -> Rejected:
    return Rejected(
        ref=event.ref,
        index=event.ref.index,
        reason="labels",
        expected="Unicode text",
        got="half of a surrogate pair",
    )


def _appended(batch: Batch) -> tuple[str, str, bytes]:
    return ("rows", batch.deployment, batch.to_ipc())


def _quarantined(item: Rejected, counts: Counts) -> Document:
    counts.add("quarantined_events_total", (("reason", item.reason),), item.n)
    return Document(
        collection="quarantine",
        key=f"{item.ref}",
        value={
            "ref": str(item.ref),
            "reason": item.reason,
            "expected": item.expected,
            "got": item.got,
            **({"members": item.n} if item.n > 1 else {}),
        },
    )


def _count_events(outcome: Outcome, events: list[Event | Arrival], counts: Counts) -> None:
    for (deployment, kind), number in outcome.received.items():
        counts.add("events_received_total", (*split_name(deployment), ("kind", kind)), number)
    # What was recognised has an id.
    missing = sum([event.id_missing for event in events if isinstance(event, Event)])
    counts.add("missing_ids_total", (), missing)


def _count_outcome(outcome: Outcome, counts: Counts) -> None:
    named = {
        "duplicate_events_total": outcome.duplicates,
        "key_reused_events_total": outcome.key_reused,
        "unreadable_events_total": outcome.unreadable,
    }
    for name, by_deployment in named.items():
        values: dict[Labels, float] = {split_name(key): n for key, n in by_deployment.items()}
        counts.add_each(name, values)
