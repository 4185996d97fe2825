"""Halves meet: de-duplication, pairing, orphans and late halves, the same at every replay.

No I/O of its own. What it must remember the caller commits together with its positions and with
what it wrote: state under ``w`` and 16 bytes of identity for a half that waits, and for ever the
same 16 bytes of an inference that was handed on.
"""

import hashlib
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from sidelight.logger._identity import Identity, identity, identity_digest, kind_of
from sidelight.logger._pairing_state import Half, PairState, Side
from sidelight.payloads import Event, EventKind, RawRef

WAITING_PREFIX: Final = b"w"
_DIGEST_BYTES: Final = 8
# What an event weighs beside its payload: attributes and objects, measured about 2 kB.
_EVENT_BYTES: Final = 2048

Lookup = Callable[[Iterable[bytes]], Mapping[bytes, bytes]]
Fetch = Callable[[RawRef], Event | None]


@dataclass(frozen=True, slots=True)
class Pair:
    """An inference to be decoded and stored.

    Parameters
    ----------
    key : Identity
        What the halves share.
    id : str
        Inference id, 32 hexadecimal digits.
    request, response : Event or None
        At least one of them.
    orphan : "request", "response" or None
        The half that is there when the other did not come in time.
    revision : int
        0, or 1 when a late half completes what was stored as an orphan.

    """

    key: Identity
    id: str
    request: Event | None
    response: Event | None
    orphan: Side | None = None
    revision: int = 0


@dataclass(slots=True)
class Outcome:
    """What one step decided; ``state`` and ``remembered`` belong into its commit.

    Parameters
    ----------
    pairs : list of Pair
        In the order in which they were completed or given up.
    state : dict of bytes to bytes or None
        Changed keys; None deletes one.
    remembered : dict of bytes to bytes
        What to remember for ever of inferences that were handed on.
    feedback, others : list of Event
        Events that are no halves, in order.
    received : Counter by (deployment, kind)
        Every event that was taken.
    completed, orphans, late, duplicates, key_reused, unreadable : Counter by deployment
        ``completed`` counts inferences with both halves at revision 0, ``late`` those that were
        orphans before, ``unreadable`` halves whose partner the archive has no more.

    """

    pairs: list[Pair] = field(default_factory=list)
    state: dict[bytes, bytes | None] = field(default_factory=dict)
    remembered: dict[bytes, bytes] = field(default_factory=dict)
    feedback: list[Event] = field(default_factory=list)
    others: list[Event] = field(default_factory=list)
    received: Counter[tuple[str, EventKind]] = field(default_factory=Counter)
    completed: Counter[str] = field(default_factory=Counter)
    orphans: Counter[str] = field(default_factory=Counter)
    late: Counter[str] = field(default_factory=Counter)
    duplicates: Counter[str] = field(default_factory=Counter)
    key_reused: Counter[str] = field(default_factory=Counter)
    unreadable: Counter[str] = field(default_factory=Counter)


