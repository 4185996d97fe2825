"""Relaying between peers that we did not write, and upstreams that misbehave on purpose."""

import asyncio
import contextlib
import http.client
import http.server
import json
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
import uvicorn
import uvloop

from sidelight.logger._connection import Connection
from sidelight.logger._connections import Connections, Limits
from sidelight.logger._exchange import Exchange
from sidelight.logger._http import Request, Respond
from sidelight.logger._upstream import Upstream

_GET = b"GET /p HTTP/1.1\r\nHost: x\r\n\r\n"
_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
# What is passed on is compared byte for byte.
_EXACT = Limits(gives_request_id=False)


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
            assert self._changed.wait_for(lambda: len(self.exchanges) >= count, 10)
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
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def block(self) -> threading.Event:
        """Stop the loop until the event is set: what comes meanwhile comes at once."""
        go = threading.Event()
        self._loop.call_soon_threadsafe(go.wait, 10)
        return go

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=10)


@contextmanager
def proxied(
    port: int | None = None, *, tap: Any = None, limits: Limits | None = None, **options: Any
) -> Iterator[Proxy]:
    host = "127.0.0.1" if port is not None else None
    upstream = Upstream(host, port, **options)
    proxy = Proxy(upstream, tap, limits if limits is not None else _EXACT)
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
        asyncio.run_coroutine_threadsafe(close(), loop).result(10)
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


# Upstreams of others.


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        body = json.dumps({"path": self.path, "headers": self.headers.items()}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Set-Cookie", "a=1")
        self.send_header("Set-Cookie", "b=2")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815 - the standard library looks for it

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(201)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class _OldHandler(_Handler):
    protocol_version = "HTTP/1.0"

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"until close")


@contextmanager
def standard_server(handler: type[_Handler]) -> Iterator[int]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


