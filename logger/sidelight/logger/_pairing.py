"""Halves meet: de-duplication, pairing, orphans and late halves, the same at every replay.

No I/O of its own. What it must remember the caller commits together with its positions and with
what it wrote: state under ``w`` and 16 bytes of identity for a half that waits, and for ever the
same 16 bytes of an inference that was handed on.
"""

import hashlib
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Final, Self

import msgspec

from sidelight.logger._arrival import Arrival, arrival_of
from sidelight.logger._identity import identity, kind_of
from sidelight.logger._pairing_outcome import Meeting, Outcome, Pair
from sidelight.logger._pairing_state import Half, PairState, Side, remember_whole
from sidelight.payloads import Event, RawRef

WAITING_PREFIX: Final = b"w"
_DIGEST_BYTES: Final = 8
# What a half weighs beside its payload: values and objects, measured below 1 kB.
_HALF_BYTES: Final = 1024
_NEVER_NS: Final = 1 << 63

Lookup = Callable[[Iterable[bytes]], Mapping[bytes, bytes]]
Fetch = Callable[[RawRef], Event | None]


class _Waiting(msgspec.Struct, gc=False):
    """A half that waits since an earlier step; ``half`` None where memory does not hold it."""

    side: Side
    content: bytes
    received_ns: int
    partition: int
    position: int
    index: int
    half: Arrival | None = None

    @classmethod
    def of(cls, half: Arrival) -> Self:
        place = half.partition, half.position, half.index
        return cls(half.sender.side, half.content, half.received_ns, *place, half)

    @property
    def ref(self) -> RawRef:
        return RawRef(partition=self.partition, position=self.position, index=self.index)

    def state(self) -> PairState:
        half = Half(self.content, self.ref)
        request, response = (half, None) if self.side == "request" else (None, half)
        return PairState(
            request, response, is_stored=False, revision=0, received_ns=self.received_ns
        )


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
        # As they came, until the step ends in which they did.
        self._waiting: dict[bytes, Arrival | _Waiting] = {}
        self._held_bytes = 0
        # Packed, so that the garbage collector has nothing to walk through.
        self._recent: dict[bytes, bytes] = {}
        self._deadlines: dict[int, deque[tuple[int, bytes]]] = {}
        # Of this step. Most of them have met their other half when it ends, and need no deadline.
        self._begun: list[bytes] = []
        self._n_queued = 0
        self._begun_ns = _NEVER_NS
        for digest, first in _restored(waiting):
            self._waiting[digest] = first
            self._queue(digest, first)

    @property
    def n_waiting(self) -> int:
        """How many halves wait for their partner."""
        return len(self._waiting)

    @property
    def held_bytes(self) -> int:
        """Estimated bytes of the waiting events in memory."""
        return self._held_bytes

    def step(self, events: Iterable[Event | Arrival], lookup: Lookup) -> Outcome:
        """Take the next events, in the order of their journal.

        Parameters
        ----------
        events : iterable of Event or Arrival
            Of any partitions; those of one partition in order, halves of one inference in the
            same partition.
        lookup : callable
            Returns what is remembered of those digests that are known; asked once.

        """
        outcome = Outcome()
        halves = _halves(events, outcome)
        for sender, number in Counter([half.sender for half in halves]).items():
            outcome.received[sender.deployment, sender.side] += number
        self._meet(halves, self._remembered(halves, lookup), outcome)
        self._note_begun(outcome)
        self._forget()
        return outcome

    def expire(
        self, now_ns: int, *, partition: int | None = None, most: int = _NEVER_NS
    ) -> Outcome:
        """Give up what waits too long, the oldest first.

        Parameters
        ----------
        now_ns : int
            The wall clock, for an idle journal only; or when the next event of ``partition`` was
            received.
        partition : int, optional
            Whose halves; all when absent.
        most : int, optional
            Halves of a partition that are given up at once.

        """
        outcome = Outcome()
        for key in list(self._deadlines) if partition is None else (partition,):
            self._expire(key, now_ns, outcome, most)
        self._forget()
        return outcome

    def is_overdue(self, partition: int, now_ns: int, more_than: int) -> bool:
        """Return whether more halves than that may be late, so that a step should not have all."""
        queue = self._deadlines.get(partition)
        return queue is not None and len(queue) > more_than and queue[more_than][0] <= now_ns

    def _remembered(self, halves: Sequence[Arrival], lookup: Lookup) -> Mapping[bytes, bytes]:
        digests = {half.digest for half in halves}
        unknown = digests.difference(self._waiting).difference(self._recent)
        return lookup(unknown) if unknown else {}

    def _meet(
        self, halves: Sequence[Arrival], known: Mapping[bytes, bytes], outcome: Outcome
    ) -> None:
        waiting, recent, new = self._waiting, self._recent, outcome.remembered
        blake2b, pairs, begun = hashlib.blake2b, outcome.pairs, self._begun
        completed = []
        partition = shown_ns = -1
        for half in halves:
            if half.received_ns != shown_ns or half.partition != partition:
                partition, shown_ns = half.partition, half.received_ns
                self._expire(partition, shown_ns, outcome)
                if not self._orphan_after_ns:
                    # Without patience each event shows that the one before it is late.
                    shown_ns = -1
            digest, sender = half.digest, half.sender
            half.content = blake2b(half.data, digest_size=_DIGEST_BYTES).digest()
            first = waiting.get(digest)
            if first is None:
                value = recent.get(digest) or known.get(digest)
                if value is not None:
                    self._take_again(PairState.recall(value), half, outcome)
                    continue
                waiting[digest] = half
                begun.append(digest)
                self._begun_ns = min(self._begun_ns, half.received_ns)
            elif first.side == sender.side:
                _count_again(first.content == half.content, half, outcome)
            elif sender.is_learned and isinstance(first, Arrival) and first.sender.is_learned:
                # Both of this step and of known senders, as most are.
                del waiting[digest]
                asked, answered = (half, first) if sender.is_request else (first, half)
                recent[digest] = new[digest] = remember_whole(1, asked.content, answered.content)
                pairs.append(Meeting(asked, answered))
                completed.append(sender)
            else:
                self._complete(first, half, outcome)
        for sender, number in Counter(completed).items():
            outcome.completed[sender.deployment] += number

    def _complete(self, first: Arrival | _Waiting, half: Arrival, outcome: Outcome) -> None:
        """Let a half meet the one that waits for it."""
        digest, is_request = half.digest, half.sender.is_request
        held = self._no_longer_waits(digest, first, outcome)
        contents = half.content, first.content
        self._recent[digest] = outcome.remembered[digest] = remember_whole(
            1, *(contents if is_request else contents[::-1])
        )
        if held is not None and held.sender.is_learned and half.sender.is_learned:
            outcome.pairs.append(Meeting(half, held) if is_request else Meeting(held, half))
            outcome.completed[half.sender.deployment] += 1
            return
        partner = held.event() if held is not None else self._fetch(first.ref)
        self._hand_on(half, partner, outcome)
        if partner:
            outcome.completed[half.sender.deployment] += 1

    def _take_again(self, state: PairState, half: Arrival, outcome: Outcome) -> None:
        """Take a half of an inference that was handed on."""
        side, content = half.sender.side, half.content
        present = state.half(side)
        if present is not None:
            _count_again(present.digest == content, half, outcome)
            return
        other = state.half("response" if side == "request" else "request")
        partner = self._fetch(other.ref) if other else None
        asked = Half(content, half.ref)
        stored = state._replace(
            request=asked if side == "request" else state.request,
            response=asked if side == "response" else state.response,
            revision=state.revision + 1,
        )
        self._recent[half.digest] = outcome.remembered[half.digest] = stored.remember()
        self._hand_on(half, partner, outcome, state.revision)
        if partner:
            outcome.late[half.sender.deployment] += 1

    def _hand_on(
        self, half: Arrival, partner: Event | None, outcome: Outcome, revision: int = 0
    ) -> None:
        event, side = half.event(), half.sender.side
        if partner is None:
            outcome.unreadable[half.sender.deployment] += 1
            if revision:
                # The orphan's row says more than a row of this half alone would.
                return
            outcome.orphans[half.sender.deployment] += 1
        pair = Pair(
            key=half.key,
            id=half.digest.hex(),
            request=event if side == "request" else partner,
            response=partner if side == "request" else event,
            orphan=None if partner else side,
            revision=revision,
        )
        outcome.pairs.append(pair)

    def _expire(self, partition: int, now_ns: int, outcome: Outcome, most: int = _NEVER_NS) -> None:
        if self._begun_ns + self._orphan_after_ns <= now_ns:
            self._queue_begun()
        queue = self._deadlines.get(partition)
        while queue and queue[0][0] <= now_ns and most:
            deadline, digest = queue.popleft()
            first = self._waiting.get(digest)
            if first and first.received_ns + self._orphan_after_ns == deadline:
                self._give_up(digest, first, outcome)
                most -= 1

    def _give_up(self, digest: bytes, first: Arrival | _Waiting, outcome: Outcome) -> None:
        held = self._no_longer_waits(digest, first, outcome)
        event = held.event() if held is not None else self._fetch(first.ref)
        whole = _Waiting.of(first) if isinstance(first, Arrival) else first
        stored = whole.state()._replace(is_stored=True, revision=int(event is not None))
        self._recent[digest] = outcome.remembered[digest] = stored.remember()
        if event is None:
            outcome.unreadable[""] += 1
            return
        key, side = identity(event), first.side
        request, response = (event, None) if side == "request" else (None, event)
        outcome.pairs.append(Pair(key, digest.hex(), request, response, side))
        outcome.orphans[key.deployment] += 1

    def _no_longer_waits(
        self, digest: bytes, first: Arrival | _Waiting, outcome: Outcome
    ) -> Arrival | None:
        """Forget that a half waits; return it if memory holds it."""
        del self._waiting[digest]
        if isinstance(first, Arrival):
            # Of what came and went within one step the committed state never knew.
            return first
        outcome.state[WAITING_PREFIX + digest] = None
        if first.half is not None:
            self._held_bytes -= len(first.half.data) + _HALF_BYTES
        return first.half

    def _queue_begun(self) -> None:
        """Queue what began to wait, in its order, and still does."""
        for digest in islice(self._begun, self._n_queued, None):
            first = self._waiting.get(digest)
            if first is not None:
                self._queue(digest, first)
        self._n_queued = len(self._begun)
        self._begun_ns = _NEVER_NS

    def _note_begun(self, outcome: Outcome) -> None:
        """Note in the state what began to wait in this step, and still does."""
        self._queue_begun()
        for digest in self._begun:
            half = self._waiting.get(digest)
            if isinstance(half, Arrival):
                self._waiting[digest] = first = _Waiting.of(half)
                outcome.state[WAITING_PREFIX + digest] = first.state().pack()
                size = len(half.data) + _HALF_BYTES
                if self._held_bytes + size <= self._max_held_bytes:
                    self._held_bytes += size
                else:
                    first.half = None
        self._begun.clear()
        self._n_queued = 0

    def _queue(self, digest: bytes, first: Arrival | _Waiting) -> None:
        queue = self._deadlines.setdefault(first.partition, deque())
        queue.append((first.received_ns + self._orphan_after_ns, digest))

    def _forget(self) -> None:
        excess = len(self._recent) - self._max_recent
        if excess > 0:
            for digest in list(islice(self._recent, excess)):
                del self._recent[digest]


def _halves(events: Iterable[Event | Arrival], outcome: Outcome) -> list[Arrival]:
    """Return the halves among events; what is none goes to the others."""
    halves = []
    for event in events:
        if isinstance(event, Arrival):
            halves.append(event)
        elif (half := arrival_of(event)) is not None:
            halves.append(half)
        else:
            kind = kind_of(event.type)
            outcome.received[identity(event).deployment, kind] += 1
            (outcome.feedback if kind == "feedback" else outcome.others).append(event)
    return halves


def _count_again(is_same: bool, half: Arrival, outcome: Outcome) -> None:  # noqa: FBT001 - one claim
    counter = outcome.duplicates if is_same else outcome.key_reused
    counter[half.sender.deployment] += 1


def _restored(waiting: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, _Waiting]]:
    """Return what waited when it was committed, in the order of deadlines."""
    found = []
    for key, value in waiting:
        state = PairState.unpack(value)
        half = state.request or state.response
        if half is not None:
            ref = half.ref
            side: Side = "request" if state.request else "response"
            place = (state.received_ns, ref.partition, ref.position, ref.index)
            found.append((key[1:], _Waiting(side, half.digest, *place)))
    return sorted(found, key=lambda item: (item[1].received_ns, item[1].position, item[1].index))
