"""Upstreams and clients that misbehave on purpose, or are slower than the other side."""

import asyncio
import contextlib
import http.client
import http.server
import json
import socket
import threading
import time

import pytest
from tests.logger.relayed import (
    GET,
    OK,
    PATIENCE_S,
    Keep,
    Script,
    answering,
    proxied,
    read_all,
    read_request,
    read_until,
    refused_port,
    reset_at_close,
    scripted,
)

from sidelight.logger._connections import Limits

# Smuggling.


@pytest.mark.parametrize(
    "request_",
    [
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nX: a\r\n b\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nX: \x00\r\n\r\n",
    ],
)
def test_ambiguous_request_never_reaches_the_upstream(request_: bytes) -> None:
    tap = Keep()
    with proxied(refused_port(), tap=tap) as proxy, proxy.connect() as client:
        client.sendall(request_ + b"0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = read_all(client)

        assert proxy.connections.refused == 1
        assert proxy.upstream.open_connections == 0
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1 ") == 1
    assert tap.exchanges == []


def test_bad_chunk_is_refused_and_the_upstream_is_cut() -> None:
    asked = threading.Event()
    cut = threading.Event()

    async def script(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"3\r\nabc\r\n")
        asked.set()
        try:
            assert await reader.read() == b""
        finally:
            cut.set()

    tap = Keep()
    with scripted(script) as port, proxied(port, tap=tap) as proxy, proxy.connect() as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        client.sendall(b"3\r\nabc\r\n")
        assert asked.wait(PATIENCE_S)
        client.sendall(b"3\nabc\r\n0\r\n\r\n")
        answer = read_all(client)
        assert cut.wait(PATIENCE_S)
        exchange = tap.wait()[0]

    assert answer.startswith(b"HTTP/1.1 400 ")
    assert exchange.status == 400


# Upstreams that fail.


def test_upstream_that_is_down_is_502() -> None:
    tap = Keep()
    with proxied(refused_port(), tap=tap) as proxy, proxy.connect() as client:
        for number in (1, 2):
            client.sendall(GET)
            answer = http.client.HTTPResponse(client)
            answer.begin()
            assert answer.status == 502
            assert answer.getheader("content-type") == "application/problem+json"
            assert json.loads(answer.read())["title"] == "Bad Gateway"
            assert tap.wait(number)[-1].status == 502

        assert proxy.connections.upstream_errors == 2


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"SSH-2.0-OpenSSH_9\r\n\r\n", id="another protocol"),
        pytest.param(b"-ERR unknown command\r\n", id="another protocol that waits for more"),
        pytest.param(b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok", id="lines that end with LF"),
        pytest.param(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 65536, id="an endless head"),
        pytest.param(b"HTTP/1.1 101 Go\r\n\r\n", id="a switch nobody asked for"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", id="bad chunks"
        ),
    ],
)
def test_upstream_whose_answer_cannot_be_read_is_502(answer: bytes) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(answer)
        await reader.read()

    tap = Keep()
    with scripted(script) as port, proxied(port, tap=tap) as proxy, proxy.connect() as client:
        client.sendall(GET)
        got = client.recv(65536)

        assert tap.wait()[0].status == 502
    assert got.startswith(b"HTTP/1.1 502 ")


def test_chunk_that_cannot_be_read_cuts_the_client() -> None:
    good = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"
    read = threading.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(good)
        await asyncio.get_running_loop().run_in_executor(None, read.wait, PATIENCE_S)
        writer.write(b"xyz\r\n")
        await reader.read()

    tap = Keep()
    with scripted(script) as port, proxied(port, tap=tap) as proxy, proxy.connect() as client:
        client.sendall(GET)
        assert read_until(client, b"abc\r\n") == good
        read.set()
        assert read_all(client) == b""
        exchange = tap.wait()[0]

    assert (exchange.status, exchange.response_body) == (502, b"abc")
    assert exchange.aborted_by == "upstream"


