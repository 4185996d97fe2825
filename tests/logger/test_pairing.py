"""Halves meet exactly once, whatever the order, the redelivery and the restarts."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidelight.logger import WAITING_PREFIX, EventReader, Outcome, Pairing, inference_id
from sidelight.logger._identity import Identity
from sidelight.logger._journal import REMEMBERED_BYTES, EventRecord
from sidelight.logger._pairing_state import Half, PairState
from sidelight.payloads import Event, RawRef

DEADLINE = 10
Found = tuple[str, bytes | None, bytes | None, str | None, int]
TYPES = {kind: f"org.kubeflow.serving.inference.{kind}" for kind in ("request", "response")}


def half(kind: str, key: str, data: bytes = b"x", *, at: int = 0, position: int = 0) -> Event:
    return Event(
        id=key,
        source="/s",
        type=TYPES.get(kind, kind),
        extensions={"namespace": "prod", "inferenceservicename": "m"},
        data=data,
        received_ns=at,
        ref=RawRef(partition=0, position=position),
    )


@dataclass
class Store:
    """The committed state, the archive, and a pairing that can be restarted."""

    held_bytes: int = 1 << 20
    recent: int = 1000
    state: dict[bytes, bytes] = field(default_factory=dict)
    remembered: dict[bytes, bytes] = field(default_factory=dict)
    archive: dict[RawRef, Event] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        self.pairing = Pairing(
            self.archive.get,
            [item for item in self.state.items() if item[0].startswith(WAITING_PREFIX)],
            orphan_after_ns=DEADLINE,
            max_held_bytes=self.held_bytes,
            max_recent=self.recent,
        )

    def lookup(self, digests: Iterable[bytes]) -> Mapping[bytes, bytes]:
        return {key: self.remembered[key] for key in digests if key in self.remembered}

    def commit(self, outcome: Outcome) -> Outcome:
        for key, value in outcome.state.items():
            if value is None:
                del self.state[key]
            else:
                self.state[key] = value
        self.remembered |= outcome.remembered
        return outcome

    def step(self, *events: Event) -> Outcome:
        self.archive.update({event.ref: event for event in events})
        return self.commit(self.pairing.step(events, self.lookup))


def facts(outcome: Outcome) -> list[Found]:
    return [
        (
            pair.key.request_id,
            pair.request.data if pair.request else None,
            pair.response.data if pair.response else None,
            pair.orphan,
            pair.revision,
        )
        for pair in outcome.whole()
    ]


@pytest.mark.parametrize("kinds", [("request", "response"), ("response", "request")])
def test_two_halves_are_one_inference_in_either_order(kinds: tuple[str, str]) -> None:
    store = Store()

    outcome = store.step(*[half(kind, "1", kind.encode()) for kind in kinds])

    assert facts(outcome) == [("1", b"request", b"response", None, 0)]
    assert outcome.completed == {"prod/m": 1}
    assert store.pairing.held_bytes == store.pairing.n_waiting == 0


def test_ids_are_those_of_the_identity() -> None:
    store = Store()

    outcome = store.step(half("request", "1"), half("response", "1"))

    assert outcome.whole()[0].id == inference_id(Identity("prod", "m", "", "", "1"))


def test_the_same_bytes_again_change_nothing() -> None:
    store = Store()
    store.step(half("request", "1"), half("response", "1"))
    before = dict(store.remembered)

    outcome = store.step(half("request", "1", at=5), half("response", "1", at=5))

    assert (facts(outcome), outcome.duplicates) == ([], {"prod/m": 2})
    assert (store.state, store.remembered) == ({}, before)


def test_other_bytes_under_the_same_key_are_counted_and_change_nothing() -> None:
    store = Store()

    outcome = store.step(
        half("request", "1", b"a"), half("request", "1", b"b"), half("response", "1", b"c")
    )

    assert facts(outcome) == [("1", b"a", b"c", None, 0)]
    assert outcome.key_reused == {"prod/m": 1}


def test_a_half_alone_past_the_deadline_is_an_orphan() -> None:
    store = Store()
    store.step(half("request", "1", b"a"))

    outcome = store.step(half("request", "2", at=DEADLINE))

    assert facts(outcome) == [("1", b"a", None, "request", 0)]
    assert outcome.orphans == {"prod/m": 1}


def test_the_deadline_comes_before_the_half_that_shows_it() -> None:
    store = Store()
    store.step(half("request", "1", b"a"))

    outcome = store.step(half("response", "1", b"b", at=DEADLINE, position=1))

    assert facts(outcome) == [("1", b"a", None, "request", 0), ("1", b"a", b"b", None, 1)]


def test_an_idle_journal_gives_up_by_the_wall_clock() -> None:
    store = Store()
    store.step(half("response", "1", b"a"))

    assert facts(store.commit(store.pairing.expire(DEADLINE - 1))) == []
    assert facts(store.commit(store.pairing.expire(DEADLINE))) == [("1", None, b"a", "response", 0)]


def test_a_late_half_completes_an_orphan_after_a_restart() -> None:
    store = Store()
    store.step(half("response", "1", b"b", position=4))
    store.commit(store.pairing.expire(DEADLINE))
    store.restart()

    outcome = store.step(half("request", "1", b"a", at=500, position=1))

    assert facts(outcome) == [("1", b"a", b"b", None, 1)]
    assert outcome.late == {"prod/m": 1}


def test_a_partner_that_the_archive_lost_is_counted() -> None:
    store = Store(held_bytes=0)
    store.step(half("request", "1", b"a"))
    store.archive.clear()

    outcome = store.step(half("response", "1", b"b", position=1))

    assert facts(outcome) == [("1", None, b"b", "response", 0)]
    assert outcome.unreadable == {"prod/m": 1}


def test_an_orphan_keeps_its_row_when_the_archive_lost_its_request() -> None:
    store = Store(held_bytes=0)
    store.step(half("request", "1", b"a"))
    store.commit(store.pairing.expire(DEADLINE))
    store.archive.clear()

    outcome = store.step(half("response", "1", b"b", at=20, position=1))

    assert (facts(outcome), outcome.unreadable) == ([], {"prod/m": 1})


def test_memory_of_waiting_halves_is_bounded() -> None:
    store = Store(held_bytes=10_000)

    store.step(*[half("request", str(n), b"x" * 1000, position=n) for n in range(50)])

    assert store.pairing.n_waiting == 50
    assert store.pairing.held_bytes <= 10_000
    outcome = store.step(*[half("response", str(n), position=50 + n) for n in range(50)])
    assert [pair.request and len(pair.request.data) for pair in outcome.whole()] == [1000] * 50


def test_events_that_are_no_halves_are_passed_on() -> None:
    outcome = Store().step(half("io.sidelight.feedback", "1"), half("com.example", "2"))

    assert [event.id for event in outcome.feedback] == ["1"]
    assert [event.id for event in outcome.others] == ["2"]
    assert outcome.state == {}


def test_what_came_and_went_in_one_step_leaves_no_waiting_state() -> None:
    outcome = Store().step(half("request", "1"), half("response", "1"))

    assert (outcome.state, len(outcome.remembered)) == ({}, 1)


refs = st.builds(
    RawRef,
    partition=st.integers(0, 2**32 - 1),
    position=st.integers(0, 2**63),
    index=st.integers(0, 2**32 - 1),
)
halves = st.none() | st.builds(Half, st.binary(min_size=8, max_size=8), refs)


@given(
    st.builds(PairState, halves, halves, st.booleans(), st.integers(0, 9), st.integers(0, 2**62))
)
def test_packed_state_reads_back(state: PairState) -> None:
    assert PairState.unpack(state.pack()) == state


ref_for_ever = st.builds(
    RawRef,
    partition=st.integers(0, 2**16 - 1),
    position=st.integers(0, 2**63),
    index=st.integers(0, 2**32 - 1),
)
one = st.builds(Half, st.binary(min_size=8, max_size=8), ref_for_ever)


@given(request=st.none() | one, response=st.none() | one, revision=st.integers(0, 255))
def test_what_is_kept_for_ever_tells_duplicates_and_where_a_half_is_that_is_alone(
    request: Half | None, response: Half | None, revision: int
) -> None:
    state = PairState(request, response, is_stored=True, revision=revision, received_ns=7)
    value = state.remember()
    recalled = PairState.recall(value)

    assert len(value) == REMEMBERED_BYTES
    assert (recalled.is_stored, recalled.revision) == (True, revision)
    if request and response:
        halves = (recalled.request, recalled.response)
        digests = [half.digest for half in halves if half]
        assert digests == [request.digest, response.digest]
    else:
        assert (recalled.request, recalled.response) == (request, response)


arrivals = st.lists(
    st.tuples(
        st.sampled_from(["request", "response"]),
        st.sampled_from("abc"),
        st.sampled_from([b"1", b"1", b"1", b"2"]),
        st.integers(0, 6),
    ),
    max_size=25,
)


def naive(events: list[Event]) -> list[Found]:
    """Every event on its own against plain dictionaries."""
    seen: dict[str, dict[str, bytes]] = {}
    begun: dict[str, int] = {}
    revision: dict[str, int] = {}
    found: list[Found] = []
    for event in events:
        for key in [key for key, at in begun.items() if at + DEADLINE <= event.received_ns]:
            kind = next(iter(seen[key]))
            found.append((key, seen[key].get("request"), seen[key].get("response"), kind, 0))
            revision[key] = 1
            del begun[key]
        kind = event.type.rpartition(".")[2]
        known = seen.setdefault(event.id, {})
        if kind in known:
            continue
        known[kind] = event.data
        if len(known) == 1:
            begun[event.id] = event.received_ns
            continue
        begun.pop(event.id, None)
        found.append(
            (event.id, known["request"], known["response"], None, revision.get(event.id, 0))
        )
    return found


@given(arrivals, st.data())
@settings(max_examples=300, deadline=None)
def test_any_interleaving_steps_and_restarts_agree_with_the_naive_model(
    arrived: list[tuple[str, str, bytes, int]], data: st.DataObject
) -> None:
    events = []
    now = 0
    for position, (kind, key, content, wait) in enumerate(arrived):
        now += wait
        events.append(half(kind, key, content, at=now, position=position))
    store = Store(
        held_bytes=data.draw(st.sampled_from([0, 5000, 1 << 20])),
        recent=data.draw(st.sampled_from([0, 1, 1000])),
    )
    found: list[Found] = []
    rest = list(events)
    while rest:
        size = data.draw(st.integers(1, len(rest)))
        found += facts(store.step(*rest[:size]))
        del rest[:size]
        if data.draw(st.booleans()):
            store.restart()

    assert found == naive(events)


@given(arrivals)
def test_a_step_that_was_not_committed_is_done_again_alike(
    arrived: list[tuple[str, str, bytes, int]],
) -> None:
    events = [
        half(kind, key, content, at=3 * n, position=n)
        for n, (kind, key, content, _) in enumerate(arrived)
    ]
    store = Store()
    store.archive.update({event.ref: event for event in events})
    middle = len(events) // 2
    store.step(*events[:middle])

    lost = store.pairing.step(events[middle:], store.lookup)
    store.restart()
    again = store.step(*events[middle:])

    assert facts(again) == facts(lost)
    assert (again.state, again.remembered) == (lost.state, lost.remembered)


def test_the_reader_parses_a_batch_once() -> None:
    members = ",".join(
        f'{{"specversion":"1.0","type":"{TYPES["request"]}","source":"/s","id":"{n}"}}'
        for n in range(3)
    )
    head = b"POST / HTTP/1.1\r\ncontent-type: application/cloudevents-batch+json\r\n\r\n"
    asked = []

    def read(ref: RawRef) -> EventRecord | None:
        asked.append(ref)
        body = f"[{members}]".encode()
        return EventRecord(0, ref.position, 0, head, body) if ref.position == 7 else None

    reader = EventReader(read)

    found = [reader(RawRef(partition=0, position=7, index=n)) for n in (2, 0, 5)]
    assert [event and event.id for event in found] == ["2", "0", None]
    assert len(asked) == 1
    assert reader(RawRef(partition=0, position=8)) is None


def test_the_reader_keeps_few_bytes_and_no_event_that_is_alone() -> None:
    head = b"POST / HTTP/1.1\r\ncontent-type: application/cloudevents-batch+json\r\n\r\n"
    asked = []

    def read(ref: RawRef) -> EventRecord:
        asked.append(ref.position)
        member = {"specversion": "1.0", "type": TYPES["request"], "source": "/s", "id": "1"}
        members = [member | {"data": "x" * 100}] * (ref.position or 1)
        return EventRecord(0, ref.position, 0, head, json.dumps(members).encode())

    reader = EventReader(read, max_bytes=500)

    for position in (2, 3, 2, 0, 0, 2, 9, 9, 2):
        assert reader(RawRef(partition=0, position=position))
    # Two and three are too much together, nine by itself.
    assert asked == [2, 3, 2, 0, 0, 9, 2]


def test_every_event_is_counted_by_deployment_and_kind() -> None:
    other, again = half("com.example.other", "3"), half("request", "1", position=1)
    outcome = Store().step(half("request", "1"), again, half("response", "1", position=2), other)
    assert outcome.received == {
        ("prod/m", "request"): 2,
        ("prod/m", "response"): 1,
        ("prod/m", "other"): 1,
    }


def test_what_came_and_went_within_a_step_is_no_waiting_state() -> None:
    outcome = Store().step(
        half("request", "1"), half("response", "1", position=1), half("request", "2", position=2)
    )
    waiting = [key for key in outcome.state if key.startswith(WAITING_PREFIX)]
    assert len(waiting) == len(outcome.state) == len(outcome.remembered) == 1
