"""One connection to the upstream: fresh, in use for one request, or waiting for the next."""

import asyncio
import select
import socket as sockets
from typing import Final, Protocol

from sidelight.logger._http_head import ResponseHead

# Ours: the keep-alive times that servers come with begin at two seconds (gunicorn; uvicorn and
# Node have five), so nobody hangs up on a connection that was used just now.
_SURELY_FRESH_S: Final = 0.5

_QUICK_ACK: Final[int | None] = getattr(sockets, "TCP_QUICKACK", None)


class Using(Protocol):
    """What an upstream's connection works for at the moment."""

    def linked(self, link: "Link") -> None:
        """Take the connection that was asked for."""
        ...

    def unlinked(self, error: OSError | TimeoutError) -> None:
        """Learn that no connection could be made."""
        ...

    def response_data(self, data: bytes) -> None:
        """Take what the upstream sent."""
        ...

    def link_lost(self, exc: Exception | None) -> None:
        """Learn that the upstream closed (None) or cut the connection."""
        ...

    def link_full(self) -> None:
        """Stop sending: the upstream does not read."""
        ...

    def link_ready(self) -> None:
        """Go on sending."""
        ...


class Pool(Protocol):
    """Where a connection comes from and goes back to."""

    def keep(self, link: "Link") -> None:
        """Take back a connection that can be used again."""
        ...

    def forget(self, link: "Link") -> None:
        """Strike out a connection that has ended."""
        ...


class Link(asyncio.Protocol):
    """One connection to the upstream; it works for one request at a time, then waits.

    Attributes
    ----------
    user : Using or None
        Whose answer is awaited.
    was_used : bool
        Whether it has carried an answer before, and so can have gone stale.
    last_head : ResponseHead or None
        Of the answer before: the usual upstream repeats itself.
    """

    __slots__ = ("_idle_since", "_pool", "last_head", "transport", "user", "was_used")

    transport: asyncio.Transport

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._idle_since = 0.0
        self.user: Using | None = None
        self.was_used = False
        self.last_head: ResponseHead | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self.transport = transport  # type: ignore[assignment]  # connections make full transports

    def data_received(self, data: bytes) -> None:
        """Pass on what came; what nobody asked for ends the connection."""
        user = self.user
        if user is not None:
            user.response_data(data)
        else:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        user, self.user = self.user, None
        self._pool.forget(self)
        if user is not None:
            user.link_lost(exc)

    def pause_writing(self) -> None:
        """Tell the user to stop sending."""
        if self.user is not None:
            self.user.link_full()

    def resume_writing(self) -> None:
        """Tell the user to go on."""
        if self.user is not None:
            self.user.link_ready()

    def release(self, *, keep_alive: bool) -> None:
        """Give the connection back after a whole answer; without keep-alive, or cut, it ends."""
        self.user = None
        self.was_used = True
        if keep_alive and not self.transport.is_closing():
            self._pool.keep(self)
        else:
            self.transport.close()

    def drop(self) -> None:
        """Cut the connection: what it would still bring, nobody wants."""
        self.user = None
        self.transport.abort()

    def hasten(self) -> None:
        """Acknowledge at once what came: the rest of an answer may be waiting for that.

        A server that writes head and body apart, with Nagle's algorithm on, sends the body only
        when its kernel has the acknowledgement of the head, which ours delays by 40 ms.
        """
        socket = self.transport.get_extra_info("socket")
        if _QUICK_ACK is not None and socket is not None and socket.family != sockets.AF_UNIX:
            socket.setsockopt(sockets.IPPROTO_TCP, _QUICK_ACK, 1)

    def mark_idle(self, now: float) -> None:
        """Remember since when it waits."""
        self._idle_since = now

    def is_stale(self, now: float, keep_s: float) -> bool:
        """Whether it cannot be trusted with another request."""
        if self.transport.is_closing():
            return True
        idle_s = now - self._idle_since
        if idle_s < _SURELY_FRESH_S:
            return False
        return idle_s > keep_s or self._has_hung_up()

    def _has_hung_up(self) -> bool:
        # The kernel may know of the upstream's end before the loop has heard of it. Asking costs
        # a microsecond and spares a request that may not be sent twice.
        socket = self.transport.get_extra_info("socket")
        if socket is None:
            return True
        poll = select.poll()
        poll.register(socket.fileno(), select.POLLIN)
        return bool(poll.poll(0))
