"""The thread of one process that runs an emitter, and the inbox that others fill."""

import asyncio
import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Final

from sidelight.logger._accounting import Accounting, Accounts
from sidelight.logger._accounting_sum import summed
from sidelight.logger._emitter import Emitter
from sidelight.logger._emitter_slot import Slot, claim, claim_left
from sidelight.logger._exchange import Exchange
from sidelight.logger._request_id import RequestIds
from sidelight.logger.errors import SpoolError

log = logging.getLogger(__name__)

MakeEmitter = Callable[[Path | None], Emitter]
"""Makes an emitter on its loop, with its spools below a folder, or without any."""

# The thread is woken at most that often: each time it takes the interpreter from the model.
_LINGER_S: Final = 0.02
# What an exchange occupies besides its bytes, measured generously.
_OVERHEAD_BYTES: Final = 1536
# Processes that start together first take the folders of those that ended together.
_FIRST_LOOK_S: Final = 5.0
_LOOK_S: Final = 30.0
_DRAINED_S: Final = 0.25
_MARGIN_S: Final = 1.0
_POLL_S: Final = 0.05
# The sink of an emitter that could not be made.
_NOWHERE: Final = "none"


AccountsBySink = Mapping[str, Accounts]
"""The numbers of each outlet, by its name."""