def test_upstream_that_is_silent_is_504() -> None:
    async def script(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    tap = Keep()
    limits = Limits(answer_s=0.05)
    with (
        scripted(script) as port,
        proxied(port, tap=tap, limits=limits) as proxy,
        proxy.connect() as client,
    ):
        client.sendall(GET)
        answer = client.recv(65536)

        assert tap.wait()[0].status == 504
    assert answer.startswith(b"HTTP/1.1 504 ")


@pytest.mark.parametrize(
    ("part", "status"),
    [
        pytest.param(b"", 502, id="before a byte"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-", 502, id="in the head"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel", 200, id="in the body"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel", 200, id="in a chunk"
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n",
            200,
            id="before the last chunk",
        ),
    ],
)
def test_upstream_that_dies_is_recorded(part: bytes, status: int) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(part)

    tap = Keep()
    with scripted(script) as port, proxied(port, tap=tap) as proxy, proxy.connect() as client:
        client.sendall(b"POST /p HTTP/1.1\r\nHost: x\r\nConnection: close\r\n")
        client.sendall(b"Content-Length: 2\r\n\r\nab")
        answer = read_all(client)
        exchange = tap.wait()[0]

    assert exchange.status == 502
    assert exchange.aborted_by == ("upstream" if status == 200 else "")
    assert exchange.request_body == b"ab"
    assert exchange.response_body == (b"hel" if status == 200 else b"")
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert not answer.endswith(b"0\r\n\r\n")


def _closes_the_second_time(seen: list[bytes]) -> Script:
    """Answer once on each connection, and hang up on what follows without a word."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await read_request(reader))
        writer.write(OK)
        await read_request(reader)

    return script


def test_request_that_may_be_repeated_is_sent_again_when_the_connection_was_stale() -> None:
    seen: list[bytes] = []
    with (
        scripted(_closes_the_second_time(seen)) as port,
        proxied(port) as proxy,
        proxy.connect() as client,
    ):
        for _ in range(2):
            client.sendall(GET)
            assert read_until(client, b"ok") == OK

        assert proxy.connections.retried == 1
    assert seen == [GET, GET]


def test_request_that_may_not_be_repeated_is_502_when_the_connection_was_stale() -> None:
    post = b"POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nab"
    seen: list[bytes] = []
    tap = Keep()
    with (
        scripted(_closes_the_second_time(seen)) as port,
        proxied(port, tap=tap) as proxy,
        proxy.connect() as client,
    ):
        client.sendall(post)
        assert read_until(client, b"ok") == OK
        client.sendall(post)
        assert client.recv(65536).startswith(b"HTTP/1.1 502 ")

        assert [exchange.status for exchange in tap.wait(2)] == [200, 502]
        assert proxy.connections.retried == 0
    assert seen == [post]


def test_request_on_a_fresh_connection_is_not_sent_again() -> None:
    seen: list[bytes] = []

    async def script(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        seen.append(await read_request(reader))

    with scripted(script) as port, proxied(port) as proxy, proxy.connect() as client:
        client.sendall(GET)
        assert client.recv(65536).startswith(b"HTTP/1.1 502 ")

    assert seen == [GET]


def test_connection_that_hung_up_while_idle_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidelight.logger._upstream_link._SURELY_FRESH_S", 0.0)
    post = b"POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nab"

    closed = threading.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(OK)
        writer.close()
        await writer.wait_closed()
        closed.set()

    with scripted(script) as port, proxied(port) as proxy, proxy.connect() as client:
        for _ in range(20):
            closed.clear()
            go = proxy.block()
            client.sendall(post)
            go.set()
            assert read_until(client, b"ok") == OK
            assert closed.wait(PATIENCE_S)


# Clients that fail.


def test_client_that_goes_away_is_recorded_with_499_and_the_upstream_is_cut() -> None:
    asked = threading.Event()
    cut = threading.Event()

    async def script(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await read_request(reader)
        asked.set()
        try:
            await reader.read()
        finally:
            cut.set()

    tap = Keep()
    with scripted(script) as port, proxied(port, tap=tap) as proxy:
        with proxy.connect() as client:
            client.sendall(b"POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nab")
            assert asked.wait(PATIENCE_S)
            reset_at_close(client)
        exchange = tap.wait()[0]
        assert cut.wait(PATIENCE_S)

    assert (exchange.status, exchange.aborted_by) == (499, "client")
    assert (exchange.request_body, exchange.response_head) == (b"ab", b"")


def test_client_that_goes_away_while_connecting_leaves_the_connection_to_others() -> None:
    tap = Keep()
    with scripted(answering(OK)) as port, proxied(port, tap=tap) as proxy:
        with proxy.connect() as client:
            client.sendall(GET)
            reset_at_close(client)
        tap.wait()
        with proxy.connect() as client:
            client.sendall(GET)
            assert read_until(client, b"ok") == OK


# Back-pressure.


def test_slow_client_stops_the_upstream() -> None:
    written = 0
    total = 200
    piece = b"x" * 1_000_000

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (total * len(piece)))
        for _ in range(total):
            writer.write(piece)
            await writer.drain()
            written += 1

    with scripted(script) as port, proxied(port) as proxy, proxy.connect() as client:
        client.sendall(GET)
        before = -1
        while written != before or written == 0:
            before = written
            time.sleep(0.1)
        assert written < total / 2
        received = len(client.recv(65536, socket.MSG_WAITALL))
        while piece_ := client.recv(1_000_000):
            received += len(piece_)
            if received >= total * len(piece):
                break

    assert written == total


def test_slow_upstream_stops_the_client() -> None:
    go = threading.Event()
    total = 200_000_000

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.get_running_loop().run_in_executor(None, go.wait)
        left = total
        while left:
            left -= len(await reader.read(1_000_000))
        writer.write(OK)

    with scripted(script) as port, proxied(port) as proxy, proxy.connect() as client:
        client.sendall(b"POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % total)
        client.settimeout(0.3)
        sent = 0
        with contextlib.suppress(TimeoutError):
            while True:
                sent += client.send(b"x" * 1_000_000)
        assert sent < total / 2
        go.set()
        client.settimeout(PATIENCE_S)
        while sent < total:
            sent += client.send(b"x" * min(1_000_000, total - sent))
        assert read_until(client, b"ok") == OK


def test_connections_to_the_upstream_are_bounded() -> None:
    busy = 0
    most = 0
    all_there = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal busy, most
        while True:
            await read_request(reader)
            busy += 1
            most = max(most, busy)
            if busy == 3:
                all_there.set()
            await all_there.wait()
            # One more than there may be would have the time to come.
            await asyncio.sleep(0.002)
            busy -= 1
            writer.write(OK)

    with scripted(script) as port, proxied(port, max_connections=3) as proxy:
        clients = [proxy.connect() for _ in range(12)]
        for _ in range(3):
            for client in clients:
                client.sendall(GET)
            for client in clients:
                assert read_until(client, b"ok") == OK
        for client in clients:
            client.close()

        assert proxy.upstream.open_connections <= 3
    assert most == 3
