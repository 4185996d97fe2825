import asyncio
import gc
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partialmethod
from pathlib import Path
from typing import Any

import pytest

from sidelight.logger import _emitter_thread, _emitter_worker
from sidelight.logger._accounting import Accounts
from sidelight.logger._emitter import Emitter
from sidelight.logger._emitter_capture import Capture
from sidelight.logger._emitter_event import CapturedEvent
from sidelight.logger._emitter_slot import claim
from sidelight.logger._emitter_thread import ThreadedEmitter
from sidelight.logger._exchange import Exchange, Tap
from sidelight.logger._outlet import EmitterLimits, SpoolFolder
from sidelight.logger._outlet_lane import Lane
from sidelight.logger._sink import Delivery
from sidelight.logger._spool import Spool

FAST = EmitterLimits(linger_s=0.002, spill_after_s=0.02, max_backoff_s=0.05)
PATIENCE_S = 60.0


class Kept:
    """A sink that keeps ids; it can be down, and it can hang."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.is_up = True
        self.is_hanging = False
        self.arrived = threading.Condition()
        self.is_closed = False

    async def send(self, events: Sequence[CapturedEvent]) -> Delivery:
        if self.is_hanging:
            await asyncio.Event().wait()
        if not self.is_up:
            return Delivery(n_taken=0, failure="refused")
        with self.arrived:
            self.ids += [json.loads(event.attributes + b"}")["id"] for event in events]
            self.arrived.notify_all()
        return Delivery(n_taken=len(events))

    async def close(self) -> None:
        self.is_closed = True

    def wait_for(self, n_events: int) -> list[str]:
        with self.arrived:
            assert self.arrived.wait_for(lambda: len(self.ids) >= n_events, PATIENCE_S), self.ids
            return list(self.ids)


def exchange(name: str, *, body: bytes = b"{}") -> Exchange:
    return Exchange(
        method=b"POST",
        target=b"/v2/models/m/infer",
        request_head=b"POST / HTTP/1.1\r\nX-Request-Id: %b\r\n\r\n" % name.encode(),
        request_body=body,
        response_head=b"HTTP/1.1 200 OK\r\n\r\n",
        response_body=b"[1]",
        status=200,
        started_ns=1,
        finished_ns=0,
        latency_ms=1.0,
    )


Make = Callable[..., ThreadedEmitter]


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    emitters: list[ThreadedEmitter] = []
    monkeypatch.setattr(_emitter_thread, "_ANSWER_S", PATIENCE_S)
    monkeypatch.setattr(_emitter_worker, "_MARGIN_S", PATIENCE_S)

    def one(sink: Kept, **options: Any) -> ThreadedEmitter:
        def emitter(folder: Path | None) -> Emitter:
            spool = None if folder is None else SpoolFolder(folder=folder / "sink")
            return Emitter.of(sink, spool=spool, limits=FAST, capture=Capture(deployment="a/b"))

        emitters.append(ThreadedEmitter(emitter, **{"grace_s": PATIENCE_S} | options))
        return emitters[-1]

    yield one
    for emitter in emitters:
        emitter.close(0.2)


def account(emitter: ThreadedEmitter) -> Accounts:
    (accounts,) = emitter.accounts().values()
    assert accounts.unexplained == 0
    return accounts


def test_exchanges_of_many_threads_arrive_and_are_accounted_exactly(make: Make) -> None:
    sink = Kept()
    emitter = make(sink)
    tap: Tap = emitter

    def offer(name: int) -> None:
        for number in range(500):
            tap.offer(exchange(f"{name}-{number}"))

    threads = [threading.Thread(target=offer, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert account(emitter).unexplained == 0 if emitter.accounts() else True
    for thread in threads:
        thread.join()
    assert account(emitter).seen == 4000
    assert emitter.close()

    assert account(emitter).sent == 4000
    assert len(sink.ids) == 4000
    for name in range(4):
        mine = [one for one in sink.ids if one.startswith(f"{name}-")]
        assert mine == [f"{name}-{number}" for number in range(500) for _ in range(2)]
    assert sink.is_closed


def test_nothing_runs_before_the_first_exchange(make: Make) -> None:
    before = threading.active_count()
    emitter = make(Kept())

    assert threading.active_count() == before
    assert emitter.accounts() == {}
    assert emitter.close()


def test_offers_do_not_wait_for_a_sink_that_hangs_and_are_dropped_beyond_the_bound(
    make: Make,
) -> None:
    sink = Kept()
    sink.is_hanging = True
    emitter = make(sink, inbox_bytes=10_000)

    for number in range(50):
        emitter.offer(exchange(str(number), body=b"x" * 2000))

    accounts = account(emitter)
    assert accounts.seen == 100
    assert accounts.dropped["memory_full"] + accounts.pending == 100
    # The thread may have taken some of them meanwhile.
    assert accounts.dropped["memory_full"] >= 2


def test_what_is_offered_from_a_loop_arrives_without_the_loop(make: Make) -> None:
    sink = Kept()
    emitter = make(sink)

    async def work() -> list[str]:
        emitter.offer(exchange("a"))
        return sink.wait_for(2)  # the loop is blocked, as it should not be

    assert asyncio.run(work()) == ["a", "a"]


def test_an_offer_that_the_garbage_collector_makes_within_an_offer_is_taken(make: Make) -> None:
    sink = Kept()
    emitter = make(sink)

    class Late:
        def __init__(self, name: str) -> None:
            self.name = name
            self.itself = self

        def __del__(self) -> None:
            emitter.offer(exchange(self.name))

    class Meddling(Exchange):
        def __getattribute__(self, name: str) -> Any:
            if name == "response_body":
                gc.collect()
            return super().__getattribute__(name)

    emitter.offer(exchange("first"))
    Late("late")
    plain = exchange("outer")
    fields = {name: getattr(plain, name) for name in Exchange.__slots__}
    emitter.offer(Meddling(**fields))

    assert set(sink.wait_for(6)) == {"first", "late", "outer"}
    assert account(emitter).seen == 6


def test_a_flushed_emitter_begins_again_and_a_closed_one_counts_what_it_refuses(make: Make) -> None:
    sink = Kept()
    emitter = make(sink)
    emitter.offer(exchange("a"))
    assert emitter.flush()
    emitter.offer(exchange("b"))
    assert emitter.close()
    emitter.offer(exchange("c"))

    assert sink.ids == ["a", "a", "b", "b"]
    accounts = account(emitter)
    assert (accounts.seen, accounts.sent, accounts.dropped["shutdown"]) == (4, 2, 2)


def test_one_that_was_closed_before_it_began_counts_what_it_refuses(make: Make) -> None:
    sink = Kept()
    emitter = make(sink)
    assert emitter.close()

    emitter.offer(exchange("a"))

    assert account(emitter).dropped["shutdown"] == 2
    assert sink.ids == []


def test_a_hanging_sink_costs_no_more_than_the_grace_and_the_events_are_spooled(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The grace ends the delivery; what the disk needs on top is not the subject.
    monkeypatch.setattr(Lane, "flush", partialmethod(Lane.flush, disk_s=PATIENCE_S))
    sink = Kept()
    sink.is_hanging = True
    emitter = make(sink, spool=tmp_path)
    emitter.offer(exchange("a"))

    assert emitter.close(0.1)

    accounts = account(emitter)
    assert (accounts.pending, accounts.spool_events) == (2, 2)
    with_rest = Spool(tmp_path / "0" / "sink")
    assert with_rest.recovered == 2
    with_rest.close()


def test_what_dead_processes_left_is_delivered_by_the_next(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = Kept()
    dead.is_up = False
    before = [make(dead, spool=tmp_path), make(dead, spool=tmp_path)]
    for number, emitter in enumerate(before):
        emitter.offer(exchange(str(number)))
        account(emitter)
    for emitter in before:
        assert emitter.close()
    monkeypatch.setattr(_emitter_worker, "_FIRST_LOOK_S", 0.01)
    monkeypatch.setattr(_emitter_worker, "_DRAINED_S", 0.01)
    sink = Kept()
    emitter = make(sink, spool=tmp_path)
    emitter.offer(exchange("new"))

    assert sorted(sink.wait_for(6)) == ["0", "0", "1", "1", "new", "new"]
    assert emitter.close()
    accounts = account(emitter)
    assert (accounts.seen, accounts.sent, accounts.pending) == (6, 6, 0)
    # Nobody holds a folder any more, and none has events.
    assert not list(tmp_path.rglob("*.spool1"))
    slots = [claim(tmp_path), claim(tmp_path)]
    assert [slot.folder.name for slot in slots] == ["0", "1"]
    for slot in slots:
        slot.close()


def test_without_a_folder_to_write_in_events_are_kept_in_memory(make: Make, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    sink = Kept()
    emitter = make(sink, spool=tmp_path / "file")
    emitter.offer(exchange("a"))

    assert sink.wait_for(2) == ["a", "a"]


def test_a_spool_that_another_program_holds_is_done_without(make: Make, tmp_path: Path) -> None:
    other = Spool(tmp_path / "0" / "sink")
    sink = Kept()
    emitter = make(sink, spool=tmp_path)
    emitter.offer(exchange("a"))

    assert sink.wait_for(2) == ["a", "a"]
    other.close()


def test_an_emitter_that_cannot_be_made_loses_events_and_nothing_else() -> None:
    made: list[Path | None] = []

    def fail(folder: Path | None) -> Emitter:
        made.append(folder)
        raise LookupError("no such sink")

    emitter = ThreadedEmitter(fail)
    emitter.offer(exchange("first"))
    assert account(emitter).dropped["shutdown"] == 2
    for number in range(20):
        emitter.offer(exchange(str(number)))

    assert emitter.close()
    accounts = account(emitter)
    assert (accounts.seen, accounts.dropped["shutdown"]) == (42, 42)
    # It is not tried again with every request.
    assert made == [None]
    assert sum(thread.name == "sidelight-emitter" for thread in threading.enumerate()) == 0


def test_metrics_tell_what_the_accounts_do(make: Make) -> None:
    emitter = make(Kept())
    emitter.offer(exchange("a"))
    assert emitter.close()

    text = emitter.prometheus(namespace="prod", deployment="flights").decode()

    sample = 'namespace="prod",deployment="flights",sink="sink",outcome="sent",reason=""'
    assert f"sidelight_capture_events_total{{{sample}}} 2\n" in text


def test_ids_are_unique(make: Make) -> None:
    emitter = make(Kept())

    assert len({emitter.new_id() for _ in range(100)}) == 100


@pytest.mark.parametrize("option", ["inbox_bytes", "grace_s"])
def test_bounds_that_are_not_positive_are_refused(option: str) -> None:
    with pytest.raises(ValueError, match=option):
        ThreadedEmitter(lambda _: Emitter.of(Kept()), **{option: 0})  # type: ignore[arg-type] # the wrong value is the point


_PROGRAM = """
import asyncio, json, os, sys
from pathlib import Path
from sidelight.logger import Capture, Delivery, Emitter, Exchange
from sidelight.logger import _emitter_thread
from sidelight.logger._emitter_thread import ThreadedEmitter
from sidelight.logger._outlet import SpoolFolder