class EmitterWorker:
    """Run one emitter on a daemon thread with a loop of its own, until it is ended.

    Parameters
    ----------
    make : callable
        Makes the emitter, on the thread.
    spool : Path or None
        Parent of the folders of all processes.
    inbox_bytes : int
        Bound of what waits for the thread.

    Attributes
    ----------
    pid : int
        Of the process that the thread is in.
    ids : RequestIds
        Of this process; those of a parent would come twice.
    is_ending : bool
        Whether nothing is taken any more.
    has_failed : bool
        Whether the thread ended by itself.

    """

    def __init__(
        self,
        make: MakeEmitter,
        *,
        spool: Path | None,
        inbox_bytes: int,
    ) -> None:
        self.pid = os.getpid()
        self.ids = RequestIds()
        self.has_failed = False
        self._make = make
        self._parent = spool
        self._inbox_bytes = inbox_bytes
        # Reentrant: a generator that the garbage collector ends within makes an offer.
        self._lock = threading.RLock()
        self._waiting: deque[Exchange] = deque()
        self._waiting_bytes = 0
        self._n_refused = 0
        self._is_woken = True
        self._is_urgent = False
        self.is_ending = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._emitters: list[Emitter] = []
        self._slots: list[Slot] = []
        self._after = Accounting()
        self._grace_s = 0.0
        self._ready = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sidelight-emitter", daemon=True)
        self._thread.start()

    def offer(self, exchange: Exchange) -> bool:
        """Take one exchange; whether it still can be. From any thread, never blocks."""
        with self._lock:
            if self.is_ending:
                return False
            self._put(exchange)
            is_asleep, self._is_woken = not self._is_woken, True
            is_urgent = not self._is_urgent and self._waiting_bytes > self._inbox_bytes // 2
            self._is_urgent |= is_urgent
        if is_asleep:
            self._call(self._drain_soon)
        if is_urgent:
            self._call(self._drain)
        return True

    def refuse(self) -> None:
        """Count an exchange that came after the end."""
        with self._lock:
            self._after.see(2)
            self._after.drop(2, "shutdown")

    def accounts(self, timeout_s: float) -> AccountsBySink:
        """Return the numbers of all that was offered; raise ``TimeoutError`` without them."""
        if not self._ready.wait(timeout_s):
            raise TimeoutError("the thread of the emitter did not begin in time")
        answer: Future[AccountsBySink] = Future()
        if not self._ended.is_set() and self._call(self._tell, answer):
            # Whichever comes first, the loop's answer or its end.
            while not self._ended.is_set():
                try:
                    return answer.result(min(timeout_s, _POLL_S))
                except TimeoutError:
                    timeout_s -= _POLL_S
                    if timeout_s <= 0:
                        raise
        return self._accounts()

    def end(self, grace_s: float) -> bool:
        """Deliver or spool what was offered, and end the thread; whether it did in time."""
        with self._lock:
            self._grace_s = grace_s if not self.is_ending else self._grace_s
            self.is_ending = True
        self._call(self._end_loop)
        is_ended = self._ended.wait(grace_s + _MARGIN_S)
        if is_ended and threading.current_thread() is not self._thread:
            self._thread.join(_MARGIN_S)
        return is_ended

    def _put(self, exchange: Exchange) -> None:
        size = (
            len(exchange.request_head)
            + len(exchange.request_body)
            + len(exchange.response_head)
            + len(exchange.response_body)
            + _OVERHEAD_BYTES
        )
        if self._waiting_bytes + size > self._inbox_bytes:
            self._n_refused += 1
        else:
            self._waiting_bytes += size
            self._waiting.append(exchange)

    def _call(self, work: Callable[..., None], *arguments: object) -> bool:
        loop = self._loop
        if loop is None:  # it looks into the inbox when it begins
            return True
        try:
            loop.call_soon_threadsafe(work, *arguments)
        except RuntimeError:  # closed meanwhile
            return False
        return True

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
                runner.run(self._work())
        except Exception:
            log.exception("the thread of the emitter failed")
            self.has_failed = True
        finally:
            self._give_up()
            self._ended.set()
            self._ready.set()

    async def _work(self) -> None:
        looking: asyncio.Task[None] | None = None
        try:
            emitter = self._make_own()
            await emitter.start()
            self._emitters.append(emitter)
            self._stop = asyncio.Event()
            if self._slots and self._parent is not None:
                looking = asyncio.create_task(self._take_over(self._parent))
            self._loop = asyncio.get_running_loop()
            self._ready.set()
            self._drain()
            if not self.is_ending:
                await self._stop.wait()
            if looking is not None:
                looking.cancel()
                await asyncio.gather(looking, return_exceptions=True)
            self._drain()
            await asyncio.gather(*(emitter.flush(self._grace_s) for emitter in self._emitters))
        finally:
            for slot in self._slots:
                slot.close()

    def _make_own(self) -> Emitter:
        if self._parent is not None:
            try:
                self._slots.append(claim(self._parent))
                return self._make(self._slots[0].folder)
            except (OSError, SpoolError):
                log.exception("the spool cannot be used; events are kept in memory only")
        return self._make(None)

    def _drain_soon(self) -> None:
        assert self._loop is not None  # noqa: S101 - only called on it
        self._loop.call_later(_LINGER_S, self._drain)

    def _drain(self) -> None:
        """Hand over everything that was offered before."""
        for exchange in self._taken():
            self._emitters[0].offer(exchange)

    def _taken(self) -> Sequence[Exchange]:
        with self._lock:
            taken, self._waiting = self._waiting, deque()
            n_refused, self._n_refused = self._n_refused, 0
            self._waiting_bytes = 0
            self._is_woken = self._is_urgent = False
            if n_refused:
                self._after.see(2 * n_refused)
                self._after.drop(2 * n_refused, "memory_full")
        return taken

    def _give_up(self) -> None:
        """Count what nobody delivers any more: it came while the emitter ended, or failed."""
        with self._lock:
            self.is_ending = True
        n_events = 2 * len(self._taken())
        with self._lock:
            self._after.see(n_events)
            self._after.drop(n_events, "shutdown")

    def _accounts(self) -> AccountsBySink:
        by_sink: dict[str, list[Accounts]] = {}
        for emitter in self._emitters:
            for name, accounts in emitter.accounts().items():
                by_sink.setdefault(name, []).append(accounts)
        with self._lock:
            # What never came to an emitter is missing at each of its sinks.
            after = self._after.snapshot()
        return {
            name: summed([*parts, after]) for name, parts in (by_sink or {_NOWHERE: []}).items()
        }

    def _tell(self, answer: "Future[AccountsBySink]") -> None:
        try:
            self._drain()
            answer.set_result(self._accounts())
        except Exception as error:  # noqa: BLE001 - it is the asker's
            answer.set_exception(error)

    def _end_loop(self) -> None:
        assert self._stop is not None  # noqa: S101 - set before the loop is known
        self._stop.set()

    async def _take_over(self, parent: Path) -> None:
        """Deliver what other processes left behind, one folder after the other."""
        pause_s = _FIRST_LOOK_S
        while True:
            await asyncio.sleep(pause_s)
            try:
                slot = claim_left(parent)
                if slot is not None:
                    self._slots.append(slot)
                    await self._deliver_left(slot)
            except (OSError, SpoolError):
                log.exception("a folder that another process left cannot be taken over")
            pause_s = _LOOK_S

    async def _deliver_left(self, slot: Slot) -> None:
        emitter = self._make(slot.folder)
        await emitter.start()
        self._emitters.append(emitter)
        while any(accounts.pending for accounts in emitter.accounts().values()):  # noqa: ASYNC110 - counters have no event to wait for
            await asyncio.sleep(_DRAINED_S)
        await emitter.flush(_MARGIN_S)
        slot.close()