async def _app(scope: Any, receive: Any, send: Any) -> None:
    """Echo in chunks, or stream events until the client has read each."""
    if scope["type"] != "http":
        return
    event = await receive()
    body = event["body"]
    while event.get("more_body"):
        event = await receive()
        body += event["body"]
    headers = [(b"content-type", b"text/event-stream")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for start in range(0, len(body), 100_000):
        piece = body[start : start + 100_000]
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


@pytest.fixture(scope="module")
def uvicorn_port() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        config = uvicorn.Config(_app, lifespan="off", log_level="error", ws="none")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield listener.getsockname()[1]
        server.should_exit = True
        thread.join()


def test_standard_server_is_reached_by_httpx() -> None:
    tap = Keep()
    with (
        standard_server(_Handler) as port,
        proxied(port, tap=tap) as proxy,
        httpx.Client(base_url=f"http://127.0.0.1:{proxy.port}", trust_env=False) as client,
    ):
        got = client.get("/a?b=c", headers=[("X-Two", "1"), ("X-Two", "2")])
        posted = client.post("/p", content=b"hello")
        head = client.head("/h")
        exchanges = tap.wait(3)

    assert got.headers.get_list("set-cookie") == ["a=1", "b=2"]
    assert got.json()["path"] == "/a?b=c"
    sent = [tuple(header) for header in got.json()["headers"]]
    assert [name for name, _ in sent] == [
        "Host", "Accept", "Accept-Encoding", "User-Agent", "X-Two", "X-Two"
    ]  # fmt: skip
    assert (posted.status_code, posted.content) == (201, b"hello")
    assert (head.status_code, head.content) == (200, b"")
    assert [exchange.status for exchange in exchanges] == [200, 201, 200]
    assert exchanges[1].request_body == exchanges[1].response_body == b"hello"
    assert exchanges[2].response_body == b""


def test_answer_without_length_ends_with_the_connection() -> None:
    tap = Keep()
    with standard_server(_OldHandler) as port, proxied(port, tap=tap) as proxy:
        with proxy.connect() as client:
            client.sendall(_GET)
            answer = read_all(client)
        exchange = tap.wait()[0]

    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\nConnection: close\r\n" in answer
    assert answer.endswith(b"\r\n\r\nuntil close")
    assert exchange.response_body == b"until close"
    assert exchange.response_head.startswith(b"HTTP/1.0 200 OK\r\n")


@pytest.mark.parametrize("size", [0, 1, 100_000, 5_000_001])
def test_chunked_bodies_go_both_ways_through_uvicorn(uvicorn_port: int, size: int) -> None:
    body = os.urandom(size)
    pieces = [body[start : start + 70_000] for start in range(0, size, 70_000)]
    tap = Keep()
    with (
        proxied(uvicorn_port, tap=tap) as proxy,
        httpx.Client(base_url=f"http://127.0.0.1:{proxy.port}", trust_env=False) as client,
    ):
        answer = client.post("/echo", content=iter(pieces))
        exchange = tap.wait()[0]

    assert answer.headers["transfer-encoding"] == "chunked"
    assert answer.content == body
    assert exchange.request_body == body
    assert exchange.response_body == body


def test_version_1_0_gets_no_chunks(uvicorn_port: int) -> None:
    with proxied(uvicorn_port) as proxy, proxy.connect() as client:
        client.sendall(b"POST /echo HTTP/1.0\r\nContent-Length: 5\r\n\r\nhello")
        head, _, body = read_all(client).partition(b"\r\n\r\n")

    assert b"transfer-encoding" not in head.lower()
    assert b"\r\nConnection: close" in head
    assert body == b"hello"


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
@pytest.mark.parametrize(
    "options",
    [
        pytest.param(["-H", "Expect: 100-continue"], id="waits for 100"),
        pytest.param(["-H", "Transfer-Encoding: chunked"], id="chunked"),
        pytest.param(["-H", "Transfer-Encoding: chunked", "-H", "Expect: 100-continue"], id="both"),
        pytest.param(["--http1.0"], id="1.0"),
        pytest.param(["-H", "Connection: close"], id="close"),
    ],
)
def test_curl_gets_its_body_back(uvicorn_port: int, tmp_path: Path, options: list[str]) -> None:
    body = tmp_path / "body"
    body.write_bytes(os.urandom(200_000))
    with proxied(uvicorn_port) as proxy:
        url = f"http://127.0.0.1:{proxy.port}/echo"
        command = ["curl", "-sS", "--noproxy", "*", "--max-time", "20", *options]
        # Unasked, curl sends the body after that many seconds.
        command += ["--expect100-timeout", "10"]
        began = time.monotonic()
        ended = subprocess.run(
            [*command, "--data-binary", f"@{body}", url, url], capture_output=True, check=True
        )

    assert ended.stdout == body.read_bytes() * 2
    assert time.monotonic() - began < 10


# What is passed on, and what is not.


def test_heads_are_passed_on_byte_for_byte() -> None:
    seen: list[bytes] = []
    head = b"GET /p?q=%20 HTTP/1.1\r\nhOST:x\r\nX-A:  1 \r\nx-a: 2\r\nX-\xc3: \r\n\r\n".replace(
        b"X-\xc3", b"X-B"
    )
    answer = b"HTTP/1.1 299 Odd Reason\r\nx-Z:1\r\nX-z: \xe4\r\ncontent-length:2\r\n\r\nok"

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            seen.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(answer)

    with scripted(script) as port, proxied(port) as proxy, proxy.connect() as client:
        for _ in range(2):
            client.sendall(head)
            assert read_until(client, b"ok") == answer

    assert seen == [head, head]


def test_events_are_passed_on_one_by_one() -> None:
    read = threading.Semaphore(0)

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for number in range(3):
            writer.write(b"8\r\ndata: %d\n\r\n" % number)
            await asyncio.get_running_loop().run_in_executor(None, read.acquire)
        writer.write(b"0\r\n\r\n")

    with scripted(script) as port, proxied(port) as proxy, proxy.connect() as client:
        client.sendall(_GET)
        for number in range(3):
            read_until(client, b"data: %d\n\r\n" % number)
            read.release()
        read_until(client, b"0\r\n\r\n")


def test_request_body_is_passed_on_before_it_is_whole() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        assert await reader.readexactly(8) == b"3\r\nabc\r\n"
        writer.write(b"HTTP/1.1 103 Early\r\nX: y\r\n\r\n")
        assert await reader.readexactly(5) == b"0\r\n\r\n"
        writer.write(_OK)

    with scripted(script) as port, proxied(port) as proxy, proxy.connect() as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        client.sendall(b"3\r\nabc\r\n")
        assert read_until(client, b"\r\n\r\n") == b"HTTP/1.1 103 Early\r\nX: y\r\n\r\n"
        client.sendall(b"0\r\n\r\n")
        assert read_until(client, b"ok") == _OK


def test_refusal_before_the_body_reaches_a_client_that_waits_for_continue() -> None:
    refusal = b"HTTP/1.1 417 No\r\nContent-Length: 2\r\n\r\nno"
    tap = Keep()
    with (
        scripted(answering_heads(refusal)) as port,
        proxied(port, tap=tap) as proxy,
        proxy.connect() as client,
    ):
        client.sendall(
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
        )
        answer = read_all(client)
        exchange = tap.wait()[0]

    assert answer == refusal.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    assert (exchange.status, exchange.request_body) == (417, b"")
    # What never came is missing: nobody may take the rest for all that was asked.
    assert (exchange.request_cut, exchange.request_digest) == (5, b"")


@pytest.mark.parametrize(
    ("length", "body", "missing"),
    [
        pytest.param(b"Content-Length: 50", b"a,b\n1,2\n", 42, id="a length"),
        pytest.param(b"Transfer-Encoding: chunked", b"8\r\na,b\n1,2\n\r\n", 1, id="chunks"),
    ],
)
def test_a_request_whose_client_went_away_in_its_middle_is_cut(
    length: bytes, body: bytes, missing: int
) -> None:
    tap = Keep()
    with scripted(answering_heads(b"")) as port, proxied(port, tap=tap) as proxy:
        with proxy.connect() as client:
            client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\n" + length + b"\r\n\r\n" + body)
        exchange = tap.wait()[0]

    assert (exchange.status, exchange.aborted_by) == (499, "client")
    assert exchange.request_body == b"a,b\n1,2\n"
    assert (exchange.request_cut, exchange.request_digest) == (missing, b"")


def answering_heads(answer: bytes) -> Script:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await reader.read()

    return script


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"HTTP/1.1 204 No\r\n\r\n", id="204"),
        pytest.param(b"HTTP/1.1 304 No\r\nContent-Length: 5\r\n\r\n", id="304 with a length"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", id="empty"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", id="no chunk"
        ),
    ],
)
def test_answers_without_body_keep_both_connections(answer: bytes) -> None:
    with scripted(answering(answer)) as port, proxied(port) as proxy, proxy.connect() as client:
        for _ in range(3):
            client.sendall(_GET)
            assert read_until(client, answer) == answer

        assert proxy.upstream.open_connections == 1


