"""Relaying between peers that we did not write: everything is passed on as it came."""

import asyncio
import http.client
import http.server
import json
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
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
    scripted,
)

from sidelight.logger._connections import Limits

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
        config = uvicorn.Config(
            _app, lifespan="off", log_level="error", ws="none", timeout_keep_alive=3600
        )
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
        httpx.Client(
            base_url=f"http://127.0.0.1:{proxy.port}", trust_env=False, timeout=PATIENCE_S
        ) as client,
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
            client.sendall(GET)
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
        httpx.Client(
            base_url=f"http://127.0.0.1:{proxy.port}", trust_env=False, timeout=PATIENCE_S
        ) as client,
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
        command = ["curl", "-sS", "--noproxy", "*", "--max-time", "120", *options]
        # Unasked, curl sends the body after that many seconds, which are more than it has.
        command += ["--expect100-timeout", "3600"]
        ended = subprocess.run(
            [*command, "--data-binary", f"@{body}", url, url], capture_output=True, check=True
        )

    assert ended.stdout == body.read_bytes() * 2


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
        client.sendall(GET)
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
        writer.write(OK)

    with scripted(script) as port, proxied(port) as proxy, proxy.connect() as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        client.sendall(b"3\r\nabc\r\n")
        assert read_until(client, b"\r\n\r\n") == b"HTTP/1.1 103 Early\r\nX: y\r\n\r\n"
        client.sendall(b"0\r\n\r\n")
        assert read_until(client, b"ok") == OK


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
            client.sendall(GET)
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
    with scripted(answering(OK)) as port, proxied(port) as proxy, proxy.connect() as client:
        for _ in range(2):
            client.sendall(
                b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
            )
            assert read_until(client, b"ok") == OK


def test_bodies_beyond_the_bound_are_forwarded_and_counted(uvicorn_port: int) -> None:
    body = os.urandom(300_000)
    tap = Keep()
    with (
        proxied(uvicorn_port, tap=tap, limits=Limits(capture_limit=1000)) as proxy,
        httpx.Client(
            base_url=f"http://127.0.0.1:{proxy.port}", trust_env=False, timeout=PATIENCE_S
        ) as client,
    ):
        answer = client.post("/echo", content=body)
        small = client.post("/echo", content=body[:10])
        exchange, after = tap.wait(2)

    assert (answer.content, small.content) == (body, body[:10])
    assert exchange.request_body == exchange.response_body == body[:1000]
    assert exchange.request_cut == exchange.response_cut == 299_000
    assert (after.request_body, after.request_cut) == (body[:10], 0)
