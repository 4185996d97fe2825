"""Events that wait for the sink, oldest first: those in the spool, then those in memory."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from sidelight.logger._accounting import Accounting
from sidelight.logger._emitter_capture import Capture
from sidelight.logger._emitter_event import CapturedEvent
from sidelight.logger._exchange import Exchange
from sidelight.logger._spool import Spool
from sidelight.logger._spool_segment import SpoolRecord
from sidelight.logger.errors import SpoolError

log = logging.getLogger(__name__)

_Result = TypeVar("_Result")

# What an exchange occupies besides its bytes: the object, two events' attributes; measured
# generously, so that the bound of the memory errs on the safe side.
_OVERHEAD_BYTES: Final = 1536
# The loop runs the model's traffic as well: encoding lets go of it after that much.
_SLICE_EXCHANGES: Final = 16
_SLICE_BYTES: Final = 128 * 1024
_SPILL_EVENTS: Final = 1024
_SPILL_BYTES: Final = 1 << 20


class Backlog:
    """A queue of events in two places, with one order.

    Events enter in memory and leave from the front. ``take`` shows the front to the sender and
    ``settle`` removes what became of it; meanwhile ``spill`` may move the same events to the
    disk. All methods run on one event loop; the disk works in a thread of its own.

    Parameters
    ----------
    capture : Capture
        Encodes exchanges when they are needed.
    accounting : Accounting
        Learns what is seen and what is dropped here.
    spool : Spool or None
        Without one there is only memory.
    max_memory_bytes : int
        Bound; half of it sets ``pressure``.

    Attributes
    ----------
    pressure : asyncio.Event
        Set when memory fills and should go to the disk.
    n_left : int
        Events that have left the memory so far: sent from there, spilled or dropped.

    """

    def __init__(
        self,
        capture: Capture,
        accounting: Accounting,
        *,
        spool: Spool | None,
        max_memory_bytes: int,
    ) -> None:
        self.pressure = asyncio.Event()
        self.n_left = 0
        self._capture = capture
        self._accounting = accounting
        self._spool = spool
        self._max_bytes = max_memory_bytes
        self._high_bytes = max_memory_bytes // 2
        self._raw: deque[tuple[Exchange, int]] = deque()
        self._ready: deque[tuple[CapturedEvent, int]] = deque()
        self._bytes = 0
        self._shown: list[int] = []  # numbers in the spool of what was taken from there
        self._n_shown_memory = 0  # of what was taken from memory, how many are there still
        self._moved = range(0)  # and the numbers of those that were spilled since
        self._refusal: str | None = None
        self._lock = asyncio.Lock()
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="sidelight-spool")
        self._n_damaged = 0
        if spool is not None:
            self._n_damaged = spool.n_damaged
            accounting.see(spool.recovered)
            self._gauge()

    def __len__(self) -> int:
        return self.n_memory + (len(self._spool) if self._spool is not None else 0)

    @property
    def n_memory(self) -> int:
        """Events in memory."""
        return len(self._ready) + 2 * len(self._raw)

    @property
    def has_spool(self) -> bool:
        """Whether there is a disk to spill to."""
        return self._spool is not None

    @property
    def is_refused(self) -> bool:
        """Whether the disk took less than it was given last."""
        return self._refusal is not None

    def put(self, exchange: Exchange) -> bool:
        """Take both events of an exchange, or count them as dropped when there is no room."""
        accounting = self._accounting
        accounting.see(2)
        cost = (
            len(exchange.request_head)
            + len(exchange.request_body)
            + len(exchange.response_head)
            + len(exchange.response_body)
            + _OVERHEAD_BYTES
        )
        occupied = self._bytes + cost
        if occupied > self._max_bytes:
            accounting.drop(2, self._refusal or "memory_full")
            self.pressure.set()
            return False
        self._raw.append((exchange, cost))
        self._bytes = accounting.memory_bytes = occupied
        if occupied > self._high_bytes:
            self.pressure.set()
        return True

    async def take(self, *, max_events: int, max_bytes: int) -> list[CapturedEvent]:
        """Return the first events without removing them; none while the disk cannot be read."""
        async with self._lock:
            self._shown, self._n_shown_memory, self._moved = [], 0, range(0)
            if self._spool is not None and len(self._spool):
                events = await self._take_spooled(self._spool, max_events, max_bytes)
                if events or len(self._spool):
                    return events
            await self._encode(max_events, max_bytes)
            chosen: list[CapturedEvent] = []
            for event, _ in self._ready:
                max_bytes -= event.size
                if chosen and (max_bytes < 0 or len(chosen) >= max_events):
                    break
                chosen.append(event)
            self._n_shown_memory = len(chosen)
            return chosen

    async def settle(self, n_events: int) -> None:
        """Remove the first events of what was taken last, wherever they are now."""
        async with self._lock:
            if self._shown:
                done, self._shown = self._shown[n_events - 1], self._shown[n_events:]
                await self._acknowledge(done)
                return
            n_moved = min(n_events, len(self._moved))
            if n_moved:
                done, self._moved = self._moved[n_moved - 1], self._moved[n_moved:]
                await self._acknowledge(done)
            self._n_shown_memory -= n_events - n_moved
            self._leave(n_events - n_moved)

    async def spill(self, n_events: int) -> None:
        """Move the oldest events in memory to the spool, durably, as far as the disk takes them."""
        if self._spool is None:
            return
        async with self._lock:
            while n_events > 0 and self.n_memory:
                n_written = await self._spill_some(self._spool, n_events)
                if not n_written:
                    return
                n_events -= n_written

    def give_up(self, reason: str) -> int:
        """Drop what is left in memory; return how many events that was."""
        n_events = self.n_memory
        self._accounting.drop(n_events, self._refusal or reason)
        self._raw.clear()
        self._ready.clear()
        self._bytes = self._accounting.memory_bytes = 0
        return n_events

    async def close(self) -> None:
        """Close the spool; what waits there stays."""
        async with self._lock:
            if self._spool is not None:
                await self._on_disk(self._spool.close)
        self._disk.shutdown(wait=False)

    async def _take_spooled(
        self, spool: Spool, max_events: int, max_bytes: int
    ) -> list[CapturedEvent]:
        try:
            records = await self._on_disk(
                lambda: spool.peek(max_records=max_events, max_bytes=max_bytes)
            )
        except OSError:
            log.exception("the spool cannot be read")
            self._accounting.fail_spool()
            return []
        self._count_damaged(spool)
        events = []
        for record in records:
            try:
                events.append(CapturedEvent.unpack(record.payload))
            except SpoolError:
                if not events:
                    await self._discard(record)
                break
            self._shown.append(record.number)
        return events

    async def _discard(self, record: SpoolRecord) -> None:
        log.error("a spooled record is no event", extra={"number": record.number})
        await self._acknowledge(record.number)
        self._accounting.drop(1, "spool_corrupt")

    async def _spill_some(self, spool: Spool, n_events: int) -> int:
        n_chunk = min(n_events, _SPILL_EVENTS)
        await self._encode(n_chunk, _SPILL_BYTES)
        chunk: list[CapturedEvent] = []
        size = 0
        for event, _ in self._ready:
            size += event.size
            if chunk and (size > _SPILL_BYTES or len(chunk) >= n_chunk):
                break
            chunk.append(event)
        try:
            numbers = await self._on_disk(lambda: spool.append([event.pack() for event in chunk]))
        except OSError:
            log.exception("the spool cannot be written")
            self._accounting.fail_spool()
            self._refusal = "spool_error"
            return 0
        self._refusal = "spool_full" if len(numbers) < len(chunk) else None
        self._leave(len(numbers))
        n_moved = min(len(numbers), self._n_shown_memory)
        if n_moved:
            start = self._moved.start if self._moved else numbers.start
            self._moved = range(start, numbers.start + n_moved)
            self._n_shown_memory -= n_moved
        self._gauge()
        return len(numbers)

    async def _encode(self, n_events: int, n_bytes: int) -> None:
        """Have that many events, or that many bytes, ready at the front of the memory."""
        n_bytes -= sum(cost for _, cost in self._ready)
        n_exchanges = n_slice = 0
        while self._raw and len(self._ready) < n_events and n_bytes > 0:
            exchange, cost = self._raw.popleft()
            try:
                events = self._capture.events(exchange)
            except Exception:
                # One exchange that nobody foresaw must not stop the others.
                log.exception("an exchange cannot be encoded")
                self._accounting.drop(2, "unencodable")
                self._bytes -= cost
                self.n_left += 2
                continue
            self._ready.extend((event, cost // 2) for event in events)
            self._bytes -= cost % 2
            n_bytes -= cost
            n_slice += cost
            n_exchanges += 1
            if n_exchanges >= _SLICE_EXCHANGES or n_slice >= _SLICE_BYTES:
                n_exchanges = n_slice = 0
                await asyncio.sleep(0)

    def _leave(self, n_events: int) -> None:
        self.n_left += n_events
        for _ in range(n_events):
            self._bytes -= self._ready.popleft()[1]
        self._accounting.memory_bytes = self._bytes

    async def _acknowledge(self, number: int) -> None:
        if self._spool is not None:
            spool = self._spool
            await self._on_disk(lambda: spool.ack(number))
            self._count_damaged(spool)

    def _count_damaged(self, spool: Spool) -> None:
        n_damaged, self._n_damaged = spool.n_damaged - self._n_damaged, spool.n_damaged
        if n_damaged:
            self._accounting.drop(n_damaged, "spool_corrupt")
        self._gauge()

    def _gauge(self) -> None:
        if self._spool is not None:
            self._accounting.spool_bytes = self._spool.size
            self._accounting.spool_events = len(self._spool)

    async def _on_disk(self, work: Callable[[], _Result]) -> _Result:
        return await asyncio.get_running_loop().run_in_executor(self._disk, work)