def test_pipelined_requests_are_answered_in_order() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            request = await read_request(reader)
            target = request.split()[1]
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(target) + target)

    stream = b"".join(b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % number for number in range(500))
    with scripted(script) as port, proxied(port) as proxy, proxy.connect() as client:
        client.sendall(stream)
        answer = read_until(client, b"/499")

        assert proxy.upstream.open_connections == 1
    bodies = [part.partition(b"HTTP")[0] for part in answer.split(b"\r\n\r\n")[1:]]
    assert bodies == [b"/%d" % number for number in range(500)]


@pytest.mark.parametrize("path", [None, "upstream.sock"])
def test_upgraded_connection_is_a_tunnel(path: str | None, tmp_path: Path) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await read_request(reader)
        assert b"\r\nUpgrade: echo\r\n" in request
        assert b"\r\nConnection: Upgrade\r\n" in request
        writer.write(b"HTTP/1.1 101 Go\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n<")
        while data := await reader.read(65536):
            writer.write(data)

    tap = Keep()
    socket_path = str(tmp_path / path) if path is not None else None
    with (
        scripted(script, path=socket_path) as port,
        proxied(port if path is None else None, path=socket_path, tap=tap) as proxy,
        proxy.connect() as client,
    ):
        client.sendall(
            b"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n>"
        )
        read_until(client, b"\r\n\r\n<>")
        client.sendall(b"\x00\xff not HTTP")
        assert read_until(client, b"HTTP") == b"\x00\xff not HTTP"
        client.shutdown(socket.SHUT_WR)
        assert read_all(client) == b""

    assert [exchange.status for exchange in tap.exchanges] == [101]


def test_upgrade_that_is_declined_is_an_answer_like_others() -> None:
    with scripted(answering(_OK)) as port, proxied(port) as proxy, proxy.connect() as client:
        for _ in range(2):
            client.sendall(
                b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
            )
            assert read_until(client, b"ok") == _OK


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
        assert asked.wait(10)
        client.sendall(b"3\nabc\r\n0\r\n\r\n")
        answer = read_all(client)
        assert cut.wait(10)
        exchange = tap.wait()[0]

    assert answer.startswith(b"HTTP/1.1 400 ")
    assert exchange.status == 400


# Upstreams that fail.


def test_upstream_that_is_down_is_502() -> None:
    tap = Keep()
    with proxied(refused_port(), tap=tap) as proxy, proxy.connect() as client:
        for number in (1, 2):
            client.sendall(_GET)
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
        client.sendall(_GET)
        got = client.recv(65536)

        assert tap.wait()[0].status == 502
    assert got.startswith(b"HTTP/1.1 502 ")


