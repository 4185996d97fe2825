"""Whatever happens in whatever order, every outlet's account adds up and its order holds."""

import asyncio
import json
from collections.abc import Coroutine, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import uvloop
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from sidelight.logger._emitter import Emitter
from sidelight.logger._emitter_event import CapturedEvent
from sidelight.logger._exchange import Exchange
from sidelight.logger._outlet import EmitterLimits, Outlet, SpoolFolder
from sidelight.logger._sink import Delivery

LIMITS = EmitterLimits(
    memory_bytes=60_000,
    batch_events=16,
    linger_s=0.0005,
    spill_after_s=0.002,
    max_backoff_s=0.003,
    open_after_failures=2,
)
SPOOLING = ("spooling", "other")
NAMES = (*SPOOLING, "oldest", "newest")
PATIENCE_S = 60


class Moody:
    """A sink whose answers come from the test; what it took is kept by name."""

    def __init__(self, taken: list[int]) -> None:
        self.taken = taken
        self.answer: Delivery | None = None  # None: it takes everything
        self.resumed = asyncio.Event()
        self.resumed.set()

    async def send(self, events: Sequence[CapturedEvent]) -> Delivery:
        await self.resumed.wait()
        answer = self.answer or Delivery(n_taken=len(events))
        n_taken = min(answer.n_taken, len(events))
        self.taken += [
            2 * int(member["id"]) + member["type"].endswith("response")
            for member in (json.loads(event.member()) for event in events[:n_taken])
        ]
        n_refused = min(answer.n_refused, len(events) - n_taken)
        return Delivery(n_taken=n_taken, n_refused=n_refused, failure="scripted")

    async def close(self) -> None:
        pass


def exchange(number: int) -> Exchange:
    return Exchange(
        method=b"POST",
        target=b"/v2/models/m/infer",
        request_head=b"POST / HTTP/1.1\r\nX-Request-Id: %d\r\n\r\n" % number,
        request_body=b"{}",
        response_head=b"HTTP/1.1 200 OK\r\n\r\n",
        response_body=b"[1]",
        status=200,
        started_ns=10**18,
        finished_ns=10**18,
        latency_ms=1.0,
    )


class Outlets(RuleBasedStateMachine):
    """Offers, answers, time, replacements and restarts in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        self.runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self.number = 0
        self.taken: dict[str, list[int]] = {name: [] for name in NAMES}
        self.sinks: dict[str, Moody] = {}
        self.versions = dict.fromkeys(NAMES, 0)
        self.n_dropped = dict.fromkeys(NAMES, 0)
        self.emitter: Emitter

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        self.runner.run(asyncio.wait_for(work, PATIENCE_S))

    def outlets(self, names: Sequence[str]) -> list[Outlet]:
        outlets = []
        for name in names:
            is_spooling = name in SPOOLING
            folder = SpoolFolder(folder=Path(self.folder.name) / name, segment_bytes=3000)
            before = self.sinks.get(name)
            sink = self.sinks[name] = Moody(self.taken[name])
            if before is not None:
                sink.answer = before.answer
            outlets.append(
                Outlet(
                    name=name,
                    sink=sink,
                    overflow="spool" if is_spooling else f"drop_{name}",  # type: ignore[arg-type]
                    spool=folder if is_spooling else None,
                    limits=LIMITS,
                    settings=self.versions[name],
                )
            )
        return outlets

    @initialize()
    def begin(self) -> None:
        async def work() -> None:
            self.emitter = Emitter(self.outlets(NAMES), seed=1)
            await self.emitter.start()

        self.run(work())

    @rule(n_exchanges=st.integers(1, 40))
    def offer(self, n_exchanges: int) -> None:
        async def work() -> None:
            for _ in range(n_exchanges):
                self.emitter.offer(exchange(self.number))
                self.number += 1
            await asyncio.sleep(0)

        self.run(work())

    @rule(
        name=st.sampled_from(NAMES),
        answer=st.one_of(
            st.none(),
            st.builds(Delivery, n_taken=st.integers(0, 5)),
            st.builds(Delivery, n_taken=st.integers(0, 2), n_refused=st.integers(1, 16)),
        ),
    )
    def answer(self, name: str, answer: Delivery | None) -> None:
        self.sinks[name].answer = answer

    @rule(name=st.sampled_from(NAMES), hangs=st.booleans())
    def hang(self, name: str, *, hangs: bool) -> None:
        async def work() -> None:
            sink = self.sinks[name]
            if hangs:
                sink.resumed.clear()
            else:
                sink.resumed.set()

        self.run(work())

    @rule(seconds=st.sampled_from([0.0, 0.001, 0.004]))
    def wait(self, seconds: float) -> None:
        self.run(asyncio.sleep(seconds))

    @rule(changed=st.sets(st.sampled_from(NAMES)))
    def replace(self, changed: set[str]) -> None:
        """Give some a new sink; the others go on with the one they have."""

        async def work() -> None:
            before = dict(self.sinks)
            for name in changed:
                self.versions[name] += 1
            await self.emitter.replace_outlets(self.outlets(NAMES), grace_s=0.02)
            self.sinks |= {name: before[name] for name in NAMES if name not in changed}

        self.run(work())

    @rule()
    def restart(self) -> None:
        async def work() -> None:
            for name, sink in self.sinks.items():
                sink.resumed.set()
                if name not in SPOOLING:
                    sink.answer = None
            await self.emitter.flush(PATIENCE_S)
            self.close_accounts()
            self.emitter = Emitter(self.outlets(NAMES), seed=1)
            await self.emitter.start()

        self.run(work())

    @invariant()
    def every_account_adds_up(self) -> None:
        for lane in self.emitter._lanes:
            account = self.emitter.accounts()[lane.outlet.name]
            assert account.unexplained == 0
            # Inside a move, which the lock covers, events may be in two places.
            if not lane.backlog._lock.locked():
                assert account.pending == len(lane.backlog)
            assert account.memory_bytes <= LIMITS.memory_bytes

    @invariant()
    def nothing_arrives_out_of_order_or_twice(self) -> None:
        for taken in self.taken.values():
            assert taken == sorted(set(taken))

    def teardown(self) -> None:
        async def work() -> None:
            for sink in self.sinks.values():
                sink.answer = None
                sink.resumed.set()
            while any(account.pending for account in self.emitter.accounts().values()):  # noqa: ASYNC110 - counters have no event to wait for
                await asyncio.sleep(0.001)
            await self.emitter.flush(PATIENCE_S)
            self.close_accounts()

        try:
            if hasattr(self, "emitter"):
                self.run(work())
        finally:
            self.runner.close()
            self.folder.cleanup()
        for name in NAMES:
            assert len(self.taken[name]) + self.n_dropped[name] == 2 * self.number

    def close_accounts(self) -> None:
        for name, account in self.emitter.accounts().items():
            assert account.unexplained == 0
            assert account.pending == account.spool_events
            assert account.dropped["spool_corrupt"] == account.dropped["unencodable"] == 0
            self.n_dropped[name] += sum(account.dropped.values())


TestOutlets = Outlets.TestCase
TestOutlets.settings = settings(
    max_examples=25,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=True,
)
