import asyncio
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partialmethod
from pathlib import Path
from typing import Any

import pytest
import uvloop

from sidelight.logger._accounting import Accounts
from sidelight.logger._emitter import Emitter
from sidelight.logger._emitter_capture import Capture
from sidelight.logger._emitter_event import CapturedEvent
from sidelight.logger._exchange import Exchange, Tap
from sidelight.logger._outlet import EmitterLimits, SpoolFolder
from sidelight.logger._outlet_lane import Lane
from sidelight.logger._sink import Delivery
from sidelight.logger._sink_http import HttpSink
from sidelight.logger._spool import Spool
from sidelight.logger._spool_segment import SpoolRecord

FAST = EmitterLimits(linger_s=0.002, spill_after_s=0.02, max_backoff_s=0.05)
PATIENCE_S = 60


def exchange(number: int, *, body: bytes = b"{}") -> Exchange:
    return Exchange(
        method=b"POST",
        target=b"/v2/models/m/infer",
        request_head=b"POST / HTTP/1.1\r\nX-Request-Id: %d\r\n\r\n" % number,
        request_body=body,
        response_head=b"HTTP/1.1 200 OK\r\n\r\n",
        response_body=b"[1]",
        status=200,
        started_ns=0,
        finished_ns=0,
        latency_ms=1.0,
    )


def expected(numbers: Sequence[int]) -> list[str]:
    return [f"{number} {kind}" for number in numbers for kind in ("request", "response")]


def names(events: Sequence[dict[str, str]]) -> list[str]:
    return [f"{event['id']} {event['type'].rpartition('.')[2]}" for event in events]


class Script:
    """A sink that follows a script and keeps what it took."""

    def __init__(self, *steps: Delivery | str) -> None:
        self.steps = list(steps)
        self.is_up = True
        self.is_hanging = False
        self.taken: list[str] = []
        self.bad: set[str] = set()
        self.sizes: list[int] = []
        self.times: list[float] = []
        self.resumed = asyncio.Event()

    async def send(self, events: Sequence[CapturedEvent]) -> Delivery:
        self.sizes.append(len(events))
        self.times.append(time.monotonic())
        if self.is_hanging:
            await self.resumed.wait()
        if self.steps:
            step = self.steps.pop(0)
            if isinstance(step, str):
                raise RuntimeError(step)
            self._take(events[: step.n_taken])
            return step
        if not self.is_up:
            return Delivery(n_taken=0, failure="refused")
        if self.bad & set(names([json.loads(event.member()) for event in events])):
            return Delivery(n_taken=0, n_refused=len(events), failure="status_400")
        self._take(events)
        return Delivery(n_taken=len(events))

    def _take(self, events: Sequence[CapturedEvent]) -> None:
        self.taken += names([json.loads(event.member()) for event in events])

    async def close(self) -> None:
        pass


