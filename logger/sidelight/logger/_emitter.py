"""The tap's other end: captured exchanges become events and reach the sink, or the disk."""

import asyncio
import logging
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from sidelight.logger._accounting import Accounting
from sidelight.logger._emitter_backlog import Backlog
from sidelight.logger._emitter_capture import Capture
from sidelight.logger._emitter_event import CapturedEvent
from sidelight.logger._emitter_route import is_inference
from sidelight.logger._exchange import Exchange
from sidelight.logger._sink import Delivery, Sink
from sidelight.logger._spool import Spool

log = logging.getLogger(__name__)

_FIRST_BACKOFF_S = 0.1
_MAX_DOUBLINGS = 16
_FLUSH_RETRY_S = 0.5
# So many rejected in a row, and it is not they that are bad: what comes then waits in between.
_MAX_REJECTED = 32
_REJECTED_PAUSE_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class EmitterLimits:
    """Bounds of an emitter.

    Parameters
    ----------
    memory_bytes : int, default 64 MiB
        Of events that wait in memory.
    batch_events : int, default 256
    batch_bytes : int, default 1 MiB
        A batch is sent when it has reached either; a larger event goes alone.
    linger_s : float, default 0.05
        How long an incomplete batch waits for company, seconds.
    spill_after_s : float, default 0.4
        Events in memory older than that, at most twice that, go to the spool, seconds.
    max_backoff_s : float, default 10.0
        Longest pause before the sink is tried again, seconds; it bounds ``Retry-After`` too.

    Raises
    ------
    ValueError
        When a bound is not positive.

    """

    memory_bytes: int = 64 << 20
    batch_events: int = 256
    batch_bytes: int = 1 << 20
    linger_s: float = 0.05
    spill_after_s: float = 0.4
    max_backoff_s: float = 10.0

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}: expected a positive number, got {getattr(self, name)}")


