"""Events that wait for one sink, oldest first: those in the spool, then those in memory."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from sidelight.logger._accounting import Accounting
from sidelight.logger._emitter_event import CapturedEvent
from sidelight.logger._emitter_pair import Encoder, EventPair
from sidelight.logger._spool import Spool
from sidelight.logger._spool_segment import SpoolRecord
from sidelight.logger.errors import SpoolError

log = logging.getLogger(__name__)

_Result = TypeVar("_Result")

# The loop runs the model's traffic as well: encoding lets go of it after that much, a third of a
# millisecond; less, and a busy loop brings more in a turn than it sends on. While memory
# fills it keeps it for longer: in a turn that brings more exchanges than it
# encodes, events would be dropped although there is a disk.
_SLICE_EXCHANGES: Final = 64
_SLICE_BYTES: Final = 512 * 1024
_HURRIED: Final = 2
_SPILL_EVENTS: Final = 4096
_SPILL_BYTES: Final = 4 << 20


class Backlog:
    """A queue of events in two places, with one order.

    Events enter in memory and leave from the front. ``take`` shows the front to the sender and
    ``settle`` removes what became of it; meanwhile ``spill`` may move the same events to the
    disk. All methods run on one event loop; the disk works in a thread of its own.

    Parameters
    ----------
    encoder : Encoder
        Encodes exchanges when they are needed.
    accounting : Accounting
        Learns what is seen and what is dropped here.
    max_memory_bytes : int
        Bound; a quarter of it sets ``pressure``.
    drops_oldest : bool, default False
        Which events make room when the memory is full: those that wait longest, but none that is
        on its way, or those that come.

    Attributes
    ----------
    pressure : asyncio.Event
        Set when memory fills and should go to the disk.
    n_left : int
        Events that have left the memory so far: sent from there, spilled or dropped.
    memory_bytes, spool_bytes, spool_events : int
        Where what waits is.

    """

    def __init__(
        self,
        encoder: Encoder,
        accounting: Accounting,
        *,
        max_memory_bytes: int,
        drops_oldest: bool = False,
    ) -> None:
        self.pressure = asyncio.Event()
        self.n_left = 0
        self.memory_bytes = 0
        self.spool_bytes = 0
        self.spool_events = 0
        self._encoder = encoder
        self._accounting = accounting
        self._spool: Spool | None = None
        self._max_bytes = max_memory_bytes
        self._high_bytes = max_memory_bytes // 4
        self._drops_oldest = drops_oldest
        self._raw: deque[EventPair] = deque()
        self._ready: deque[tuple[CapturedEvent, int]] = deque()
        self._shown: list[int] = []  # numbers in the spool of what was taken from there
        self._front: CapturedEvent | None = None  # the first that was taken from there last
        self._n_shown_memory = 0  # of what was taken from memory, how many are there still
        self._moved = range(0)  # and the numbers of those that were spilled since
        self._refusal: str | None = None
        self._lock = asyncio.Lock()
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="sidelight-spool")
        self._n_damaged = 0

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

    @property
    def oldest(self) -> CapturedEvent | EventPair | None:
        """What waits longest, as far as it is known without asking the disk."""
        if self._spool is not None and len(self._spool) and self._front is not None:
            return self._front
        return self._ready[0][0] if self._ready else self._raw[0] if self._raw else None

    def attach(self, spool: Spool) -> None:
        """Use this spool, whose events come before those in memory; they are counted by then."""
        self._spool = spool
        self._n_damaged = spool.n_damaged
        self._gauge()

    def put(self, pair: EventPair) -> bool:
        """Take both events of an exchange, or count them as dropped when there is no room."""
        accounting = self._accounting
        accounting.seen += 2
        accounting.pending += 2
        occupied = self.memory_bytes + pair.cost
        if occupied > self._high_bytes:
            self.pressure.set()
            if occupied > self._max_bytes:
                if not (self._drops_oldest and self._make_room(pair.cost)):
                    accounting.drop(2, self._refusal or "memory_full")
                    return False
                occupied = self.memory_bytes + pair.cost
        self._raw.append(pair)
        self.memory_bytes = occupied
        return True

    def _make_room(self, cost: int) -> bool:
        """Drop what waits longest and is not on its way; whether there is room then."""
        ready, first = self._ready, self._n_shown_memory
        room = self._max_bytes - cost
        if sum(ready[n][1] for n in range(first)) > room:
            return False
        n_dropped = 0
        while self.memory_bytes > room:
            if len(ready) > first:
                self.memory_bytes -= ready[first][1]
                del ready[first]
                n_dropped += 1
            else:
                self.memory_bytes -= self._raw.popleft().cost
                n_dropped += 2
        self.n_left += n_dropped
        self._accounting.drop(n_dropped, "memory_full")
        return True

    async def take(self, *, max_events: int, max_bytes: int) -> list[CapturedEvent]:
        """Return the first events without removing them; none while the disk cannot be read."""
        async with self._lock:
            self._shown, self._n_shown_memory, self._moved = [], 0, range(0)
            if self._spool is not None and len(self._spool):
                events = await self._take_spooled(self._spool, max_events, max_bytes)
                if events or len(self._spool):
                    self._front = events[0] if events else None
                    return events
            self._front = None
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

    def release(self) -> None:
        """Nothing is on its way any more: what was taken and not settled waits again."""
        self._n_shown_memory, self._moved = 0, range(0)

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
        self.memory_bytes = self._n_shown_memory = 0
        return n_events

    async def close(self) -> None:
        """Close the spool; what waits there stays."""
        async with self._lock:
            if self._spool is not None:
                await self.on_disk(self._spool.close)
        self._disk.shutdown(wait=False)

    def forget_spool(self) -> int:
        """Let others care for what a closed spool holds; return how many events that is."""
        n_events = self.spool_events
        self._spool, self.spool_events, self.spool_bytes = None, 0, 0
        return n_events

    async def on_disk(self, work: Callable[[], _Result]) -> _Result:
        """Let the disk's thread do something."""
        return await asyncio.get_running_loop().run_in_executor(self._disk, work)

    async def _take_spooled(
        self, spool: Spool, max_events: int, max_bytes: int
    ) -> list[CapturedEvent]:
        try:
            records = await self.on_disk(
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
            numbers = await self.on_disk(lambda: spool.append([event.pack() for event in chunk]))
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
            pair = self._raw.popleft()
            events = self._encoder.encode(pair)
            cost = 0
            for _, of_event in events:
                cost += of_event
            self.memory_bytes += cost - pair.cost
            if not events:
                self._accounting.drop(2, "unencodable")
                self.n_left += 2
            self._ready.extend(events)
            n_bytes -= cost
            n_slice += pair.cost
            n_exchanges += 1
            hurry = _HURRIED if self.memory_bytes > self._high_bytes else 1
            if n_exchanges >= _SLICE_EXCHANGES * hurry or n_slice >= _SLICE_BYTES * hurry:
                n_exchanges = n_slice = 0
                await asyncio.sleep(0)

    def _leave(self, n_events: int) -> None:
        self.n_left += n_events
        for _ in range(n_events):
            self.memory_bytes -= self._ready.popleft()[1]

    async def _acknowledge(self, number: int) -> None:
        if self._spool is not None:
            spool = self._spool
            await self.on_disk(lambda: spool.ack(number))
            self._count_damaged(spool)

    def _count_damaged(self, spool: Spool) -> None:
        n_damaged, self._n_damaged = spool.n_damaged - self._n_damaged, spool.n_damaged
        if n_damaged:
            self._accounting.drop(n_damaged, "spool_corrupt")
        self._gauge()

    def _gauge(self) -> None:
        if self._spool is not None:
            self.spool_bytes = self._spool.size
            self.spool_events = len(self._spool)