async def until(claim: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not claim():  # noqa: ASYNC110 - counters have no event to wait for
            await asyncio.sleep(0.001)


def run(work: Awaitable[Any]) -> Any:
    async def bounded() -> Any:
        async with asyncio.timeout(PATIENCE_S * 2):
            return await work

    # As the proxy runs it.
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(bounded())


def settled(accounts: Accounts) -> bool:
    assert accounts.unexplained == 0
    return accounts.pending == 0


def test_events_reach_the_sink_in_order_and_are_accounted() -> None:
    async def work() -> None:
        sink = Script()
        emitter = Emitter.of(sink, limits=FAST)
        tap: Tap = emitter
        await emitter.start()
        for number in range(1000):
            tap.offer(exchange(number))
        await until(lambda: settled(emitter.accounts()["sink"]))
        await emitter.flush(PATIENCE_S)

        assert sink.taken == expected(range(1000))
        assert emitter.accounts()["sink"].sent == 2000
        assert emitter.accounts()["sink"].memory_bytes == 0
        assert max(sink.sizes) <= 1024

    run(work())


def test_health_probes_and_skipped_requests_are_not_wanted() -> None:
    async def work() -> None:
        emitter = Emitter.of(Script())
        assert emitter.wants(b"POST", b"/v2/models/m/infer", b"POST / HTTP/1.1\r\n\r\n")
        assert not emitter.wants(b"GET", b"/v2/health/ready", b"GET / HTTP/1.1\r\n\r\n")

    run(work())


def test_a_batch_is_bounded_in_bytes_and_a_larger_event_goes_alone() -> None:
    async def work() -> None:
        sink = Script()
        limits = EmitterLimits(batch_bytes=5000, linger_s=0.001)
        emitter = Emitter.of(sink, limits=limits)
        for number in range(10):
            emitter.offer(exchange(number, body=b'"%b"' % (b"x" * 9000 if number == 5 else b"y")))
        await emitter.start()
        await until(lambda: settled(emitter.accounts()["sink"]))
        await emitter.flush(PATIENCE_S)

        assert sink.taken == expected(range(10))
        assert 1 in sink.sizes
        assert max(sink.sizes) < 14

    run(work())


def test_without_a_spool_memory_is_bounded_and_the_newest_are_dropped() -> None:
    async def work() -> None:
        sink = Script()
        sink.is_up = False
        limits = EmitterLimits(memory_bytes=20_000, max_backoff_s=0.01)
        emitter = Emitter.of(sink, limits=limits)
        await emitter.start()
        for number in range(50):
            emitter.offer(exchange(number))
            assert emitter.accounts()["sink"].memory_bytes <= 20_000
        accounts = emitter.accounts()["sink"]
        sink.is_up = True
        await until(lambda: settled(emitter.accounts()["sink"]))
        await emitter.flush(PATIENCE_S)

        n_kept = (100 - accounts.dropped["memory_full"]) // 2
        assert 0 < n_kept < 50
        assert sink.taken == expected(range(n_kept))

    run(work())


def test_while_the_sink_is_down_events_are_on_disk_within_a_second(tmp_path: Path) -> None:
    async def work() -> None:
        sink = Script()
        sink.is_up = False
        emitter = Emitter.of(sink, spool=SpoolFolder(folder=tmp_path))
        await emitter.start()
        emitter.offer(exchange(0))
        # A second is the promise; a machine with other work gets more.
        await until(lambda: emitter.accounts()["sink"].spool_events == 2)

        assert emitter.accounts()["sink"].memory_bytes == 0
        await emitter.flush(PATIENCE_S)

    run(work())


def test_events_on_their_way_are_on_disk_within_a_second_and_sent_once(tmp_path: Path) -> None:
    async def work() -> None:
        sink = Script()
        sink.is_hanging = True
        emitter = Emitter.of(sink, spool=SpoolFolder(folder=tmp_path), limits=FAST)
        await emitter.start()
        for number in range(20):
            emitter.offer(exchange(number))
        await until(lambda: emitter.accounts()["sink"].spool_events == 40)
        for number in range(20, 30):
            emitter.offer(exchange(number))
        sink.is_hanging = False
        sink.resumed.set()
        await until(lambda: settled(emitter.accounts()["sink"]))
        await emitter.flush(PATIENCE_S)

        assert sink.taken == expected(range(30))
        assert emitter.accounts()["sink"].spool_bytes == 0

    run(work())


def test_when_the_sink_returns_spooled_events_come_first_and_in_order(tmp_path: Path) -> None:
    async def work() -> None:
        sink = Script()
        sink.is_up = False
        spool = SpoolFolder(folder=tmp_path, segment_bytes=5000)
        emitter = Emitter.of(sink, spool=spool, limits=FAST)
        await emitter.start()
        for number in range(300):
            emitter.offer(exchange(number))
            if number % 50 == 0:
                await until(lambda: emitter.accounts()["sink"].memory_bytes == 0)
        sink.is_up = True
        for number in range(300, 600):
            emitter.offer(exchange(number))
            if number % 30 == 0:
                await asyncio.sleep(0)
        await until(lambda: settled(emitter.accounts()["sink"]))
        await emitter.flush(PATIENCE_S)

        assert sink.taken == expected(range(600))
        assert emitter.accounts()["sink"].sink_errors["refused"] > 0

    run(work())


def test_a_part_that_was_taken_is_not_sent_again(tmp_path: Path) -> None:
    async def work(spool: SpoolFolder | None) -> list[str]:
        sink = Script(
            Delivery(n_taken=3, failure="reset"),
            Delivery(n_taken=0, failure="status_503", retry_after_s=0.01),
            Delivery(n_taken=1, failure="timeout"),
        )
        emitter = Emitter.of(sink, spool=spool, limits=FAST)
        for number in range(10):
            emitter.offer(exchange(number))
        await emitter.start()
        await until(lambda: settled(emitter.accounts()["sink"]))
        await emitter.flush(PATIENCE_S)
        return sink.taken

    assert run(work(None)) == expected(range(10))
    assert run(work(SpoolFolder(folder=tmp_path))) == expected(range(10))


@pytest.mark.parametrize("n_bad", [1, 3])
def test_a_rejected_batch_is_split_until_the_bad_events_are_found(n_bad: int) -> None:
    async def work() -> None:
        sink = Script()
        sink.bad = {f"{number * 37} request" for number in range(1, n_bad + 1)}
        emitter = Emitter.of(sink, limits=FAST)
        for number in range(200):
            emitter.offer(exchange(number))
        await emitter.start()
        await until(lambda: settled(emitter.accounts()["sink"]))
        await emitter.flush(PATIENCE_S)

        assert sink.taken == [name for name in expected(range(200)) if name not in sink.bad]
        assert emitter.accounts()["sink"].dropped["rejected"] == n_bad
        assert len(sink.sizes) < 40 * n_bad

    run(work())


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Every pause between two deliveries, seconds; none is waited for."""
    asked: list[float] = []

    async def pause(self: Lane, pause_s: float) -> None:
        del self
        asked.append(pause_s)
        await asyncio.sleep(0)

    monkeypatch.setattr(Lane, "_pause", pause)
    return asked


def test_a_pause_that_the_sink_asks_for_is_kept_within_the_bound(pauses: list[float]) -> None:
    async def work() -> None:
        sink = Script(
            Delivery(n_taken=0, failure="status_429", retry_after_s=0.2),
            Delivery(n_taken=0, failure="status_503", retry_after_s=3600),
        )
        emitter = Emitter.of(sink, limits=EmitterLimits(linger_s=0.001, max_backoff_s=0.3))
        emitter.offer(exchange(0))
        await emitter.start()
        await until(lambda: settled(emitter.accounts()["sink"]))
        await emitter.flush(PATIENCE_S)

        assert pauses == [0.2, 0.3]

    run(work())


def test_a_pause_is_waited_for() -> None:
    async def work() -> None:
        sink = Script(Delivery(n_taken=0, failure="status_429", retry_after_s=0.2))
        emitter = Emitter.of(sink, limits=EmitterLimits(linger_s=0.001, max_backoff_s=0.3))
        emitter.offer(exchange(0))
        await emitter.start()
        await until(lambda: settled(emitter.accounts()["sink"]))
        await emitter.flush(PATIENCE_S)

        # A machine that stalls makes it only longer.
        assert sink.times[1] - sink.times[0] > 0.19

    run(work())


def test_a_sink_that_asks_for_no_pause_gets_one_that_grows(pauses: list[float]) -> None:
    async def work() -> None:
        sink = Script(*[Delivery(n_taken=0, failure="status_429", retry_after_s=0.0)] * 9)
        emitter = Emitter.of(sink, limits=EmitterLimits(linger_s=0.001, max_backoff_s=0.3), seed=1)
        emitter.offer(exchange(0))
        await emitter.start()
        await until(lambda: settled(emitter.accounts()["sink"]))
        await emitter.flush(PATIENCE_S)

        assert len(pauses) == 9
        assert sum(pauses) > 0.3

    run(work())


def test_a_sink_that_rejects_everything_is_asked_ever_more_rarely(pauses: list[float]) -> None:
    async def work() -> None:
        sink = Script(*[Delivery(n_taken=0, n_refused=1, failure="status_400")] * 40)
        limits = EmitterLimits(linger_s=0.001, batch_events=1, max_backoff_s=0.1)
        emitter = Emitter.of(sink, limits=limits, seed=1)
        for number in range(30):
            emitter.offer(exchange(number))
        await emitter.start()
        await until(lambda: settled(emitter.accounts()["sink"]))

        accounts = emitter.accounts()["sink"]
        assert accounts.dropped["rejected"] == 40
        assert accounts.sent == 20
        # Up to 32 in a row may be the events' own fault.
        assert len(pauses) == 9
        assert 0 < sum(pauses) < 0.9
        await emitter.flush(PATIENCE_S)

    run(work())


def test_a_sink_that_raises_costs_a_pause_and_no_event() -> None:
    async def work() -> None:
        sink = Script("boom")
        emitter = Emitter.of(sink, limits=FAST)
        emitter.offer(exchange(0))
        await emitter.start()
        await until(lambda: settled(emitter.accounts()["sink"]))
        await emitter.flush(PATIENCE_S)

        assert sink.taken == expected([0])
        assert emitter.accounts()["sink"].sink_errors == {"internal": 1}

    run(work())


def test_an_exchange_that_cannot_be_encoded_is_counted_and_harms_no_other() -> None:
    async def work() -> None:
        sink = Script()
        emitter = Emitter.of(sink, limits=FAST)
        odd = exchange(1)
        odd.started_ns = 10**40
        for each in (exchange(0), odd, exchange(2)):
            emitter.offer(each)
        await emitter.start()
        await until(lambda: settled(emitter.accounts()["sink"]))
        await emitter.flush(PATIENCE_S)

        assert sink.taken == expected([0, 2])
        assert emitter.accounts()["sink"].dropped["unencodable"] == 2
        assert emitter.accounts()["sink"].memory_bytes == 0

    run(work())


def test_a_full_spool_drops_the_newest_with_its_reason(tmp_path: Path) -> None:
    async def work() -> None:
        sink = Script()
        sink.is_up = False
        limits = EmitterLimits(memory_bytes=20_000, spill_after_s=0.01, max_backoff_s=0.02)
        spool = SpoolFolder(folder=tmp_path, max_bytes=20_000)
        emitter = Emitter.of(sink, spool=spool, limits=limits)
        await emitter.start()
        offered = 0
        async with asyncio.timeout(PATIENCE_S):
            while emitter.accounts()["sink"].dropped["spool_full"] < 20:
                emitter.offer(exchange(offered))
                offered += 1
                await asyncio.sleep(0.001)
                accounts = emitter.accounts()["sink"]
                assert accounts.unexplained == 0
                assert accounts.memory_bytes <= 20_000
                assert accounts.spool_bytes <= 20_000
        dropped = sum(emitter.accounts()["sink"].dropped.values())
        sink.is_up = True
        await until(lambda: settled(emitter.accounts()["sink"]))
        await emitter.flush(PATIENCE_S)

        assert len(sink.taken) == 2 * offered - dropped
        kept = sorted({int(name.split()[0]) for name in sink.taken})
        assert sink.taken == expected(kept)

    run(work())


def test_a_disk_that_refuses_is_counted_and_events_stay_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        sink = Script()
        sink.is_up = False
        limits = EmitterLimits(memory_bytes=20_000, spill_after_s=0.01, max_backoff_s=0.02)
        emitter = Emitter.of(sink, spool=SpoolFolder(folder=tmp_path), limits=limits)

        def full(*_: Any) -> int:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(os, "write", full)
            await emitter.start()
            for number in range(4):
                emitter.offer(exchange(number))
            await until(lambda: emitter.accounts()["sink"].spool_errors > 0)
            for number in range(4, 40):
                emitter.offer(exchange(number))
            accounts = emitter.accounts()["sink"]
            sink.is_up = True
            await until(lambda: settled(emitter.accounts()["sink"]))
        await emitter.flush(PATIENCE_S)

        assert accounts.dropped["spool_error"] > 0
        n_kept = (80 - accounts.dropped["spool_error"]) // 2
        assert sink.taken == expected(range(n_kept))

    run(work())


def test_damaged_events_in_the_spool_are_counted_and_the_rest_arrives(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    events = [event for number in range(9) for event in Capture().events(exchange(number))]
    spool.append([event.pack() for event in events])
    spool.append([b"something else"])
    spool.close()
    (segment,) = tmp_path.glob("*.spool1")
    text = bytearray(segment.read_bytes())
    text[text.index(b'"id":"4"')] ^= 1
    segment.write_bytes(bytes(text))

    async def work() -> None:
        sink = Script()
        emitter = Emitter.of(sink, spool=SpoolFolder(folder=tmp_path), limits=FAST)
        assert emitter.accounts()["sink"].seen == 19
        await emitter.start()
        await until(lambda: settled(emitter.accounts()["sink"]))
        await emitter.flush(PATIENCE_S)

        assert sink.taken == [name for name in expected(range(9)) if name != "4 request"]
        assert emitter.accounts()["sink"].dropped["spool_corrupt"] == 2

    run(work())


def test_a_flush_spools_what_cannot_be_sent_and_a_restart_sends_it(tmp_path: Path) -> None:
    async def first() -> None:
        sink = Script()
        sink.is_up = False
        emitter = Emitter.of(sink, spool=SpoolFolder(folder=tmp_path))
        await emitter.start()
        for number in range(700):
            emitter.offer(exchange(number))
        # It does not wait for the end of its grace, or the test would end before.
        await emitter.flush(60 * PATIENCE_S)
        accounts = emitter.accounts()["sink"]
        emitter.offer(exchange(-1))

        assert (accounts.pending, accounts.spool_events, accounts.unexplained) == (1400, 1400, 0)
        assert emitter.accounts()["sink"].dropped["shutdown"] == 2

    async def second() -> None:
        sink = Script()
        emitter = Emitter.of(sink, spool=SpoolFolder(folder=tmp_path), limits=FAST)
        assert emitter.accounts()["sink"].pending == 1400
        await emitter.start()
        await until(lambda: settled(emitter.accounts()["sink"]))
        await emitter.flush(PATIENCE_S)

        assert sink.taken == expected(range(700))

    run(first())
    run(second())


@pytest.fixture
def _patient_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a flush cut off the sink by its grace, and the disk never."""
    monkeypatch.setattr(Lane, "flush", partialmethod(Lane.flush, disk_s=60 * PATIENCE_S))


@pytest.mark.usefixtures("_patient_disk")
def test_a_flush_ends_with_the_grace_when_the_sink_hangs(tmp_path: Path) -> None:
    async def work() -> None:
        sink = Script()
        sink.is_hanging = True
        emitter = Emitter.of(sink, spool=SpoolFolder(folder=tmp_path))
        await emitter.start()
        for number in range(10):
            emitter.offer(exchange(number))
        await until(lambda: bool(sink.sizes))
        await emitter.flush(0.1)

        assert emitter.accounts()["sink"].spool_events == 20

    run(work())


@pytest.mark.usefixtures("_patient_disk")
def test_a_flush_without_a_spool_tries_to_the_end_and_counts_the_loss() -> None:
    async def work(grace_s: float, *steps: Delivery) -> Accounts:
        sink = Script(*steps)
        sink.is_up = bool(steps)
        emitter = Emitter.of(sink)
        await emitter.start()
        emitter.offer(exchange(0))
        await emitter.flush(grace_s)
        return emitter.accounts()["sink"]

    late = run(work(60 * PATIENCE_S, Delivery(n_taken=0, failure="refused")))
    never = run(work(0.1))

    assert (late.sent, late.pending) == (2, 0)
    assert (never.dropped["shutdown"], never.pending, never.unexplained) == (2, 0, 0)


def test_a_flush_of_an_emitter_that_never_started_keeps_its_events(tmp_path: Path) -> None:
    async def work() -> None:
        emitter = Emitter.of(Script(), spool=SpoolFolder(folder=tmp_path))
        emitter.offer(exchange(0))
        await emitter.flush(PATIENCE_S)

        assert emitter.accounts()["sink"].spool_events == 2

    run(work())


def test_a_bound_that_is_none_is_named() -> None:
    with pytest.raises(ValueError, match="linger_s"):
        EmitterLimits(linger_s=0)


def test_a_disk_that_cannot_be_read_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(tmp_path)
    spool.append([event.pack() for event in Capture().events(exchange(0))])

    def broken(_: Spool, **__: int) -> list[SpoolRecord]:
        raise OSError(5, "Input/output error")

    async def work() -> None:
        sink = Script()
        emitter = Emitter.of(sink, spool=SpoolFolder(folder=tmp_path), limits=FAST)
        with monkeypatch.context() as patch:
            patch.setattr(Spool, "peek", broken)
            await emitter.start()
            emitter.offer(exchange(1))
            await until(lambda: emitter.accounts()["sink"].spool_errors > 1)
        await until(lambda: settled(emitter.accounts()["sink"]))
        await emitter.flush(PATIENCE_S)

        assert sink.taken == expected([0, 1])

    spool.close()
    run(work())


def test_a_disk_that_hangs_does_not_outlast_the_grace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = SpoolFolder(folder=tmp_path)
    released = threading.Event()
    synced: list[bool] = []
    monkeypatch.setattr(os, "fdatasync", lambda _: synced.append(released.wait(3 * PATIENCE_S)))

    async def work() -> None:
        sink = Script()
        sink.is_up = False
        emitter = Emitter.of(sink, spool=spool, limits=FAST)
        await emitter.start()
        emitter.offer(exchange(0))
        await emitter.flush(0.3)
        n_synced = len(synced)
        released.set()

        assert n_synced == 0
        assert emitter.accounts()["sink"].unexplained == 0

    run(work())


@pytest.mark.parametrize("seed", range(6))
def test_under_random_faults_nothing_is_lost_and_the_account_is_exact(
    tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)

    async def work() -> None:
        sink = Script()
        emitter = Emitter.of(
            sink,
            spool=SpoolFolder(folder=tmp_path, segment_bytes=4000),
            limits=EmitterLimits(linger_s=0.001, spill_after_s=0.004, max_backoff_s=0.005),
            seed=seed,
        )
        await emitter.start()
        number = 0
        for _ in range(150):
            match chance.randrange(6):
                case 0 | 1:
                    for _ in range(chance.randrange(40)):
                        emitter.offer(exchange(number))
                        number += 1
                case 2:
                    sink.is_up = not sink.is_up
                case 3:
                    sink.steps.append(Delivery(n_taken=0, failure="timeout"))
                case 4:
                    sink.is_hanging = not sink.is_hanging
                    sink.resumed = asyncio.Event() if sink.is_hanging else sink.resumed
                    if not sink.is_hanging:
                        sink.resumed.set()
                case _:
                    await asyncio.sleep(0.01 * chance.random())
            assert emitter.accounts()["sink"].unexplained == 0
            # Inside a move, which the lock covers, events may be in two places.
            if not emitter._lanes[0].backlog._lock.locked():
                assert emitter.accounts()["sink"].pending == len(emitter._lanes[0].backlog)
        sink.is_up, sink.is_hanging = True, False
        sink.resumed.set()
        await until(lambda: settled(emitter.accounts()["sink"]))
        await emitter.flush(PATIENCE_S)

        assert sink.taken == expected(range(number))
        assert emitter.accounts()["sink"].sent == 2 * number

    run(work())


def test_a_killed_proxy_loses_nothing_that_was_spooled(tmp_path: Path) -> None:
    program = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_emitter import FAST, Script, exchange
from sidelight.logger._emitter import Emitter
from sidelight.logger._outlet import SpoolFolder

async def work():
    sink = Script()
    sink.is_up = False
    emitter = Emitter.of(sink, spool=SpoolFolder(folder=Path(sys.argv[1])), limits=FAST)
    await emitter.start()
    number = 0
    while True:
        emitter.offer(exchange(number))
        number += 1
        await asyncio.sleep(0.001)
        print(emitter.accounts()["sink"].spool_events, flush=True)

asyncio.run(work())
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path), str(Path(__file__).parent)],
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    n_spooled = 0
    while n_spooled < 100:
        n_spooled = int(process.stdout.readline())
    process.kill()
    n_spooled = max([n_spooled, *(int(line) for line in process.stdout.read().split())])
    process.wait()
    process.stdout.close()

    async def work() -> None:
        sink = Script()
        emitter = Emitter.of(sink, spool=SpoolFolder(folder=tmp_path), limits=FAST)
        await emitter.start()
        await until(lambda: settled(emitter.accounts()["sink"]))
        await emitter.flush(PATIENCE_S)

        assert len(sink.taken) >= n_spooled
        assert sink.taken == expected(range(len(sink.taken)))[: len(sink.taken)]

    run(work())


