"""A relay in a thread of its own, between a client of the test and an upstream that it scripts."""

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import uvloop

from sidelight.logger._connection import Connection
from sidelight.logger._connections import Connections, Limits
from sidelight.logger._exchange import Exchange
from sidelight.logger._http import Request, Respond
from sidelight.logger._upstream import Upstream

GET = b"GET /p HTTP/1.1\r\nHost: x\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
# What is passed on is compared byte for byte.
EXACT = Limits(gives_request_id=False, linger_s=3600)
# No machine stalls for so long.
PATIENCE_S = 60.0


class PassOn:
    """Relays everything."""

    def admit(self, method: bytes, target: bytes, head: bytes) -> int | bytes | None:
        del method, target, head
        return None

    def handle(self, request: Request, respond: Respond) -> None:
        raise AssertionError(request, respond)


class Keep:
    """Keeps what it is offered; `wait` gives it out when enough has come."""

    def __init__(self) -> None:
        self.exchanges: list[Exchange] = []
        self._changed = threading.Condition()

    def wants(self, method: bytes, target: bytes, head: bytes) -> bool:
        del method, head
        return target != b"/health"

    def offer(self, exchange: Exchange) -> None:
        with self._changed:
            self.exchanges.append(exchange)
            self._changed.notify_all()

    def wait(self, count: int = 1) -> list[Exchange]:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.exchanges) >= count, PATIENCE_S)
        return self.exchanges


class Proxy:
    """A relay that listens on a free port, on its own loop in a thread."""

    def __init__(self, upstream: Upstream, tap: Any, limits: Limits) -> None:
        self.connections = Connections()
        self.upstream = upstream
        self._make = lambda: Connection(
            PassOn(), upstream, tap, limits=limits, connections=self.connections
        )
        self._loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
        self._server = self._loop.run_until_complete(self._listen())
        self.port: int = cast("asyncio.Server", self._server).sockets[0].getsockname()[1]
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

    async def _listen(self) -> asyncio.AbstractServer:
        return await self._loop.create_server(self._make, "127.0.0.1", 0)

    async def _close(self) -> None:
        self._server.close()
        await self.connections.drain(0)
        await self.upstream.close()
        # uvloop refuses to close a loop whose transports have not said that they are lost.
        while len(self.connections):  # noqa: ASYNC110 - turns of the loop, not a poll
            await asyncio.sleep(0)
        await asyncio.sleep(0)

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(PATIENCE_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def block(self) -> threading.Event:
        """Stop the loop until the event is set: what comes meanwhile comes at once."""
        go = threading.Event()
        self._loop.call_soon_threadsafe(go.wait, PATIENCE_S)
        return go

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S)


@contextmanager
def proxied(
    port: int | None = None, *, tap: Any = None, limits: Limits | None = None, **options: Any
) -> Iterator[Proxy]:
    host = "127.0.0.1" if port is not None else None
    upstream = Upstream(host, port, connect_s=PATIENCE_S, keep_s=3600, **options)
    proxy = Proxy(upstream, tap, limits if limits is not None else EXACT)
    try:
        yield proxy
    finally:
        proxy.close()


Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextmanager
def scripted(script: Script, *, path: str | None = None) -> Iterator[int]:
    """Run an upstream that does with each connection what the script says."""
    loop = asyncio.new_event_loop()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                await script(reader, writer)
        finally:
            writer.close()

    async def listen() -> asyncio.Server:
        if path is not None:
            return await asyncio.start_unix_server(serve, path)
        return await asyncio.start_server(serve, "127.0.0.1", 0)

    async def close() -> None:
        server.close()
        # A connection that has just been accepted gets its task some turns later, and one that is
        # cancelled before it began would leave it open.
        for _ in range(6):
            await asyncio.sleep(0)
        tasks = asyncio.all_tasks() - {cast("asyncio.Task[Any]", asyncio.current_task())}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    server = loop.run_until_complete(listen())
    port = server.sockets[0].getsockname()[1] if path is None else 0
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield port
    finally:
        asyncio.run_coroutine_threadsafe(close(), loop).result(PATIENCE_S)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def read_request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return head + await reader.readexactly(int(line.partition(b":")[2]))
    return head


def answering(answer: bytes) -> Script:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_request(reader)
            writer.write(answer)

    return script


def read_all(client: socket.socket) -> bytes:
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := client.recv(65536):
            data += piece
    return data


def read_until(client: socket.socket, end: bytes) -> bytes:
    data = b""
    while not data.endswith(end):
        piece = client.recv(65536)
        assert piece, data
        data += piece
    return data


def reset_at_close(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


def refused_port() -> int:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return int(unused.getsockname()[1])


def wait_for(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)
