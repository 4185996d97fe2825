"""The tap's other end: captured exchanges become events, which every outlet delivers."""

import asyncio
import logging
from bisect import bisect_left
from collections.abc import Iterable
from typing import Final, Self

from sidelight.logger._accounting import BUCKETS_S, Accounting, Accounts, AddedTime, combined
from sidelight.logger._accounting_text import capture_metrics
from sidelight.logger._emitter_capture import Capture
from sidelight.logger._emitter_pair import Encoder, EventPair
from sidelight.logger._exchange import Exchange
from sidelight.logger._outlet import EmitterLimits, Outlet, SpoolFolder, check_outlets
from sidelight.logger._outlet_lane import Lane, close_sink
from sidelight.logger._sampling import Sampling
from sidelight.logger._selection import Selection
from sidelight.logger._sink import Sink
from sidelight.logger.errors import SpoolError

log = logging.getLogger(__name__)

_REPLACING_GRACE_S: Final = 4.0
# A disk that is slow gets that, before what it did not take is given up.
_DISK_PATIENCE_S: Final = 30.0


class Emitter:
    """Deliver captured exchanges in order, at least once, without ever holding up the traffic.

    Every outlet has its own position: its own events that wait, its own pauses, its own disk and
    its own account. An exchange is encoded once, when the first of them needs its events.

    Make and use it on one event loop. ``start`` begins to deliver, ``flush`` ends it.

    Parameters
    ----------
    outlets : iterable of Outlet
        At least one; names and spool folders differ.
    capture : Capture, optional
        How exchanges become events.
    sampling : Sampling, optional
        Which of them are kept; all without one.
    selection : Selection, optional
        What is captured at all.
    seed : int, optional
        Of the jitter, for tests.

    Raises
    ------
    ValueError
        When there is no outlet, or two have one name or folder.
    SpoolError
        When a spool cannot be had.

    """

    def __init__(
        self,
        outlets: Iterable[Outlet],
        *,
        capture: Capture | None = None,
        sampling: Sampling | None = None,
        selection: Selection | None = None,
        seed: int | None = None,
    ) -> None:
        self._added = AddedTime()
        self._capture = capture or Capture()
        self._encoder = Encoder(self._capture)
        self._sampling = sampling
        self._selection = selection or Selection()
        self._seed = seed
        self._is_closing = False
        self._replacing = asyncio.Lock()
        self._books: dict[str, Accounting] = {}
        # Removed, but not at their end, or with events left in their folders.
        self._former: list[Lane] = []
        self._lanes: tuple[Lane, ...] = tuple(map(self._lane, check_outlets(outlets)))
        for lane in self._lanes:
            if lane.outlet.spool is not None:
                lane.attach(lane.outlet.spool.open())

    @classmethod
    def of(
        cls,
        sink: Sink,
        *,
        spool: SpoolFolder | None = None,
        limits: EmitterLimits | None = None,
        capture: Capture | None = None,
        seed: int | None = None,
    ) -> Self:
        """Return one with a single outlet, named ``sink``; without a spool the newest drop."""
        outlet = Outlet(
            name="sink",
            sink=sink,
            overflow="drop_newest" if spool is None else "spool",
            spool=spool,
            limits=limits or EmitterLimits(),
        )
        return cls([outlet], capture=capture, seed=seed)

    def wants(self, method: bytes, target: bytes, head: bytes) -> bool:
        """Whether the exchange that begins with this head is captured; see ``Tap``."""
        return self._selection.captures(method, target, head)

    def offer(self, exchange: Exchange) -> None:
        """Take one exchange; see ``Tap``. Encoding waits until the events are needed."""
        added_s = exchange.added_s
        # As a method of its own it would be a tenth of all that is done here.
        self._added.counts[bisect_left(BUCKETS_S, added_s)] += 1
        self._added.total_s += added_s
        rate = 1.0 if self._sampling is None else self._rate_of(exchange, self._sampling)
        if rate is None:
            for lane in self._lanes:
                lane.accounting.see(2)
                lane.accounting.sample_out(2)
            return
        pair = EventPair(exchange, rate)
        for lane in self._lanes:
            lane.put(pair)

    def reconfigure(
        self,
        *,
        capture: Capture | None,
        sampling: Sampling | None,
        selection: Selection | None,
    ) -> None:
        """Use these from now on, all three as in ``Emitter``.

        What waits in memory as it was captured is encoded, so redacted, by the new ``capture``.
        """
        self._capture = self._encoder.capture = capture or Capture()
        self._sampling = sampling
        self._selection = selection or Selection()

    async def start(self) -> None:
        """Begin to deliver, with what the spools hold from before."""
        for lane in self._lanes:
            await lane.start()

    async def replace_outlets(
        self, outlets: Iterable[Outlet], *, grace_s: float = _REPLACING_GRACE_S
    ) -> None:
        """Deliver to these from now on; nothing that is offered meanwhile is missed.

        An outlet that is the same as one in use (``Outlet.is_same``) goes on as it is, with what
        waits for it. A new one gets what is offered from now on, and sends it when what was there
        before has ended. What cannot be sent to a removed one within the grace stays in its spool
        folder and in its account as pending, until an outlet with that folder comes: with the
        same name it carries the account on, with another one it counts these events as its own.

        Parameters
        ----------
        outlets : iterable of Outlet
            As for ``Emitter``.
        grace_s : float, default 4.0
            For what removed ones still send, seconds; a slow disk may take longer.

        Raises
        ------
        ValueError
            When the outlets cannot be; nothing was changed.
        SpoolError
            When a spool cannot be had; its outlet works without one, dropping the newest.

        """
        given = check_outlets(outlets)
        async with self._replacing:
            if self._is_closing:
                return
            before = {lane.outlet.name: lane for lane in self._lanes}
            lanes = []
            unused = []
            for outlet in given:
                lane = before.get(outlet.name)
                if lane is not None and lane.outlet.is_same(outlet):
                    if lane.outlet.sink is not outlet.sink:
                        unused.append(outlet)
                    del before[outlet.name]
                    lanes.append(lane)
                else:
                    lanes.append(self._lane(outlet))
            fresh = [lane for lane in lanes if lane not in self._lanes]
            self._former += before.values()
            self._lanes = tuple(lanes)
            await asyncio.gather(
                *map(close_sink, unused),
                *(
                    lane.flush(grace_s, disk_s=_DISK_PATIENCE_S, reason="outlet_removed")
                    for lane in before.values()
                ),
            )
            errors = [await self._begin(lane) for lane in fresh]
            self._former = [lane for lane in self._former if len(lane.backlog)]
            for error in filter(None, errors):
                raise error

    async def flush(self, grace_s: float = 10.0) -> None:
        """Send what can be sent, keep the rest in the spools, and end within the grace.

        Parameters
        ----------
        grace_s : float, default 10.0
            Seconds. A quarter of it, at most two, is left for the disk.

        """
        self._is_closing = True
        loop = asyncio.get_running_loop()
        deadline = loop.time() + grace_s
        try:
            # Outlets that are being replaced: what the new ones got needs their spool.
            async with asyncio.timeout(grace_s / 2), self._replacing:
                pass
        except TimeoutError:
            log.exception("outlets are still being replaced")
        rest_s = max(0.0, deadline - loop.time())
        await asyncio.gather(*(lane.flush(rest_s) for lane in self._lanes))

    def accounts(self) -> dict[str, Accounts]:
        """Return the numbers of this moment for each outlet, by name; removed ones stay."""
        parts = {name: [book.snapshot()] for name, book in self._books.items()}
        for lane in (*self._former, *self._lanes):
            parts[lane.outlet.name].append(lane.accounts())
        return {name: combined(of_name) for name, of_name in parts.items()}

    def prometheus(self, *, namespace: str, deployment: str) -> bytes:
        """Return the metrics in the Prometheus text format 0.0.4.

        Parameters
        ----------
        namespace, deployment : str
            Labels of every sample; ``deployment`` is the bare name.

        """
        return capture_metrics(
            self.accounts(), self._added, namespace=namespace, deployment=deployment
        )

    def _rate_of(self, exchange: Exchange, sampling: Sampling) -> float | None:
        capture = self._capture
        return sampling.rate_of(
            exchange, capture.identify(exchange), capture.deployment_of(exchange)
        )

    def _lane(self, outlet: Outlet) -> Lane:
        book = self._books.setdefault(outlet.name, Accounting())
        return Lane(outlet, self._encoder, book, seed=self._seed)

    async def _begin(self, lane: Lane) -> SpoolError | None:
        error = None
        if lane.outlet.spool is not None:
            try:
                spool = await lane.backlog.on_disk(lane.outlet.spool.open)
            except SpoolError as caught:
                log.exception("an outlet has no spool", extra={"sink": lane.outlet.name})
                lane.accounting.fail_spool()
                error = caught
            else:
                lane.attach(spool, n_known=self._hand_over(lane))
        await lane.start()
        return error

    def _hand_over(self, lane: Lane) -> int:
        """Return how many events in the folder of a lane its account counts already."""
        n_known = 0
        for former in self._former:
            if _folder(former) == _folder(lane):
                n_left = former.backlog.forget_spool()
                if former.accounting is lane.accounting:
                    n_known += n_left
                else:
                    former.accounting.drop(n_left, "outlet_removed")
        return n_known


def _folder(lane: Lane) -> str:
    return str(lane.outlet.spool.folder.absolute()) if lane.outlet.spool is not None else ""