class File:
    async def send(self, events):
        # As sinks resolve names: on the executor of the loop.
        await asyncio.get_running_loop().getaddrinfo("localhost", 80)
        with open(sys.argv[1], "a") as file:
            for event in events:
                file.write(json.loads(event.attributes + b"}")["id"] + "\\n")
        return Delivery(n_taken=len(events))
    async def close(self):
        pass

def make(folder):
    return Emitter.of(File(), spool=SpoolFolder(folder=folder / "sink"), capture=Capture())

def exchange(name):
    return Exchange(method=b"POST", target=b"/", request_head=b"POST / HTTP/1.1\\r\\n\\r\\n",
        request_body=b"{}", response_head=b"HTTP/1.1 200 OK\\r\\n\\r\\n", response_body=b"1",
        status=200, started_ns=1, finished_ns=0, latency_ms=1.0, request_id=name.encode())

_emitter_thread._ANSWER_S = 60.0
emitter = ThreadedEmitter(make, spool=Path(sys.argv[2]), grace_s=60.0)
"""


def _run(program: str, tmp_path: Path) -> list[str]:
    out = tmp_path / "out"
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _PROGRAM + program, str(out), str(tmp_path / "s")],
        check=True,
        timeout=150,
    )
    return sorted(out.read_text().split())


# https://github.com/python/cpython/issues/113964
_needs_late_threads = pytest.mark.skipif(
    (3, 12) <= sys.version_info < (3, 12, 3),
    reason="these versions start no thread once the main one has ended",
)


@_needs_late_threads
def test_what_was_offered_last_is_delivered_when_the_interpreter_ends(tmp_path: Path) -> None:
    assert _run("emitter.offer(exchange('last'))", tmp_path) == ["last", "last"]


@_needs_late_threads
def test_each_forked_process_has_a_thread_a_folder_and_ids_of_its_own(tmp_path: Path) -> None:
    program = """
emitter.offer(exchange("parent"))
emitter.accounts()
children = []
for name in "ab":
    pid = os.fork()
    if not pid:
        emitter.offer(exchange(name))
        emitter.offer(exchange(emitter.new_id().decode()))
        sys.exit()
    children.append(pid)
assert [os.waitpid(pid, 0)[1] for pid in children] == [0, 0]
emitter.offer(exchange(emitter.new_id().decode()))
"""
    ids = _run(program, tmp_path)

    assert [one for one in ids if one in {"a", "b", "parent"}] == ["a"] * 2 + ["b"] * 2 + [
        "parent"
    ] * 2
    assert len(set(ids)) == 6
    # The parent's was held while the children began.
    assert (tmp_path / "s" / "1").is_dir()
