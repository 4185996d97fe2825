import asyncio
import json
import threading
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import uvloop

from sidelight.logger import _outlet_lane
from sidelight.logger._accounting import Accounts
from sidelight.logger._emitter import Emitter
from sidelight.logger._emitter_capture import Capture
from sidelight.logger._emitter_event import CapturedEvent
from sidelight.logger._exchange import Exchange
from sidelight.logger._outlet import EmitterLimits, Outlet, Overflow, SpoolFolder
from sidelight.logger._sampling import Sampling
from sidelight.logger._selection import Selection
from sidelight.logger._sink import Delivery
from sidelight.logger._spool import Spool
from sidelight.logger._spool_segment import SpoolRecord
from sidelight.logger.errors import SpoolError

FAST = EmitterLimits(linger_s=0.002, spill_after_s=0.02, max_backoff_s=0.05)
PATIENCE_S = 60


class Scripted:
    """A sink that is up, down or hanging, and keeps what it took."""

    def __init__(self, *, is_up: bool = True, is_hanging: bool = False) -> None:
        self.is_up = is_up
        self.is_closed = False
        self.taken: list[tuple[str, str]] = []
        self.rates: list[str] = []
        self.sizes: list[int] = []
        self.asked = asyncio.Event()
        self.resumed = asyncio.Event()
        if not is_hanging:
            self.resumed.set()

    async def send(self, events: Sequence[CapturedEvent]) -> Delivery:
        self.sizes.append(len(events))
        self.asked.set()
        await self.resumed.wait()
        if not self.is_up:
            return Delivery(n_taken=0, failure="refused")
        for event in events:
            member = json.loads(event.member())
            self.taken.append((member["id"], member["type"].rpartition(".")[2]))
            self.rates.append(member["samplingrate"])
        return Delivery(n_taken=len(events))

    async def close(self) -> None:
        self.is_closed = True


def exchange(number: int, *, status: int = 200, body: bytes = b"{}") -> Exchange:
    return Exchange(
        method=b"POST",
        target=b"/v2/models/m/infer",
        request_head=b"POST / HTTP/1.1\r\nX-Request-Id: %d\r\n\r\n" % number,
        request_body=body,
        response_head=b"HTTP/1.1 200 OK\r\n\r\n",
        response_body=b"[1]",
        status=status,
        started_ns=10**18,
        finished_ns=10**18,
        latency_ms=1.0,
    )


def expected(numbers: Sequence[int]) -> list[tuple[str, str]]:
    return [(str(number), kind) for number in numbers for kind in ("request", "response")]


def outlet(name: str, sink: Scripted, folder: Path | None = None, **changed: Any) -> Outlet:
    values: dict[str, Any] = {"limits": FAST, "overflow": "drop_newest"}
    if folder is not None:
        values |= {"overflow": "spool", "spool": SpoolFolder(folder=folder)}
    return Outlet(name=name, sink=sink, **(values | changed))


def checked(emitter: Emitter) -> dict[str, Accounts]:
    accounts = emitter.accounts()
    for account in accounts.values():
        assert account.unexplained == 0
    return accounts


def lose_segments(folder: Path) -> None:
    for path in folder.glob("*.spool1"):
        path.unlink()


