"""The model server behind the proxy: a bounded pool of connections that are kept for the next."""

import asyncio
import ssl
from collections import deque

from sidelight.logger._upstream_link import Link, Using


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
    tls : ssl.SSLContext, optional
        With it the upstream is spoken to by TLS. The context says what is trusted and what is
        presented; ``ssl.create_default_context()`` checks certificate and name.
    server_name : str, optional
        Name that the certificate must be for, and that is asked for; default `host`.
    max_connections : int, default 256
        More are never open; further requests wait for one, in order.
    max_idle : int, default 64
        More are not kept.
    keep_s : float, default 30
        How long an idle connection is trusted, seconds.
    connect_s : float, default 5
        How long connecting may take, seconds.
    hint : str, optional
        What a client is told to do when nothing comes back from there.

    Raises
    ------
    ValueError
        If there is not exactly one of host with port, or path; or if a server name is given
        without TLS, or TLS on a Unix socket has none.
    """

    def __init__(  # noqa: PLR0913 - one address and what it takes to reach it
        self,
        host: str | None = None,
        port: int | None = None,
        *,
        path: str | None = None,
        tls: ssl.SSLContext | None = None,
        server_name: str | None = None,
        max_connections: int = 256,
        max_idle: int = 64,
        keep_s: float = 30.0,
        connect_s: float = 5.0,
        hint: str = "see whether the model server runs, is healthy and speaks HTTP/1.1",
    ) -> None:
        is_tcp = host is not None and port is not None
        if is_tcp == (path is not None):
            raise ValueError(
                "an upstream is reached by host and port or by the path of a Unix socket, got "
                f"host={host!r}, port={port!r}, path={path!r}; give exactly one of them"
            )
        if (server_name is not None and tls is None) or (
            tls is not None and path is not None and server_name is None
        ):
            raise ValueError(
                "an upstream's server name goes with TLS, and on a Unix socket TLS needs one, got "
                f"tls={tls!r}, server_name={server_name!r}; give both"
            )
        self._host = host
        self._port = port
        self._path = path
        self._tls = tls
        self._server_name = (server_name or host) if tls is not None else None
        self._max_connections = max_connections
        self._max_idle = max_idle
        self._keep_s = keep_s
        self._connect_s = connect_s
        self.hint = hint
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
        tls, name = self._tls, self._server_name
        try:
            async with asyncio.timeout(self._connect_s):
                if self._path is not None:
                    await loop.create_unix_connection(
                        lambda: link, self._path, ssl=tls, server_hostname=name
                    )
                else:
                    assert self._host is not None  # noqa: S101 - one of both, says the constructor
                    await loop.create_connection(
                        lambda: link, self._host, self._port or 0, ssl=tls, server_hostname=name
                    )
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