def test_chunk_that_cannot_be_read_cuts_the_client() -> None:
    good = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"
    read = threading.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(good)
        await asyncio.get_running_loop().run_in_executor(None, read.wait, 10)
        writer.write(b"xyz\r\n")
        await reader.read()

    tap = Keep()
    with scripted(script) as port, proxied(port, tap=tap) as proxy, proxy.connect() as client:
        client.sendall(_GET)
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
        client.sendall(_GET)
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
        writer.write(_OK)
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
            client.sendall(_GET)
            assert read_until(client, b"ok") == _OK

        assert proxy.connections.retried == 1
    assert seen == [_GET, _GET]


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
        assert read_until(client, b"ok") == _OK
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
        client.sendall(_GET)
        assert client.recv(65536).startswith(b"HTTP/1.1 502 ")

    assert seen == [_GET]


def test_connection_that_hung_up_while_idle_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidelight.logger._upstream_link._SURELY_FRESH_S", 0.0)
    post = b"POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nab"

    closed = threading.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(_OK)
        writer.close()
        await writer.wait_closed()
        closed.set()

    with scripted(script) as port, proxied(port) as proxy, proxy.connect() as client:
        for _ in range(20):
            closed.clear()
            go = proxy.block()
            client.sendall(post)
            go.set()
            assert read_until(client, b"ok") == _OK
            assert closed.wait(10)


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
            assert asked.wait(10)
            reset_at_close(client)
        exchange = tap.wait()[0]
        assert cut.wait(10)

    assert (exchange.status, exchange.aborted_by) == (499, "client")
    assert (exchange.request_body, exchange.response_head) == (b"ab", b"")


