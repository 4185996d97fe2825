"""The model server behind the proxy: a bounded pool of connections that are kept for the next."""

import asyncio
import select
import socket as sockets
from collections import deque
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

    __slots__ = ("_idle_since", "_upstream", "last_head", "transport", "user", "was_used")

    transport: asyncio.Transport

    def __init__(self, upstream: "Upstream") -> None:
        self._upstream = upstream
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
        self._upstream.forget(self)
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
            self._upstream.keep(self)
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


class Upstream:
    """Where relayed requests go.

    Parameters
    ----------
    host : str, optional
        Name or address, with `port`.
    port : int, optional
        TCP port.
    path : str, optional
        Path of a Unix socket, instead of host and port.
    max_connections : int, default 256
        More are never open; further requests wait for one, in order.
    max_idle : int, default 64
        More are not kept.
    keep_s : float, default 30
        How long an idle connection is trusted, seconds.
    connect_s : float, default 5
        How long connecting may take, seconds.

    Raises
    ------
    ValueError
        If there is not exactly one of host with port, or path.
    """

    def __init__(
        self,
        host: str | None = None,
        port: int | None = None,
        *,
        path: str | None = None,
        max_connections: int = 256,
        max_idle: int = 64,
        keep_s: float = 30.0,
        connect_s: float = 5.0,
    ) -> None:
        is_tcp = host is not None and port is not None
        if is_tcp == (path is not None):
            raise ValueError(
                "an upstream is reached by host and port or by the path of a Unix socket, got "
                f"host={host!r}, port={port!r}, path={path!r}; give exactly one of them"
            )
        self._host = host
        self._port = port
        self._path = path
        self._max_connections = max_connections
        self._max_idle = max_idle
        self._keep_s = keep_s
        self._connect_s = connect_s
        self._idle: list[Link] = []
        self._open = 0
        self._waiting: deque[Using] = deque()
        self._connecting: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def open_connections(self) -> int:
        """Connections that are open or being opened."""
        return self._open

    @property
    def idle_connections(self) -> int:
        """Connections that wait for a request."""
        return len(self._idle)

    def take(self, user: Using) -> Link | None:
        """Give a waiting connection at once, or None and later call `linked` or `unlinked`."""
        link = self._pop_idle()
        if link is not None:
            link.user = user
            return link
        self.connect(user)
        return None

    def connect(self, user: Using) -> None:
        """Make a fresh connection, or wait for one in line, and call `linked` or `unlinked`."""
        if self._open >= self._max_connections:
            self._waiting.append(user)
            return
        self._open += 1
        task = self._running_loop().create_task(self._connect(user))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    def cancel(self, user: Using) -> None:
        """Forget one that waits in line; one that is being connected must say no by itself."""
        if user in self._waiting:
            self._waiting.remove(user)

    def keep(self, link: Link) -> None:
        """Take back a connection that can be used again."""
        if self._waiting:
            self._give(link, self._waiting.popleft())
        elif len(self._idle) < self._max_idle:
            link.mark_idle(self._running_loop().time())
            self._idle.append(link)
        else:
            link.transport.close()

    def forget(self, link: Link) -> None:
        """Strike out a connection that has ended."""
        self._open -= 1
        if link in self._idle:
            self._idle.remove(link)
        if self._waiting and self._open < self._max_connections:
            self.connect(self._waiting.popleft())

    async def close(self) -> None:
        """End all connections that wait and give up those being made."""
        for link in self._idle:
            link.transport.close()
        self._idle.clear()
        for task in tuple(self._connecting):
            task.cancel()
        await asyncio.gather(*self._connecting, return_exceptions=True)

    def _pop_idle(self) -> Link | None:
        idle = self._idle
        if idle:
            now = self._running_loop().time()
            # The last one in is the warmest; behind a stale one there are only older ones.
            while idle:
                link = idle.pop()
                if not link.is_stale(now, self._keep_s):
                    return link
                link.transport.close()
        return None

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
        return loop

    @staticmethod
    def _give(link: Link, user: Using) -> None:
        link.user = user
        user.linked(link)

    async def _connect(self, user: Using) -> None:
        loop = self._running_loop()
        link = Link(self)
        try:
            async with asyncio.timeout(self._connect_s):
                if self._path is not None:
                    await loop.create_unix_connection(lambda: link, self._path)
                else:
                    await loop.create_connection(lambda: link, self._host, self._port)
        except (OSError, TimeoutError) as error:
            self._open -= 1
            user.unlinked(error)
            if self._waiting and self._open < self._max_connections:
                self.connect(self._waiting.popleft())
        except asyncio.CancelledError:
            self._open -= 1
            user.unlinked(ConnectionAbortedError("the upstream is being closed"))
            raise
        else:
            if link.transport.is_closing():
                user.unlinked(ConnectionResetError("closed as soon as it was open"))
            else:
                self._give(link, user)