class Pairing:
    """The halves that wait, and the rules by which they meet.

    Memory and committed state move in two steps: when a commit fails, build a new ``Pairing``
    from the state that is committed.

    Parameters
    ----------
    fetch : callable of RawRef to Event or None
        Reads an event again from the archive; asked for halves that memory does not hold.
    waiting : iterable of (key, value)
        The committed state under ``WAITING_PREFIX``, in any order.
    orphan_after_ns : int, default 60 s
        A half that stays alone this long, by the receive times of its partition, is given up.
    max_held_bytes : int, default 128 MiB
        Bound of the waiting events kept in memory; beyond it only 300 bytes of each are.
    max_recent : int, default 100,000
        How many inferences handed on lately are remembered without asking the state.

    """

    def __init__(
        self,
        fetch: Fetch,
        waiting: Iterable[tuple[bytes, bytes]] = (),
        *,
        orphan_after_ns: int = 60_000_000_000,
        max_held_bytes: int = 128 << 20,
        max_recent: int = 100_000,
    ) -> None:
        self._fetch = fetch
        self._orphan_after_ns = orphan_after_ns
        self._max_held_bytes = max_held_bytes
        self._max_recent = max_recent
        self._waiting: dict[bytes, PairState] = {}
        self._begun: dict[bytes, PairState] = {}
        self._held: dict[bytes, Event] = {}
        self._held_bytes = 0
        # Packed, so that the garbage collector has nothing to walk through.
        self._recent: dict[bytes, bytes] = {}
        self._deadlines: dict[int, deque[tuple[int, bytes]]] = {}
        self._restore(waiting)

    @property
    def n_waiting(self) -> int:
        """How many halves wait for their partner."""
        return len(self._waiting)

    @property
    def held_bytes(self) -> int:
        """Estimated bytes of the waiting events in memory."""
        return self._held_bytes

    def step(self, events: Iterable[Event], lookup: Lookup) -> Outcome:
        """Take the next events, in the order of their journal.

        Parameters
        ----------
        events : iterable of Event
            Of any partitions; those of one partition in order, halves of one inference in the
            same partition.
        lookup : callable
            Returns what is remembered of those digests that are known; asked once.

        """
        outcome = Outcome()
        halves: list[tuple[Event, Side, Identity, bytes]] = []
        for event in events:
            kind = kind_of(event.type)
            if kind == "request" or kind == "response":  # noqa: PLR1714 - narrows the type
                key = identity(event)
                halves.append((event, kind, key, identity_digest(key)))
                outcome.received[key.deployment, kind] += 1
                continue
            outcome.received[identity(event).deployment, kind] += 1
            (outcome.feedback if kind == "feedback" else outcome.others).append(event)
        known = self._remembered((item[3] for item in halves), lookup)
        for event, side, key, digest in halves:
            self._expire(event.ref.partition, event.received_ns, outcome)
            self._take(event, side, key, digest, known, outcome)
        # What came and went within this step is not worth packing.
        for digest, state in self._begun.items():
            outcome.state[WAITING_PREFIX + digest] = state.pack()
        self._begun.clear()
        self._forget()
        return outcome

    def expire(self, now_ns: int) -> Outcome:
        """Give up what waits too long by the wall clock; for an idle journal only."""
        outcome = Outcome()
        for partition in list(self._deadlines):
            self._expire(partition, now_ns, outcome)
        self._forget()
        return outcome

    def _restore(self, waiting: Iterable[tuple[bytes, bytes]]) -> None:
        found = [(key[1:], PairState.unpack(value)) for key, value in waiting]
        found.sort(key=lambda item: (item[1].received_ns, _place(item[1])))
        for digest, state in found:
            self._wait(digest, state)

    def _wait(self, digest: bytes, state: PairState) -> None:
        self._waiting[digest] = state
        queue = self._deadlines.setdefault(_place(state)[0], deque())
        queue.append((state.received_ns + self._orphan_after_ns, digest))

    def _remembered(self, digests: Iterable[bytes], lookup: Lookup) -> Mapping[bytes, bytes]:
        unknown = {
            digest: None
            for digest in digests
            if digest not in self._waiting and digest not in self._recent
        }
        return lookup(unknown) if unknown else {}

    def _take(
        self,
        event: Event,
        side: Side,
        key: Identity,
        digest: bytes,
        known: Mapping[bytes, bytes],
        outcome: Outcome,
    ) -> None:
        state = self._waiting.get(digest)
        if state is None and (packed := self._recent.get(digest) or known.get(digest)):
            state = PairState.recall(packed)
        content = hashlib.blake2b(event.data, digest_size=_DIGEST_BYTES).digest()
        half = Half(content, event.ref)
        if state is None:
            self._begin(event, side, half, digest)
            return
        present = state.half(side)
        if present is None:
            self._complete(event, side, half, key, digest, state, outcome)
        elif present.digest == content:
            outcome.duplicates[key.deployment] += 1
        else:
            outcome.key_reused[key.deployment] += 1

    def _begin(self, event: Event, side: Side, half: Half, digest: bytes) -> None:
        request, response = (half, None) if side == "request" else (None, half)
        state = PairState(
            request, response, is_stored=False, revision=0, received_ns=event.received_ns
        )
        self._wait(digest, state)
        size = len(event.data) + _EVENT_BYTES
        if self._held_bytes + size <= self._max_held_bytes:
            self._held[digest] = event
            self._held_bytes += size
        self._begun[digest] = state

    def _complete(
        self,
        event: Event,
        side: Side,
        half: Half,
        key: Identity,
        digest: bytes,
        state: PairState,
        outcome: Outcome,
    ) -> None:
        other = state.response if side == "request" else state.request
        partner = self._recall(digest, other.ref) if other else None
        pair = Pair(
            key=key,
            id=digest.hex(),
            request=event if side == "request" else partner,
            response=partner if side == "request" else event,
            orphan=None if partner else side,
            revision=state.revision,
        )
        stored = PairState(
            half if side == "request" else state.request,
            half if side == "response" else state.response,
            is_stored=True,
            revision=state.revision + 1,
            received_ns=state.received_ns,
        )
        self._store(digest, stored, outcome)
        if partner is None:
            outcome.unreadable[key.deployment] += 1
            if state.revision:
                # The orphan's row says more than a row of this half alone would.
                return
        outcome.pairs.append(pair)
        counter = outcome.late if state.is_stored else outcome.completed
        (counter if partner else outcome.orphans)[key.deployment] += 1

    def _expire(self, partition: int, now_ns: int, outcome: Outcome) -> None:
        queue = self._deadlines.get(partition)
        while queue and queue[0][0] <= now_ns:
            deadline, digest = queue.popleft()
            state = self._waiting.get(digest)
            if state and state.received_ns + self._orphan_after_ns == deadline:
                self._give_up(digest, state, outcome)

    def _give_up(self, digest: bytes, state: PairState, outcome: Outcome) -> None:
        half = state.request or state.response
        event = self._recall(digest, half.ref) if half else None
        side = state.alone
        revision = state.revision + (event is not None)
        stored = state._replace(is_stored=True, revision=revision)
        self._store(digest, stored, outcome)
        if event is None:
            outcome.unreadable[""] += 1
            return
        key = identity(event)
        request, response = (event, None) if side == "request" else (None, event)
        outcome.pairs.append(Pair(key, digest.hex(), request, response, side, state.revision))
        outcome.orphans[key.deployment] += 1

    def _recall(self, digest: bytes, ref: RawRef) -> Event | None:
        event = self._held.pop(digest, None)
        if event is None:
            return self._fetch(ref)
        self._held_bytes -= len(event.data) + _EVENT_BYTES
        return event

    def _store(self, digest: bytes, state: PairState, outcome: Outcome) -> None:
        # Of what came and went within one step the committed state never knew.
        if self._waiting.pop(digest, None) and self._begun.pop(digest, None) is None:
            outcome.state[WAITING_PREFIX + digest] = None
        self._recent[digest] = outcome.remembered[digest] = state.remember()

    def _forget(self) -> None:
        excess = len(self._recent) - self._max_recent
        if excess > 0:
            for digest in list(self._recent)[:excess]:
                del self._recent[digest]


def _place(state: PairState) -> tuple[int, int, int]:
    half = state.request or state.response
    if half is None:
        return (0, 0, 0)
    return (half.ref.partition, half.ref.position, half.ref.index)
