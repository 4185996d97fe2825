"""Copies of what a relay passes on, bounded, handed to the tap when the client has its answer."""

import asyncio
import logging
import time

from sidelight.logger._connections import Connections, Limits
from sidelight.logger._exchange import Exchange, Tap
from sidelight.logger._http_head import RequestHead

log = logging.getLogger(__name__)


class Kept:
    """The beginning of a body, and how much more there was.

    Parameters
    ----------
    limits : Limits
        Bounds of one body and of all together.
    connections : Connections
        Counts what all together keep.

    Attributes
    ----------
    cut : int
        Bytes that were not kept.
    """

    __slots__ = ("_connections", "_limit", "_limit_of_all", "_parts", "_size", "cut")

    def __init__(self, limits: Limits, connections: Connections) -> None:
        self._limit = limits.capture_limit
        self._limit_of_all = limits.max_captured_bytes
        self._connections = connections
        self._parts: list[bytes] = []
        self._size = 0
        self.cut = 0

    def add(self, data: bytes) -> None:
        """Keep as much of this as there is room for; nothing behind a cut."""
        connections = self._connections
        size = len(data)
        room = min(self._limit - self._size, self._limit_of_all - connections.captured_bytes)
        if size > room or self.cut:
            room = 0 if self.cut else max(room, 0)
            self.cut += size - room
            data = data[:room]
            size = room
        if size:
            self._size += size
            connections.captured_bytes += size
            self._parts.append(data)

    def take(self) -> bytes:
        """Give out what was kept."""
        kept = b"".join(self._parts)
        self.clear()
        return kept

    def clear(self) -> None:
        """Forget everything."""
        self._connections.captured_bytes -= self._size
        self._parts.clear()
        self._size = 0
        self.cut = 0


class Capture:
    """Follows the exchanges of one client connection, one after the other.

    Parameters
    ----------
    tap : Tap
        Asked whether it wants an exchange, then offered it.
    limits : Limits
        Bounds of what is kept.
    connections : Connections
        Counts what was captured and what the tap spoiled.

    Attributes
    ----------
    request, response : Kept
        The bodies of the exchange in work.
    """

    __slots__ = (
        "_arrived",
        "_connections",
        "_head",
        "_loop",
        "_passed_on",
        "_started",
        "_started_ns",
        "_tap",
        "request",
        "response",
    )

    def __init__(self, tap: Tap, *, limits: Limits, connections: Connections) -> None:
        self._tap = tap
        self._connections = connections
        self._loop = asyncio.get_running_loop()
        self._head: RequestHead | None = None
        self._started = 0.0
        self._started_ns = 0
        self._passed_on = 0.0
        self._arrived = 0.0
        self.request = Kept(limits, connections)
        self.response = Kept(limits, connections)

    def begin(self, head: RequestHead) -> bool:
        """Begin an exchange, if the tap wants it."""
        try:
            wanted = self._tap.wants(head.method, head.target, head.raw)
        except Exception:
            self._connections.tap_errors += 1
            log.exception("tap failed to say what it wants")
            return False
        if wanted:
            self._head = head
            self._started_ns = time.time_ns()
            self._started = self._passed_on = self._arrived = time.perf_counter()
        return wanted

    def passed_on(self) -> None:
        """Note that the request is on its way to the upstream."""
        self._passed_on = time.perf_counter()

    def arrived(self) -> None:
        """Note that a piece of the answer has come."""
        self._arrived = time.perf_counter()

    def end(self, status: int, response_head: bytes) -> None:
        """End the exchange and offer it, after what was written for the client is on its way."""
        head = self._head
        if head is None:
            return
        self._head = None
        now = time.perf_counter()
        elapsed = now - self._started
        added_s = self._passed_on - self._started
        if self._arrived > self._passed_on:
            added_s += now - self._arrived
        request = self.request
        response = self.response
        request_cut = request.cut
        response_cut = response.cut
        exchange = Exchange(
            method=head.method,
            target=head.target,
            request_head=head.raw,
            request_body=request.take(),
            response_head=response_head,
            response_body=response.take(),
            status=status,
            started_ns=self._started_ns,
            finished_ns=self._started_ns + int(elapsed * 1e9),
            latency_ms=elapsed * 1e3,
            request_cut=request_cut,
            response_cut=response_cut,
            added_s=added_s,
        )
        # uvloop writes at the end of the turn, so an offer made now would delay the answer.
        self._loop.call_soon(self._offer, exchange)

    def _offer(self, exchange: Exchange) -> None:
        try:
            self._tap.offer(exchange)
        except Exception:
            self._connections.tap_errors += 1
            log.exception("tap failed to take an exchange")
        else:
            self._connections.captured += 1
