"""The way of captured events to one sink: its backlog, its pauses, its account."""

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final

from sidelight.logger._accounting import Accounting, Accounts
from sidelight.logger._emitter_backlog import Backlog
from sidelight.logger._emitter_event import CapturedEvent
from sidelight.logger._emitter_pair import Encoder, EventPair, occurred_at
from sidelight.logger._outlet import Outlet
from sidelight.logger._outlet_circuit import Circuit
from sidelight.logger._sink import Delivery
from sidelight.logger._spool import Spool

log = logging.getLogger(__name__)

_FLUSH_RETRY_S: Final = 0.5
# A circuit that is tried again is tried with so many events.
_PROBE_EVENTS: Final = 8
# So many rejected in a row, and it is not they that are bad: what comes then waits in between.
_MAX_REJECTED: Final = 32
_REJECTED_PAUSE_S: Final = 1.0
# Nothing waits for a sink that is closed: what it has taken is safe there.
_CLOSING_S: Final = 5.0
# Of the grace of a flush, at most.
_DISK_S: Final = 2.0


class Lane:
    """Deliver the events of one outlet in order, at least once.

    Parameters
    ----------
    outlet : Outlet
        Where to, and within which bounds.
    encoder : Encoder
        Makes events; shared by all lanes.
    accounting : Accounting
        Counts what becomes of every event.
    seed : int, optional
        Of the jitter, for tests.

    """

    def __init__(
        self, outlet: Outlet, encoder: Encoder, accounting: Accounting, *, seed: int | None = None
    ) -> None:
        self.outlet = outlet
        self.accounting = accounting
        limits = self._limits = outlet.limits
        self._sink = outlet.sink
        self.backlog = Backlog(
            encoder,
            accounting,
            max_memory_bytes=limits.memory_bytes,
            drops_oldest=outlet.overflow == "drop_oldest",
        )
        self._circuit = Circuit(
            open_after=limits.open_after_failures,
            longest_s=limits.max_backoff_s,
            seed=None if seed is None else f"{seed} {outlet.name}",
        )
        self._arrived = asyncio.Event()
        self._full = asyncio.Event()
        self._hurry = asyncio.Event()
        self._stop = asyncio.Event()
        self._is_told = False  # that there is a whole batch
        self._is_closed = False
        self._batch_events = limits.batch_events
        self._n_rejected = 0
        self._sending: asyncio.Task[Delivery] | None = None
        self._sender: asyncio.Task[None] | None = None
        self._spiller: asyncio.Task[None] | None = None

    def put(self, pair: EventPair) -> None:
        """Take one exchange; encoding waits until the events are needed."""
        if self._is_closed:
            self.accounting.see(2)
            self.accounting.drop(2, "shutdown")
        elif self.backlog.put(pair) and not self._is_told:
            self._tell()

    def _tell(self) -> None:
        if not self._arrived.is_set():
            self._arrived.set()
        elif not self._is_small(self._limits.batch_events):
            self._full.set()
            self._is_told = True

    def _is_small(self, n_events: int) -> bool:
        """Whether what waits is less than a batch."""
        backlog = self.backlog
        return (
            len(backlog) < n_events
            and backlog.memory_bytes + backlog.spool_bytes < self._limits.batch_bytes
        )

    def accounts(self) -> Accounts:
        """Return the numbers of this moment."""
        backlog, circuit = self.backlog, self._circuit
        oldest = backlog.oldest
        age_s = 0.0 if oldest is None else (time.time_ns() - occurred_at(oldest)) / 1e9
        return replace(
            self.accounting.snapshot(),
            memory_bytes=backlog.memory_bytes,
            memory_events=backlog.n_memory,
            spool_bytes=backlog.spool_bytes,
            spool_events=backlog.spool_events,
            circuit=circuit.state,
            circuit_openings=circuit.n_openings,
            # The clock may have been set back.
            oldest_s=max(0.0, age_s),
        )

    def attach(self, spool: Spool, *, n_known: int = 0) -> None:
        """Use a spool that was opened, of whose events ``n_known`` are in the account already."""
        n_new = spool.recovered - n_known
        if n_new >= 0:
            self.accounting.see(n_new)
        else:
            self.accounting.drop(-n_new, "spool_corrupt")
        self.backlog.attach(spool)

    async def start(self) -> None:
        """Begin to deliver, with what the spool holds from before."""
        if n_found := self.backlog.spool_events:
            log.info(
                "events found in the spool", extra={"sink": self.outlet.name, "events": n_found}
            )
        if len(self.backlog):
            self._arrived.set()
        self._sender = asyncio.create_task(self._deliver())
        self._spiller = asyncio.create_task(self._spill())

    async def flush(self, grace_s: float, *, disk_s: float = 0.0, reason: str = "shutdown") -> None:
        """Send what can be sent, keep the rest in the spool, and end within the grace.

        Parameters
        ----------
        grace_s : float
            Seconds. A quarter of it, at most two, is left for the disk, also where the process
            stood still and the sink's part took longer.
        disk_s : float, default 0.0
            What the disk has beyond that, where nothing waits for the end; seconds.
        reason : str, default "shutdown"
            Why what finds no room is dropped.

        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + grace_s + disk_s
        self._hurry.set()
        self._arrived.set()
        self._full.set()
        reserve_s = min(_DISK_S, grace_s / 4)
        if self._sender is not None:
            await asyncio.wait({self._sender}, timeout=grace_s - reserve_s)
        self._stop.set()
        if self._sending is not None:
            self._sending.cancel()
        self.backlog.pressure.set()
        ending = asyncio.create_task(self._end(reason))
        await asyncio.wait({ending}, timeout=max(reserve_s, deadline - loop.time()))
        for task in (ending, self._sender, self._spiller):
            if task is not None and not task.done():
                log.error(
                    "disk and sink did not end within the grace period",
                    extra={"sink": self.outlet.name},
                )
                task.cancel()

    async def _end(self, reason: str) -> None:
        tasks = [task for task in (self._sender, self._spiller) if task is not None]
        await asyncio.gather(*tasks, return_exceptions=True)
        try:
            await self.backlog.spill(self.backlog.n_memory)
            self._is_closed = True
            if n_lost := self.backlog.give_up(reason):
                log.error("events are lost", extra={"sink": self.outlet.name, "events": n_lost})
            await self.backlog.close()
        except Exception:
            log.exception("a spool could not be closed", extra={"sink": self.outlet.name})
        # Last: what waits must not wait for it.
        await close_sink(self.outlet)

    async def _deliver(self) -> None:
        while not self._stop.is_set():
            try:
                await self._deliver_some()
            except asyncio.CancelledError:
                if not self._stop.is_set():
                    raise
            except Exception:
                log.exception("the sender failed", extra={"sink": self.outlet.name})
                self.accounting.fail("internal")
                self.backlog.release()
                await self._pause(self._circuit.fail())
            if self._hurry.is_set() and (not len(self.backlog) or self._is_hopeless()):
                return

    def _is_hopeless(self) -> bool:
        return self._circuit.n_failures > 0 and self.backlog.has_spool

    async def _deliver_some(self) -> None:
        backlog, limits = self.backlog, self._limits
        if not len(backlog):
            self._arrived.clear()
            self._full.clear()
            self._is_told = False
            if self._hurry.is_set():
                return
            await self._arrived.wait()
        if self._is_small(self._batch_events) and not self._hurry.is_set():
            await _wait(self._full, limits.linger_s)
        self._full.clear()
        self._is_told = False
        self._circuit.probe()
        n_most = self._batch_events if self._circuit.is_closed else _PROBE_EVENTS
        events = await backlog.take(
            max_events=min(n_most, self._batch_events), max_bytes=limits.batch_bytes
        )
        if not events:
            if len(backlog):
                await self._pause(self._circuit.fail())
            return
        if self._stop.is_set():
            return  # nobody would cancel it any more, and it may hang
        self._sending = asyncio.create_task(self._sink.send(events))
        try:
            delivery = await self._sending
        finally:
            self._sending = None
        await self._account(events, delivery)

    async def _account(self, events: Sequence[CapturedEvent], delivery: Delivery) -> None:
        n_taken = delivery.n_taken
        if n_taken:
            await self.backlog.settle(n_taken)
            self.accounting.send(n_taken)
            if not self._circuit.is_closed:
                log.info("a sink takes events again", extra={"sink": self.outlet.name})
            self._circuit.succeed()
            self._n_rejected = 0
            self._batch_events = min(self._batch_events * 2, self._limits.batch_events)
        if n_taken == len(events):
            return
        self.accounting.fail(delivery.failure)
        if delivery.n_refused == 1:
            await self.backlog.settle(1)
            self.accounting.drop(1, "rejected")
            self._batch_events = min(self._batch_events * 2, self._limits.batch_events)
        self.backlog.release()
        if not delivery.n_refused:
            was_closed = self._circuit.is_closed
            pause_s = self._circuit.fail(delivery.retry_after_s)
            if was_closed and not self._circuit.is_closed:
                log.warning(
                    "a sink takes no events; they wait and are tried again",
                    extra={"sink": self.outlet.name, "reason": delivery.failure},
                )
            await self._pause(pause_s)
        elif delivery.n_refused > 1:
            self._batch_events = max(1, delivery.n_refused // 2)
        else:
            self._n_rejected += 1
            if self._n_rejected >= _MAX_REJECTED:
                pause_s = self._circuit.fail()
                await self._pause(min(_REJECTED_PAUSE_S, pause_s))

    async def _pause(self, pause_s: float) -> None:
        """Wait; at once over when there is a hurry."""
        if not self._hurry.is_set():
            if await _wait(self._hurry, pause_s):
                self._circuit.n_failures = 0  # one more try before the rest goes to the disk
        elif not self.backlog.has_spool:
            await _wait(self._stop, min(pause_s, _FLUSH_RETRY_S))

    async def _spill(self) -> None:
        backlog, period_s = self.backlog, self._limits.spill_after_s
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
                log.exception("the spiller failed", extra={"sink": self.outlet.name})
                self.accounting.fail_spool()
            if backlog.is_refused:
                await _wait(self._stop, period_s)


async def close_sink(outlet: Outlet) -> None:
    """Close the sink of an outlet; what goes wrong is only said."""
    try:
        async with asyncio.timeout(_CLOSING_S):
            await outlet.sink.close()
    except Exception:
        log.exception("a sink could not be closed", extra={"sink": outlet.name})


async def _wait(event: asyncio.Event, seconds: float) -> bool:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
        return True
    return False