class Emitter:
    """Deliver captured exchanges in order, at least once, without ever holding up the traffic.

    Make and use it on one event loop. ``start`` begins to deliver, ``flush`` ends it.

    Parameters
    ----------
    sink : Sink
        Where events go.
    capture : Capture, optional
        How exchanges become events.
    spool : Spool, optional
        The disk for what cannot be sent; owned and closed by the emitter.
    accounting : Accounting, optional
        Counts what becomes of every event.
    limits : EmitterLimits, optional
        Bounds.
    seed : int, optional
        Of the jitter, for tests.

    """

    def __init__(
        self,
        sink: Sink,
        *,
        capture: Capture | None = None,
        spool: Spool | None = None,
        accounting: Accounting | None = None,
        limits: EmitterLimits | None = None,
        seed: int | None = None,
    ) -> None:
        self.accounting = accounting or Accounting()
        self._limits = limits or EmitterLimits()
        self._sink = sink
        self._backlog = Backlog(
            capture or Capture(),
            self.accounting,
            spool=spool,
            max_memory_bytes=self._limits.memory_bytes,
        )
        self._arrived = asyncio.Event()
        self._full = asyncio.Event()
        self._hurry = asyncio.Event()
        self._stop = asyncio.Event()
        self._is_closed = False
        self._batch_events = self._limits.batch_events
        self._n_failures = 0
        self._n_rejected = 0
        self._random = random.Random(seed)  # noqa: S311 - jitter, not a secret
        self._sending: asyncio.Task[Delivery] | None = None
        self._sender: asyncio.Task[None] | None = None
        self._spiller: asyncio.Task[None] | None = None

    def wants(self, method: bytes, target: bytes, head: bytes) -> bool:
        """Whether the exchange that begins with this head is captured; see ``Tap``."""
        return is_inference(method, target, head)

    def offer(self, exchange: Exchange) -> None:
        """Take one exchange; see ``Tap``. Encoding waits until the events are needed."""
        if self._is_closed:
            self.accounting.see(2)
            self.accounting.drop(2, "shutdown")
            return
        self.accounting.observe_added(exchange.added_s)
        if self._backlog.put(exchange):
            if not self._arrived.is_set():
                self._arrived.set()
            elif self._backlog.n_memory >= self._limits.batch_events:
                self._full.set()

    async def start(self) -> None:
        """Begin to deliver, with what the spool holds from before."""
        if len(self._backlog):
            log.info("events found in the spool", extra={"events": len(self._backlog)})
            self._arrived.set()
        self._sender = asyncio.create_task(self._deliver())
        self._spiller = asyncio.create_task(self._spill())

    async def flush(self, grace_s: float = 10.0) -> None:
        """Send what can be sent, keep the rest in the spool, and end within the grace.

        Parameters
        ----------
        grace_s : float, default 10.0
            Seconds. A quarter of it, at most two, is left for the disk.

        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + grace_s
        self._hurry.set()
        self._arrived.set()
        self._full.set()
        reserve_s = min(2.0, grace_s / 4)
        if self._sender is not None:
            await asyncio.wait({self._sender}, timeout=grace_s - reserve_s)
        self._stop.set()
        if self._sending is not None:
            self._sending.cancel()
        self._backlog.pressure.set()
        ending = asyncio.create_task(self._end())
        await asyncio.wait({ending}, timeout=max(0.0, deadline - loop.time()))
        for task in (ending, self._sender, self._spiller):
            if task is not None and not task.done():
                log.error("the disk did not answer within the grace period")
                task.cancel()

    async def _end(self) -> None:
        tasks = [task for task in (self._sender, self._spiller) if task is not None]
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._sink.close()
        await self._backlog.spill(self._backlog.n_memory)
        self._is_closed = True
        if n_lost := self._backlog.give_up("shutdown"):
            log.error("events are lost at shutdown", extra={"events": n_lost})
        await self._backlog.close()

    async def _deliver(self) -> None:
        while not self._stop.is_set():
            try:
                await self._deliver_some()
            except asyncio.CancelledError:
                if not self._stop.is_set():
                    raise
            except Exception:
                log.exception("the sender failed")
                self.accounting.fail("internal")
                await self._back_off(None)
            if self._hurry.is_set() and (not len(self._backlog) or self._is_hopeless()):
                return

    def _is_hopeless(self) -> bool:
        return self._n_failures > 0 and self._backlog.has_spool

    async def _deliver_some(self) -> None:
        if not len(self._backlog):
            self._arrived.clear()
            self._full.clear()
            if self._hurry.is_set():
                return
            await self._arrived.wait()
        if len(self._backlog) < self._batch_events and not self._hurry.is_set():
            await _wait(self._full, self._limits.linger_s)
        self._full.clear()
        events = await self._backlog.take(
            max_events=self._batch_events, max_bytes=self._limits.batch_bytes
        )
        if not events:
            if len(self._backlog):
                await self._back_off(None)
            return
        self._sending = asyncio.create_task(self._sink.send(events))
        try:
            delivery = await self._sending
        finally:
            self._sending = None
        await self._account(events, delivery)

    async def _account(self, events: Sequence[CapturedEvent], delivery: Delivery) -> None:
        n_taken = delivery.n_taken
        if n_taken:
            await self._backlog.settle(n_taken)
            self.accounting.send(n_taken)
            self._n_failures = self._n_rejected = 0
            self._batch_events = min(self._batch_events * 2, self._limits.batch_events)
        if n_taken == len(events):
            return
        self.accounting.fail(delivery.failure)
        if delivery.n_refused == 1:
            await self._backlog.settle(1)
            self.accounting.drop(1, "rejected")
            self._batch_events = min(self._batch_events * 2, self._limits.batch_events)
            self._n_rejected += 1
            if self._n_rejected >= _MAX_REJECTED:
                await self._back_off(None, longest_s=_REJECTED_PAUSE_S)
        elif delivery.n_refused:
            self._batch_events = max(1, delivery.n_refused // 2)
        else:
            await self._back_off(delivery.retry_after_s)

    async def _back_off(self, retry_after_s: float | None, *, longest_s: float = math.inf) -> None:
        """Pause, with full jitter; at once over when there is a hurry."""
        doublings = min(self._n_failures, _MAX_DOUBLINGS)
        self._n_failures += 1
        longest = min(longest_s, self._limits.max_backoff_s)
        pause_s = self._random.uniform(0, min(longest, _FIRST_BACKOFF_S * 2**doublings))
        if retry_after_s is not None:
            # "0" must not make a loop that takes the processor from the traffic.
            pause_s = min(longest, max(pause_s, retry_after_s))
        if not self._hurry.is_set():
            if await _wait(self._hurry, pause_s):
                self._n_failures = 0  # one more try before the rest goes to the disk
        elif not self._backlog.has_spool:
            await _wait(self._stop, min(pause_s, _FLUSH_RETRY_S))

    async def _spill(self) -> None:
        backlog, period_s = self._backlog, self._limits.spill_after_s
        n_arrived = 0
        while backlog.has_spool and not self._stop.is_set():
            is_pressed = await _wait(backlog.pressure, period_s)
            if self._stop.is_set():
                return
            backlog.pressure.clear()
            n_old = n_arrived - backlog.n_left
            n_arrived = backlog.n_left + backlog.n_memory
            try:
                await backlog.spill(backlog.n_memory if is_pressed else n_old)
            except Exception:
                log.exception("the spiller failed")
                self.accounting.fail_spool()
            if backlog.is_refused:
                await _wait(self._stop, period_s)


async def _wait(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