async def until(claim: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not claim():  # noqa: ASYNC110 - counters have no event to wait for
            await asyncio.sleep(0.001)


def run(work: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.wait_for(work, PATIENCE_S * 2))


def test_a_dead_outlet_does_not_hold_up_the_others(tmp_path: Path) -> None:
    async def work() -> None:
        up, dead, hanging = Scripted(), Scripted(is_up=False), Scripted(is_hanging=True)
        emitter = Emitter(
            [
                outlet("dead", dead, tmp_path / "dead"),
                outlet("hanging", hanging, tmp_path / "hanging"),
                outlet("up", up),
            ]
        )
        await emitter.start()
        for number in range(500):
            emitter.offer(exchange(number))
        await until(lambda: checked(emitter)["up"].sent == 1000)
        await until(lambda: checked(emitter)["dead"].spool_events == 1000)
        await until(lambda: checked(emitter)["hanging"].spool_events == 1000)

        assert up.taken == expected(range(500))
        dead.is_up = True
        hanging.resumed.set()
        await until(lambda: not any(each.pending for each in checked(emitter).values()))
        await emitter.flush(PATIENCE_S)

        assert dead.taken == hanging.taken == up.taken
        assert all(account.seen == 1000 for account in checked(emitter).values())
        assert up.is_closed

    run(work())


def test_an_exchange_is_encoded_once_for_all_outlets(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        encoded: list[bytes] = []
        events = Capture.events

        def counted(self: Capture, each: Exchange, rate: float = 1.0) -> Any:
            encoded.append(each.request_head)
            return events(self, each, rate)

        monkeypatch.setattr(Capture, "events", counted)
        sinks = [Scripted() for _ in range(3)]
        emitter = Emitter([outlet(str(n), sink) for n, sink in enumerate(sinks)])
        for number in range(20):
            emitter.offer(exchange(number))
        assert encoded == []
        await emitter.start()
        await until(lambda: not any(each.pending for each in checked(emitter).values()))
        await emitter.flush(PATIENCE_S)

        assert len(encoded) == 20
        assert [sink.taken for sink in sinks] == [expected(range(20))] * 3
        assert all(account.memory_bytes == 0 for account in checked(emitter).values())

    run(work())


def test_an_exchange_that_cannot_be_encoded_is_counted_by_every_outlet() -> None:
    async def work() -> None:
        sinks = [Scripted(), Scripted()]
        emitter = Emitter([outlet(str(n), sink) for n, sink in enumerate(sinks)])
        odd = exchange(1)
        odd.started_ns = 10**40
        for each in (exchange(0), odd, exchange(2)):
            emitter.offer(each)
        await emitter.start()
        await until(lambda: not any(each.pending for each in checked(emitter).values()))
        await emitter.flush(PATIENCE_S)

        assert [sink.taken for sink in sinks] == [expected([0, 2])] * 2
        for account in checked(emitter).values():
            assert account.dropped["unencodable"] == 2
            assert account.memory_bytes == 0

    run(work())


def test_what_is_sampled_out_is_counted_and_the_rate_travels_with_the_rest() -> None:
    async def work() -> None:
        sinks = [Scripted(), Scripted()]
        emitter = Emitter(
            [outlet(str(n), sink) for n, sink in enumerate(sinks)],
            sampling=Sampling(rate=0.25, keep_errors=True),
        )
        await emitter.start()
        for number in range(400):
            emitter.offer(exchange(number, status=500 if number % 100 == 0 else 200))
        await until(lambda: not any(each.pending for each in checked(emitter).values()))
        await emitter.flush(PATIENCE_S)

        first, second = checked(emitter).values()
        assert first == second
        assert first.sent + first.sampled_out == first.seen == 800
        assert 100 < first.sent < 320
        assert sinks[0].taken == sinks[1].taken
        assert {"0", "100", "200", "300"} <= {id_ for id_, _ in sinks[0].taken}
        assert sinks[0].rates.count("1") == 8
        assert set(sinks[0].rates) == {"0.25", "1"}

    run(work())


def test_settings_of_capture_are_swapped_while_it_runs() -> None:
    async def work() -> None:
        sink = Scripted()
        emitter = Emitter([outlet("sink", sink)], selection=Selection(paths=("/v1/*",)))
        await emitter.start()
        head = b"POST / HTTP/1.1\r\n\r\n"
        assert not emitter.wants(b"POST", b"/v2/models/m/infer", head)
        emitter.reconfigure(capture=None, sampling=Sampling(rate=0.0), selection=None)

        assert emitter.wants(b"POST", b"/v2/models/m/infer", head)
        emitter.offer(exchange(0))
        emitter.reconfigure(capture=Capture(deployment="a/b"), sampling=None, selection=None)
        emitter.offer(exchange(1))
        await until(lambda: checked(emitter)["sink"].pending == 0)
        await emitter.flush(PATIENCE_S)

        assert sink.taken == expected([1])
        assert checked(emitter)["sink"].sampled_out == 2

    run(work())


@pytest.mark.parametrize("overflow", ["drop_newest", "drop_oldest"])
def test_a_full_memory_gives_up_what_the_policy_says(overflow: Overflow) -> None:
    async def work() -> None:
        sink = Scripted(is_hanging=True)
        limits = EmitterLimits(memory_bytes=40_000, linger_s=0.001, batch_events=6)
        emitter = Emitter([outlet("sink", sink, overflow=overflow, limits=limits)])
        await emitter.start()
        for number in range(3):
            emitter.offer(exchange(number))
        await sink.asked.wait()
        for number in range(3, 200):
            emitter.offer(exchange(number))
            assert checked(emitter)["sink"].memory_bytes <= 40_000
        n_dropped = checked(emitter)["sink"].dropped["memory_full"]
        sink.resumed.set()
        await until(lambda: checked(emitter)["sink"].pending == 0)
        await emitter.flush(PATIENCE_S)

        assert n_dropped > 300
        assert len(sink.taken) == 400 - n_dropped
        n_rest = 200 - n_dropped // 2 - 3
        # What is on its way is given up by no policy.
        first = [0, 1, 2]
        if overflow == "drop_oldest":
            assert sink.taken == expected([*first, *range(200 - n_rest, 200)])
        else:
            assert sink.taken == expected(range(3 + n_rest))

    run(work())


def test_what_was_on_its_way_in_vain_may_be_dropped_as_the_oldest() -> None:
    async def work() -> None:
        sink = Scripted(is_up=False)
        limits = EmitterLimits(memory_bytes=40_000, linger_s=0.001, max_backoff_s=0.01)
        emitter = Emitter([outlet("sink", sink, overflow="drop_oldest", limits=limits)])
        await emitter.start()
        for number in range(300):
            emitter.offer(exchange(number))
            if number % 10 == 0:
                await asyncio.sleep(0.001)
        await until(lambda: checked(emitter)["sink"].circuit == "open")
        sink.is_up = True
        await until(lambda: checked(emitter)["sink"].pending == 0)
        await emitter.flush(PATIENCE_S)

        numbers = sorted({int(name) for name, _ in sink.taken})
        assert 5 < len(numbers) < 50
        # The first were on their way, again and again; what was at the end still is.
        assert numbers[0] > 100
        assert numbers[-5:] == [295, 296, 297, 298, 299]
        assert [int(name) for name, _ in sink.taken] == sorted(int(name) for name, _ in sink.taken)

    run(work())


def test_an_exchange_larger_than_the_memory_is_dropped_and_takes_nothing_with_it() -> None:
    async def work() -> None:
        sink = Scripted()
        limits = EmitterLimits(memory_bytes=40_000, linger_s=0.001)
        emitter = Emitter([outlet("sink", sink, overflow="drop_oldest", limits=limits)])
        for number in range(5):
            emitter.offer(exchange(number, body=b"x" * 50_000 if number == 3 else b"{}"))
        await emitter.start()
        await until(lambda: checked(emitter)["sink"].pending == 0)
        await emitter.flush(PATIENCE_S)

        assert sink.taken == expected([0, 1, 2, 4])
        assert checked(emitter)["sink"].dropped["memory_full"] == 2

    run(work())


def test_a_circuit_opens_and_is_tried_with_a_small_batch(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "sidelight")

    async def work() -> None:
        sink = Scripted(is_up=False)
        limits = replace(FAST, batch_events=256)
        emitter = Emitter([outlet("sink", sink, tmp_path, limits=limits)])
        await emitter.start()
        for number in range(200):
            emitter.offer(exchange(number))
        await until(lambda: checked(emitter)["sink"].circuit == "open")
        n_asked = len(sink.sizes)
        await until(lambda: len(sink.sizes) > n_asked + 1)
        sink.is_up = True
        await until(lambda: checked(emitter)["sink"].pending == 0)
        account = checked(emitter)["sink"]
        text = emitter.prometheus(namespace="a", deployment="b").decode()
        await emitter.flush(PATIENCE_S)

        # Five in a row open it.
        assert sink.sizes[:5] == [256] * 5
        n_probes = sink.sizes.count(8)
        assert n_probes > 0
        assert sink.sizes[5 : 5 + n_probes] == [8] * n_probes
        assert sink.sizes[5 + n_probes] == 256
        assert (account.circuit, account.circuit_openings) == ("closed", 1)
        labels = 'namespace="a",deployment="b",sink="sink"'
        assert f"sidelight_capture_sink_openings_total{{{labels}}} 1\n" in text
        assert f"sidelight_capture_sink_open{{{labels}}} 0\n" in text

    run(work())
    said = [record.getMessage().partition(";")[0] for record in caplog.records]
    assert said == ["a sink takes no events", "a sink takes events again"]


def test_the_age_of_what_waits_is_never_negative_when_the_clock_was_set_back(
    tmp_path: Path,
) -> None:
    async def work() -> None:
        sink = Scripted(is_up=False)
        emitter = Emitter([outlet("sink", sink, tmp_path)])
        late = exchange(0)
        late.started_ns = late.finished_ns = 4 * 10**18
        emitter.offer(late)
        assert checked(emitter)["sink"].oldest_s == 0
        await emitter.start()
        await until(lambda: checked(emitter)["sink"].spool_events == 2)
        assert checked(emitter)["sink"].oldest_s == 0
        await emitter.flush(PATIENCE_S)

        # What an earlier process left is as old as its events say.
        spool = Spool(tmp_path / "other")
        spool.append([event.pack() for event in Capture().events(exchange(1))])
        spool.close()
        again = Emitter([outlet("sink", sink, tmp_path / "other")])
        await again.start()
        await until(lambda: checked(again)["sink"].oldest_s > 1e8)
        await again.flush(PATIENCE_S)

    run(work())


def test_outlets_are_replaced_without_missing_anything(tmp_path: Path) -> None:
    async def work() -> None:
        kept, removed, added = Scripted(), Scripted(is_hanging=True), Scripted()
        unused = Scripted()
        emitter = Emitter(
            [
                outlet("kept", kept, tmp_path / "kept", settings="k"),
                outlet("removed", removed, tmp_path / "removed"),
            ]
        )
        await emitter.start()
        for number in range(100):
            emitter.offer(exchange(number))
        await removed.asked.wait()
        replacing = asyncio.create_task(
            emitter.replace_outlets(
                [
                    outlet("kept", unused, tmp_path / "kept", settings="k"),
                    outlet("added", added, tmp_path / "added"),
                ]
            )
        )
        await asyncio.sleep(0)
        for number in range(100, 150):
            emitter.offer(exchange(number))
            checked(emitter)
        removed.resumed.set()
        await replacing
        for number in range(150, 200):
            emitter.offer(exchange(number))
        await until(lambda: not any(each.pending for each in checked(emitter).values()))
        await emitter.flush(PATIENCE_S)

        assert kept.taken == expected(range(200))
        assert removed.taken == expected(range(100))
        assert added.taken == expected(range(100, 200))
        assert removed.is_closed
        assert unused.is_closed
        assert unused.taken == []
        assert {name: account.seen for name, account in checked(emitter).items()} == {
            "kept": 400,
            "removed": 200,
            "added": 200,
        }

    run(work())


def test_a_new_address_with_the_old_folder_carries_the_account_and_the_order_on(
    tmp_path: Path,
) -> None:
    async def work() -> None:
        dead, new = Scripted(is_up=False), Scripted()
        emitter = Emitter([outlet("sink", dead, tmp_path)])
        await emitter.start()
        for number in range(50):
            emitter.offer(exchange(number))
        replacing = asyncio.create_task(emitter.replace_outlets([outlet("sink", new, tmp_path)]))
        await asyncio.sleep(0)
        for number in range(50, 80):
            emitter.offer(exchange(number))
            checked(emitter)
        await replacing
        checked(emitter)
        await until(lambda: checked(emitter)["sink"].pending == 0)
        await emitter.flush(PATIENCE_S)

        account = checked(emitter)["sink"]
        assert new.taken == expected(range(80))
        assert (account.seen, account.sent, sum(account.dropped.values())) == (160, 160, 0)

    run(work())


@pytest.mark.parametrize("is_damaged", [False, True])
def test_what_a_removed_outlet_left_is_pending_until_its_folder_is_used(
    tmp_path: Path, *, is_damaged: bool
) -> None:
    async def work() -> None:
        up, dead, heir = Scripted(), Scripted(is_up=False), Scripted()
        emitter = Emitter([outlet("up", up), outlet("dead", dead, tmp_path)])
        await emitter.start()
        for number in range(50):
            emitter.offer(exchange(number))
        same = emitter._lanes[0].outlet
        await emitter.replace_outlets([same])
        left = checked(emitter)["dead"]
        if is_damaged:
            lose_segments(tmp_path)
        await emitter.replace_outlets([same, outlet("heir", heir, tmp_path)])
        await until(lambda: checked(emitter)["heir"].pending == 0)
        for number in range(50, 60):
            emitter.offer(exchange(number))
        await emitter.flush(PATIENCE_S)

        assert (left.pending, left.spool_events, left.sent) == (100, 100, 0)
        accounts = checked(emitter)
        assert (accounts["dead"].pending, accounts["dead"].dropped["outlet_removed"]) == (0, 100)
        n_found = 0 if is_damaged else 50
        assert accounts["heir"].seen == 2 * n_found + 20
        assert heir.taken == expected([*range(n_found), *range(50, 60)])
        assert accounts["up"].sent == 120

    run(work())


def test_a_removed_outlet_that_comes_back_sends_what_it_left(tmp_path: Path) -> None:
    async def work() -> None:
        up, dead = Scripted(), Scripted(is_up=False)
        emitter = Emitter([outlet("up", up), outlet("dead", dead, tmp_path)])
        await emitter.start()
        for number in range(50):
            emitter.offer(exchange(number))
        same = emitter._lanes[0].outlet
        await emitter.replace_outlets([same])
        back = Scripted()
        await emitter.replace_outlets([same, outlet("dead", back, tmp_path)])
        await until(lambda: checked(emitter)["dead"].pending == 0)
        await emitter.flush(PATIENCE_S)

        account = checked(emitter)["dead"]
        assert back.taken == expected(range(50))
        assert (account.seen, account.sent) == (100, 100)

    run(work())


def test_outlets_that_cannot_be_are_refused_and_change_nothing(tmp_path: Path) -> None:
    async def work() -> None:
        sink = Scripted()
        emitter = Emitter([outlet("sink", sink)])
        await emitter.start()
        with pytest.raises(ValueError, match="at least one"):
            await emitter.replace_outlets([])
        emitter.offer(exchange(0))

        other = Scripted()
        held = Spool(tmp_path)
        with pytest.raises(SpoolError, match="another process holds"):
            await emitter.replace_outlets([outlet("other", other, tmp_path)])
        held.close()
        # Without its disk it delivers nevertheless.
        emitter.offer(exchange(1))
        await until(lambda: checked(emitter)["other"].pending == 0)
        await emitter.flush(PATIENCE_S)

        assert sink.taken == expected([0])
        assert other.taken == expected([1])
        assert checked(emitter)["other"].spool_errors == 1

    run(work())


def test_a_flush_while_outlets_are_replaced_loses_nothing(tmp_path: Path) -> None:
    async def work() -> None:
        hanging, new = Scripted(is_hanging=True), Scripted()
        emitter = Emitter([outlet("sink", hanging, tmp_path)])
        await emitter.start()
        for number in range(20):
            emitter.offer(exchange(number))
        await hanging.asked.wait()
        replacing = asyncio.create_task(
            emitter.replace_outlets([outlet("sink", new, tmp_path)], grace_s=0.5)
        )
        await asyncio.sleep(0)
        for number in range(20, 30):
            emitter.offer(exchange(number))
        await emitter.flush(PATIENCE_S)
        await replacing
        await emitter.replace_outlets([outlet("late", Scripted())])

        account = checked(emitter)["sink"]
        assert (account.seen, account.sent, account.pending) == (60, 60, 0)
        assert new.taken == expected(range(30))
        assert "late" not in emitter.accounts()

    run(work())


@pytest.mark.parametrize("how", ["raises", "hangs"])
def test_a_sink_that_cannot_be_closed_costs_no_event_and_no_other_outlet(
    tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_outlet_lane, "_CLOSING_S", 0.01)

    class Stuck(Scripted):
        async def close(self) -> None:
            if how == "raises":
                raise RuntimeError("stuck")
            await asyncio.Event().wait()

    async def work() -> None:
        up = Scripted()
        stuck = Stuck(is_up=False)
        emitter = Emitter([outlet("stuck", stuck, tmp_path), outlet("up", up)])
        await emitter.start()
        for number in range(50):
            emitter.offer(exchange(number))
        await emitter.flush(PATIENCE_S)

        assert checked(emitter)["stuck"].spool_events == 100
        assert up.taken == expected(range(50))
        assert Spool(tmp_path).recovered == 100

    run(work())
    assert "a sink could not be closed" in {record.getMessage() for record in caplog.records}


def test_nothing_is_sent_any_more_when_the_disk_answers_after_the_grace_for_sending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(tmp_path)
    spool.append([event.pack() for event in Capture().events(exchange(0))])
    spool.close()
    asked, released = threading.Event(), threading.Event()
    peek = Spool.peek

    def slow(self: Spool, **bounds: int) -> list[SpoolRecord]:
        asked.set()
        released.wait(PATIENCE_S)
        return peek(self, **bounds)

    monkeypatch.setattr(Spool, "peek", slow)

    async def work() -> None:
        hanging = Scripted(is_hanging=True)
        emitter = Emitter([outlet("sink", hanging, tmp_path)])
        await emitter.start()
        await until(asked.is_set)
        emitter.offer(exchange(1))
        lane = emitter._lanes[0]
        flushing = asyncio.create_task(lane.flush(0.01, disk_s=PATIENCE_S))
        await until(lane._stop.is_set)
        released.set()
        await flushing

        # A delivery that nobody cancels would have kept the rest from the disk.
        assert hanging.sizes == []
        assert checked(emitter)["sink"].spool_events == 4

    run(work())