class Receiver:
    """A collector on a socket that goes wrong in one way as long as it is faulty."""

    answers = {  # noqa: RUF012 - read only
        "500": b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n",
        "429": b"HTTP/1.1 429 No\r\nContent-Length: 0\r\nRetry-After: 9\r\n\r\n",
        "garbage": b"\x00\x01 what\r\n\r\n",
        "": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    }

    def __init__(self, fault: str) -> None:
        self.fault = fault
        self.taken: list[str] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                await self._answer(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.fault == "reset":
            writer.transport.abort()
            raise ConnectionResetError
        if self.fault == "slow":
            await reader.readexactly(1)
            await asyncio.sleep(0.3)
            raise ConnectionResetError
        lines = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
        fields = dict(line.lower().split(b": ", 1) for line in lines[1:] if line)
        body = await reader.readexactly(int(fields[b"content-length"]))
        if not self.fault:
            one = {
                name: fields.get(b"ce-" + name.encode(), b"").decode() for name in ("id", "type")
            }
            is_batch = b"batch" in fields.get(b"content-type", b"")
            self.taken += names(json.loads(body) if is_batch else [one])
        writer.write(self.answers[self.fault])
        await writer.drain()


@pytest.mark.parametrize("mode", ["batch", "binary"])
@pytest.mark.parametrize("fault", ["dead", "slow", "reset", "500", "429", "garbage"])
def test_after_any_fault_of_a_real_sink_everything_arrives_in_order(
    tmp_path: Path, fault: str, mode: Any
) -> None:
    async def work() -> None:
        receiver = Receiver(fault)
        server = await asyncio.start_server(receiver, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        if fault == "dead":
            server.close()
            await server.wait_closed()
        timeout_s = 0.1 if fault == "slow" else PATIENCE_S
        sink = HttpSink(f"http://127.0.0.1:{port}/", mode=mode, timeout_s=timeout_s)
        emitter = Emitter.of(sink, spool=SpoolFolder(folder=tmp_path), limits=FAST)
        await emitter.start()
        try:
            for number in range(150):
                emitter.offer(exchange(number))
            await until(lambda: sum(emitter.accounts()["sink"].sink_errors.values()) > 1)
            await until(lambda: emitter.accounts()["sink"].spool_events == 300)
            # What is taken must not be given up for its answer: it would come twice.
            sink._timeout_s = PATIENCE_S
            n_errors = sum(emitter.accounts()["sink"].sink_errors.values())
            await until(lambda: sum(emitter.accounts()["sink"].sink_errors.values()) > n_errors)
            receiver.fault = ""
            if fault == "dead":
                server = await asyncio.start_server(receiver, "127.0.0.1", port)
            for number in range(150, 200):
                emitter.offer(exchange(number))
            await until(lambda: settled(emitter.accounts()["sink"]))
            await emitter.flush(PATIENCE_S)
        finally:
            # uvloop waits for ever for a server that is open when its loop is closed.
            server.close()

        assert receiver.taken == expected(range(200))
        assert emitter.accounts()["sink"].sent == 400

    run(work())