def test_client_that_goes_away_while_connecting_leaves_the_connection_to_others() -> None:
    tap = Keep()
    with scripted(answering(_OK)) as port, proxied(port, tap=tap) as proxy:
        with proxy.connect() as client:
            client.sendall(_GET)
            reset_at_close(client)
        tap.wait()
        with proxy.connect() as client:
            client.sendall(_GET)
            assert read_until(client, b"ok") == _OK


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
        client.sendall(_GET)
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
        writer.write(_OK)

    with scripted(script) as port, proxied(port) as proxy, proxy.connect() as client:
        client.sendall(b"POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % total)
        client.settimeout(0.3)
        sent = 0
        with contextlib.suppress(TimeoutError):
            while True:
                sent += client.send(b"x" * 1_000_000)
        assert sent < total / 2
        go.set()
        client.settimeout(10)
        while sent < total:
            sent += client.send(b"x" * min(1_000_000, total - sent))
        assert read_until(client, b"ok") == _OK


def test_connections_to_the_upstream_are_bounded() -> None:
    busy = 0
    most = 0
    lock = threading.Lock()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal busy, most
        while True:
            await read_request(reader)
            with lock:
                busy += 1
                most = max(most, busy)
            await asyncio.sleep(0.002)
            with lock:
                busy -= 1
            writer.write(_OK)

    with scripted(script) as port, proxied(port, max_connections=3) as proxy:
        clients = [proxy.connect() for _ in range(12)]
        for _ in range(3):
            for client in clients:
                client.sendall(_GET)
            for client in clients:
                assert read_until(client, b"ok") == _OK
        for client in clients:
            client.close()

        assert proxy.upstream.open_connections <= 3
    assert most == 3


# The tap.


def test_tap_is_asked_first_and_gets_only_what_it_wants() -> None:
    tap = Keep()
    with (
        scripted(answering(_OK)) as port,
        proxied(port, tap=tap) as proxy,
        proxy.connect() as client,
    ):
        client.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        read_until(client, b"ok")
        client.sendall(_GET)
        read_until(client, b"ok")
        exchanges = tap.wait()

    assert [exchange.target for exchange in exchanges] == [b"/p"]


def test_exchange_has_raw_heads_and_times() -> None:
    tap = Keep()
    before = time.time_ns()
    head = b"GET /p HTTP/1.1\r\nHost: x\r\nConnection: keep-alive\r\n\r\n"
    answer = b"HTTP/1.1 200 OK\r\nKeep-Alive: timeout=5\r\nContent-Length: 2\r\n\r\n"
    with (
        scripted(answering(answer + b"ok")) as port,
        proxied(port, tap=tap) as proxy,
        proxy.connect() as client,
    ):
        client.sendall(head)
        passed_on = read_until(client, b"ok")
        exchange = tap.wait()[0]

    assert passed_on == _OK
    assert (exchange.method, exchange.target) == (b"GET", b"/p")
    assert (exchange.request_head, exchange.response_head) == (head, answer)
    assert before <= exchange.started_ns <= exchange.finished_ns <= time.time_ns()
    elapsed_ms = (exchange.finished_ns - exchange.started_ns) / 1e6
    assert exchange.latency_ms == pytest.approx(elapsed_ms, abs=1e-3)
    assert 0 < exchange.added_s * 1e3 < exchange.latency_ms


def test_slow_model_is_not_counted_as_added_by_the_proxy() -> None:
    tap = Keep()
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        # The slowness is the subject here, not a way to wait for something.
        await asyncio.sleep(0.3)
        writer.write(answer + b"ok")

    with (
        scripted(script) as port,
        proxied(port, tap=tap) as proxy,
        proxy.connect() as client,
    ):
        client.sendall(b"GET /p HTTP/1.1\r\nHost: x\r\n\r\n")
        read_until(client, b"ok")
        exchange = tap.wait()[0]

    assert exchange.latency_ms >= 300
    assert exchange.added_s < 0.25


def test_bodies_beyond_the_bound_are_forwarded_and_counted(uvicorn_port: int) -> None:
    body = os.urandom(300_000)
    tap = Keep()
    with (
        proxied(uvicorn_port, tap=tap, limits=Limits(capture_limit=1000)) as proxy,
        httpx.Client(base_url=f"http://127.0.0.1:{proxy.port}", trust_env=False) as client,
    ):
        answer = client.post("/echo", content=body)
        small = client.post("/echo", content=body[:10])
        exchange, after = tap.wait(2)

    assert (answer.content, small.content) == (body, body[:10])
    assert exchange.request_body == exchange.response_body == body[:1000]
    assert exchange.request_cut == exchange.response_cut == 299_000
    assert (after.request_body, after.request_cut) == (body[:10], 0)


def wait_for(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_all_exchanges_in_work_share_one_bound() -> None:
    body = os.urandom(30_000)
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 30000\r\n\r\n"
    tap = Keep()
    with (
        scripted(answering(_OK)) as port,
        proxied(port, tap=tap, limits=replace(_EXACT, max_captured_bytes=25_000)) as proxy,
        proxy.connect() as first,
        proxy.connect() as second,
    ):
        first.sendall(head + body[:20_000])
        wait_for(lambda: proxy.connections.captured_bytes == 20_000)
        second.sendall(head + body[:20_000])
        wait_for(lambda: proxy.connections.captured_bytes == 25_000)
        for client in (second, first):
            client.sendall(body[20_000:])
            assert read_until(client, b"ok") == _OK
            tap.wait(1 + (client is first))
        late, early = tap.wait(2)

        assert proxy.connections.captured_bytes == 0
    assert (late.request_body, late.request_cut) == (body[:5_000], 25_000)
    assert (early.request_body, early.request_cut) == (body[:25_000], 5_000)


class _Broken:
    def __init__(self, *, wants: bool) -> None:
        self._wants = wants

    def wants(self, method: bytes, target: bytes, head: bytes) -> bool:
        if not self._wants:
            raise ZeroDivisionError(method, target, head)
        return True

    def offer(self, exchange: Exchange) -> None:
        raise ZeroDivisionError(exchange)


@pytest.mark.parametrize("wants", [True, False])
def test_tap_that_raises_is_counted_and_nobody_notices(*, wants: bool) -> None:
    with (
        scripted(answering(_OK)) as port,
        proxied(port, tap=_Broken(wants=wants)) as proxy,
        proxy.connect() as client,
    ):
        for _ in range(3):
            client.sendall(_GET)
            assert read_until(client, b"ok") == _OK

        assert proxy.connections.captured == 0
    assert proxy.connections.tap_errors == 3


class _Slow(Keep):
    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()

    def offer(self, exchange: Exchange) -> None:
        assert self.go.wait(10)
        super().offer(exchange)


def test_answer_does_not_wait_for_the_tap() -> None:
    tap = _Slow()
    with (
        scripted(answering(_OK)) as port,
        proxied(port, tap=tap) as proxy,
        proxy.connect() as client,
    ):
        client.sendall(_GET)
        assert read_until(client, b"ok") == _OK
        assert tap.exchanges == []
        tap.go.set()
        tap.wait()


def test_upstream_is_given_in_one_way() -> None:
    with pytest.raises(ValueError, match="exactly one"):
        Upstream("127.0.0.1")
    with pytest.raises(ValueError, match="exactly one"):
        Upstream("127.0.0.1", 80, path="/x")
    with pytest.raises(ValueError, match="exactly one"):
        Upstream()
