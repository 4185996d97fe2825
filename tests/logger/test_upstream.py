"""The pool of connections to the upstream."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvloop

from sidelight.logger._upstream import Upstream
from sidelight.logger._upstream_link import Link


class User:
    """Learns what becomes of it."""

    def __init__(self) -> None:
        self.link: asyncio.Future[Link] = asyncio.get_running_loop().create_future()

    def linked(self, link: Link) -> None:
        self.link.set_result(link)

    def unlinked(self, error: OSError | TimeoutError) -> None:
        self.link.set_exception(error)

    def response_data(self, data: bytes) -> None:
        raise AssertionError(data)

    def link_lost(self, exc: Exception | None) -> None:
        raise AssertionError(exc)

    def link_full(self) -> None:
        raise AssertionError

    def link_ready(self) -> None:
        raise AssertionError


class _Peer(asyncio.Protocol):
    def __init__(self, transports: list[Any]) -> None:
        self._transports = transports

    def connection_made(self, transport: Any) -> None:
        self._transports.append(transport)


@asynccontextmanager
async def peered(**options: Any) -> AsyncIterator[tuple[Upstream, list[Any]]]:
    transports: list[Any] = []
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Peer(transports), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    upstream = Upstream("127.0.0.1", port, **{"connect_s": 60.0} | options)
    try:
        yield upstream, transports
    finally:
        await upstream.close()
        for transport in transports:
            transport.abort()
        server.close()
        await asyncio.sleep(0)


async def _linked(upstream: Upstream) -> Link:
    user = User()
    link = upstream.take(user)
    return link if link is not None else await user.link


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not holds():  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0)


async def _last_one_in_is_the_first_one_out() -> None:
    async with peered() as (upstream, _):
        first = await _linked(upstream)
        second = await _linked(upstream)
        first.release(keep_alive=True)
        second.release(keep_alive=True)

        assert upstream.idle_connections == 2
        assert await _linked(upstream) is second


async def _no_more_than_the_bound_are_kept() -> None:
    async with peered(max_idle=1) as (upstream, _):
        links = [await _linked(upstream) for _ in range(3)]
        for link in links:
            link.release(keep_alive=True)

        assert upstream.idle_connections == 1
        await _until(lambda: upstream.open_connections == 1)


async def _old_connection_is_not_used() -> None:
    async with peered(keep_s=-1.0) as (upstream, _):
        link = await _linked(upstream)
        link.release(keep_alive=True)
        link.mark_idle(0.0)

        assert await _linked(upstream) is not link


async def _connection_that_the_kernel_knows_to_be_closed_is_not_used() -> None:
    async with peered() as (upstream, transports):
        link = await _linked(upstream)
        await _until(lambda: len(transports) == 1)
        link.release(keep_alive=True)
        now = asyncio.get_running_loop().time()

        assert not link.is_stale(now + 1.0, 30.0)
        # The loop does not turn in between: only the kernel can know.
        fileno = transports[0].get_extra_info("socket").fileno()
        _shut_down(fileno)
        assert link.is_stale(now + 1.0, 30.0)


def _shut_down(fileno: int) -> None:
    with socket.socket(fileno=os.dup(fileno)) as peer:
        peer.shutdown(socket.SHUT_RDWR)


async def _idle_connection_that_speaks_is_ended() -> None:
    async with peered() as (upstream, transports):
        link = await _linked(upstream)
        link.release(keep_alive=True)
        await _until(lambda: len(transports) == 1)
        transports[0].write(b"HTTP/1.1 408 Too Late\r\n\r\n")

        await _until(lambda: upstream.open_connections == 0)
        assert upstream.idle_connections == 0


async def _one_that_waits_gets_what_another_gives_back() -> None:
    async with peered(max_connections=1) as (upstream, _):
        link = await _linked(upstream)
        first, second = User(), User()
        assert upstream.take(first) is None
        assert upstream.take(second) is None
        upstream.cancel(first)
        link.release(keep_alive=True)

        assert await second.link is link
        assert not first.link.done()


async def _one_that_waits_gets_a_fresh_one_when_another_ends() -> None:
    async with peered(max_connections=1) as (upstream, _):
        link = await _linked(upstream)
        user = User()
        assert upstream.take(user) is None
        link.release(keep_alive=False)

        assert await user.link is not link
        assert upstream.open_connections == 1


async def _those_that_wait_learn_that_nobody_listens() -> None:
    async with peered() as (upstream, _):
        port = upstream._port
    upstream = Upstream("127.0.0.1", port, max_connections=1, connect_s=60)
    users = [User(), User()]
    for user in users:
        upstream.take(user)

    for user in users:
        with pytest.raises(ConnectionRefusedError):
            await user.link
    assert upstream.open_connections == 0


async def _one_that_is_being_connected_learns_of_the_end() -> None:
    async with peered() as (upstream, _):
        user = User()
        upstream.take(user)
        await asyncio.sleep(0)
        await upstream.close()

        with pytest.raises(ConnectionAbortedError):
            await user.link
        assert upstream.open_connections == 0


@pytest.mark.parametrize("run", [uvloop.run, asyncio.run], ids=["uvloop", "asyncio"])
@pytest.mark.parametrize(
    "scenario",
    [
        _last_one_in_is_the_first_one_out,
        _no_more_than_the_bound_are_kept,
        _old_connection_is_not_used,
        _connection_that_the_kernel_knows_to_be_closed_is_not_used,
        _idle_connection_that_speaks_is_ended,
        _one_that_waits_gets_what_another_gives_back,
        _one_that_waits_gets_a_fresh_one_when_another_ends,
        _those_that_wait_learn_that_nobody_listens,
        _one_that_is_being_connected_learns_of_the_end,
    ],
)
def test_pool_on_either_loop(
    run: Callable[[Any], None], scenario: Callable[[], Awaitable[None]]
) -> None:
    run(scenario())
