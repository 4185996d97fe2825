"""What becomes of one exchange over real sockets: its id, its end, its failures, its digests."""

import asyncio
import hashlib
import http.client
import os
import re
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, closing, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvloop

from sidelight.logger._connection import Connection
from sidelight.logger._connections import Connections, Limits
from sidelight.logger._exchange import Exchange
from sidelight.logger._http import Request, Respond
from sidelight.logger._upstream import Upstream

_POST = b"POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n"
_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
# What a stalled machine could reach is not what is tried here.
_EXACT = Limits(gives_request_id=False, linger_s=3600)

Reader = asyncio.StreamReader
Writer = asyncio.StreamWriter
Script = Callable[[Reader, Writer], Awaitable[None]]


class _PassOn:
    def admit(self, method: bytes, target: bytes, head: bytes) -> int | bytes | None:
        del method, target, head
        return None

    def handle(self, request: Request, respond: Respond) -> None:
        raise AssertionError(request, respond)


class _Keep:
    def __init__(self) -> None:
        self.exchanges: asyncio.Queue[Exchange] = asyncio.Queue()

    def wants(self, method: bytes, target: bytes, head: bytes) -> bool:
        del method, target, head
        return True

    def offer(self, exchange: Exchange) -> None:
        self.exchanges.put_nowait(exchange)


class _Relay:
    """A proxy with a tap, before an upstream that does what the script says."""

    def __init__(self, port: int, connections: Connections, tap: _Keep) -> None:
        self.port = port
        self.connections = connections
        self._tap = tap

    async def connect(self) -> tuple[Reader, Writer]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def ask(self, request: bytes) -> bytes:
        """Send a request, say no more, and read all that comes."""
        reader, writer = await self.connect()
        writer.write(request)
        writer.write_eof()
        answer = await reader.read()
        writer.close()
        return answer

    async def exchange(self) -> Exchange:
        async with asyncio.timeout(60):
            return await self._tap.exchanges.get()


@asynccontextmanager
async def _relaying(
    script: Script | None, limits: Limits = _EXACT, upstream: Upstream | None = None
) -> AsyncIterator[_Relay]:
    """Without a script nobody listens."""
    tasks: set[asyncio.Task[Any]] = set()

    async def serve(reader: Reader, writer: Writer) -> None:
        tasks.add(asyncio.current_task())  # type: ignore[arg-type]  # this is one
        assert script is not None
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await script(reader, writer)
        with suppress(ConnectionError):
            writer.close()
            await writer.wait_closed()

    async with AsyncExitStack() as stack:
        model = await asyncio.start_server(serve, "127.0.0.1", 0)
        stack.callback(model.close)
        port = model.sockets[0].getsockname()[1]
        if script is None:
            model.close()
            await model.wait_closed()
        upstream = upstream or Upstream("127.0.0.1", port, connect_s=60, keep_s=1e9)
        tap, connections = _Keep(), Connections()
        server = await asyncio.get_running_loop().create_server(
            lambda: Connection(_PassOn(), upstream, tap, limits=limits, connections=connections),
            "127.0.0.1",
            0,
        )
        try:
            yield _Relay(server.sockets[0].getsockname()[1], connections, tap)
        finally:
            server.close()
            await connections.drain(0)
            await upstream.close()
            # They have read the end of their connections by now; one that has just been accepted
            # begins some turns later.
            for _ in range(6):
                await asyncio.sleep(0)
            await asyncio.gather(*tasks)
            while len(connections):  # noqa: ASYNC110 - turns of the loop, not a poll
                await asyncio.sleep(0)


def _run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(120):
            await scenario()

    uvloop.run(bounded())


async def _request(reader: Reader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    return head + (await reader.readexactly(int(length[1])) if length else b"")


def _answering(*pieces: bytes, seen: list[bytes] | None = None) -> Script:
    async def script(reader: Reader, writer: Writer) -> None:
        while True:
            request = await _request(reader)
            if seen is not None:
                seen.append(request)
            for piece in pieces:
                writer.write(piece)
                await writer.drain()

    return script


def _post(body: bytes, headers: bytes = b"") -> bytes:
    return b"POST /p HTTP/1.1\r\nHost: x\r\n%bContent-Length: %d\r\n\r\n%b" % (
        headers,
        len(body),
        body,
    )


def _id_in(answer: bytes) -> bytes:
    found = re.findall(rb"\r\nX-Request-Id: ([^\r\n]*)\r\n", answer)
    assert len(found) == 1, answer
    return bytes(found[0])


# The id.


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param([_OK], id="in one piece"),
        pytest.param([_OK[:20], _OK[20:]], id="in two pieces"),
        pytest.param([b"HTTP/1.1 204 No\r\n\r\n"], id="without a body"),
        pytest.param([b"HTTP/1.1 200 OK\r\nKeep-Alive: 5\r\nContent-Length: 0\r\n\r\n"], id="hop"),
        pytest.param(
            [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"],
            id="in chunks",
        ),
    ],
)
def test_caller_without_an_id_is_given_one(answer: list[bytes]) -> None:
    async def scenario() -> None:
        async with _relaying(_answering(*answer), Limits()) as relay:
            got = [await relay.ask(_post(b"[1]")) for _ in range(2)]
            exchanges = [await relay.exchange() for _ in range(2)]

            ids = [_id_in(one) for one in got]
            assert ids == [one.request_id for one in exchanges]
            assert ids[0] != ids[1]
            plain = b"".join(answer).replace(b"Keep-Alive: 5\r\n", b"")
            for one, given in zip(got, ids, strict=True):
                assert one.replace(b"X-Request-Id: %b\r\n" % given, b"") == plain
            assert exchanges[0].response_head == plain[: plain.index(b"\r\n\r\n") + 4] or (
                b"Keep-Alive" in exchanges[0].response_head
            )

    _run(scenario)


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        pytest.param(_post(b"[1]", b"x-request-ID:  a b \r\n"), b"a b", id="X-Request-Id"),
        pytest.param(_post(b'{"id": "b"}', b"Ce-Id: e\r\n"), b"e", id="Ce-Id before the body"),
        pytest.param(_post(b"[1]", b"Seldon-Puid: p\r\n"), b"p", id="Seldon-Puid"),
        pytest.param(_post(b'{"id": "v2", "inputs": []}'), b"v2", id="V2 body"),
        pytest.param(_post(b'{"inputs": [], "id": "end"}'), b"end", id="at the end"),
    ],
)
def test_callers_own_id_is_taken_and_not_told_again(request_: bytes, expected: bytes) -> None:
    async def scenario() -> None:
        head, _, body = request_.partition(b"\r\n\r\n")
        async with _relaying(_answering(_OK), Limits()) as relay:
            assert await relay.ask(request_) == _OK
            assert (await relay.exchange()).request_id == expected
            # The same in pieces: only a whole body is looked at.
            reader, writer = await relay.connect()
            writer.write(head + b"\r\n\r\n" + body[:1])
            await writer.drain()
            await asyncio.sleep(0)
            writer.write(body[1:])
            assert await reader.readexactly(len(_OK)) == _OK
            assert (await relay.exchange()).request_id == expected
            writer.close()

    _run(scenario)


@pytest.mark.parametrize("name", [b"X-Request-Id", b"x-request-id"])
def test_models_own_id_stays_the_only_one(name: bytes) -> None:
    answer = b"HTTP/1.1 200 OK\r\n" + name + b": theirs\r\nContent-Length: 2\r\n\r\nok"

    async def scenario() -> None:
        async with _relaying(_answering(answer), Limits()) as relay:
            assert await relay.ask(_post(b"[1]")) == answer
            assert (await relay.exchange()).request_id == b"theirs"
            assert await relay.ask(_post(b"[1]", b"X-Request-Id: ours\r\n")) == answer
            assert (await relay.exchange()).request_id == b"ours"

    _run(scenario)


def test_empty_id_of_the_model_is_neither_used_nor_doubled() -> None:
    answer = b"HTTP/1.1 200 OK\r\nX-Request-Id:\r\nContent-Length: 2\r\n\r\nok"

    async def scenario() -> None:
        async with _relaying(_answering(answer), Limits()) as relay:
            assert await relay.ask(_post(b"[1]")) == answer
            assert (await relay.exchange()).request_id

    _run(scenario)


def test_request_that_is_answered_before_its_end_is_given_an_id() -> None:
    async def script(reader: Reader, writer: Writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(_OK)
        await reader.read()

    async def scenario() -> None:
        async with _relaying(script, Limits()) as relay:
            reader, writer = await relay.connect()
            writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
            answer = await reader.read()
            assert answer.endswith(b"\r\nConnection: close\r\n\r\nok")
            assert _id_in(answer) == (await relay.exchange()).request_id
            writer.close()

    _run(scenario)


def test_interim_answers_carry_no_id_and_do_not_settle_it() -> None:
    early = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"

    async def script(reader: Reader, writer: Writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(early)
        await reader.readuntil(b"}")
        writer.write(_OK)
        await reader.read()

    async def scenario() -> None:
        body = b'{"id": "later"}'
        async with _relaying(script, Limits()) as relay:
            reader, writer = await relay.connect()
            writer.write(_post(body, b"Expect: 100-continue\r\n").removesuffix(body))
            assert await reader.readexactly(len(early)) == early
            writer.write(body)
            assert await reader.readexactly(len(_OK)) == _OK
            assert (await relay.exchange()).request_id == b"later"
            writer.close()

    _run(scenario)


def test_error_of_ours_tells_the_id_as_well() -> None:
    async def scenario() -> None:
        async with _relaying(None, Limits()) as relay:
            answer = await relay.ask(_post(b"[1]"))
            assert answer.startswith(b"HTTP/1.1 502 ")
            assert _id_in(answer) == (await relay.exchange()).request_id

    _run(scenario)


def test_error_in_the_place_of_a_broken_answer_tells_the_id_as_well() -> None:
    broken = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n"

    async def scenario() -> None:
        async with _relaying(_answering(broken), Limits()) as relay:
            answer = await relay.ask(_post(b"[1]"))
            assert answer.startswith(b"HTTP/1.1 502 ")
            assert _id_in(answer) == (await relay.exchange()).request_id

    _run(scenario)


def test_answers_pass_unchanged_when_ids_are_not_given() -> None:
    async def scenario() -> None:
        async with _relaying(_answering(_OK)) as relay:
            assert await relay.ask(_post(b"[1]")) == _OK
            assert (await relay.exchange()).request_id == b""

    _run(scenario)


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(_post(b"[1]", b"X-Request-Id: same\r\n"), id="X-Request-Id"),
        pytest.param(_post(b"[1]", b"Ce-Id: same\r\n"), id="Ce-Id"),
        pytest.param(_post(b'{"id": "same", "inputs": []}'), id="V2 body"),
    ],
)
@pytest.mark.parametrize("gives", [True, False])
def test_no_callers_id_is_taken_where_none_is_trusted(request_: bytes, gives: bool) -> None:  # noqa: FBT001 - a parameter
    async def scenario() -> None:
        limits = Limits(trusts_request_ids=False, gives_request_id=gives)
        async with _relaying(_answering(_OK), limits) as relay:
            answers = [await relay.ask(request_) for _ in range(3)]
            ids = [(await relay.exchange()).request_id for _ in range(3)]
            assert len({*ids, b"", b"same"}) == 5
            assert ([_id_in(answer) for answer in answers] == ids) if gives else {*answers} == {_OK}

    _run(scenario)


def test_an_id_that_the_model_answers_with_is_not_taken_where_none_is_trusted() -> None:
    answer = b"HTTP/1.1 200 OK\r\nX-Request-Id: same\r\nContent-Length: 2\r\n\r\nok"

    async def scenario() -> None:
        async with _relaying(_answering(answer), Limits(trusts_request_ids=False)) as relay:
            assert await relay.ask(_post(b"[1]")) == answer
            assert (await relay.exchange()).request_id not in {b"", b"same"}

    _run(scenario)


# Clients that say no more, or are gone.


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_client_that_has_shut_its_half_gets_its_answer(version: bytes) -> None:
    async def script(reader: Reader, writer: Writer) -> None:
        await _request(reader)
        # The end of the client has come by then: the answer is what it has to wait for.
        await asyncio.sleep(0.05)
        writer.write(_OK)
        await reader.read()

    async def scenario() -> None:
        async with _relaying(script) as relay:
            answer = await relay.ask(b"POST / HTTP/%b\r\nHost: x\r\n\r\n" % version)
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
            assert answer.endswith(b"\r\n\r\nok")
            exchange = await relay.exchange()
            assert (exchange.status, exchange.aborted_by) == (200, "")

    _run(scenario)


def test_all_pipelined_requests_of_a_client_that_has_shut_its_half_are_answered() -> None:
    async def scenario() -> None:
        async with _relaying(_answering(_OK)) as relay:
            assert await relay.ask(_post(b"[1]") * 5) == _OK * 5

    _run(scenario)


@pytest.mark.skipif(shutil.which("nc") is None, reason="needs nc")
def test_netcat_gets_its_answer() -> None:
    async def scenario() -> None:
        async with _relaying(_answering(_OK)) as relay:
            process = await asyncio.create_subprocess_exec(
                *("nc", "-N", "127.0.0.1", str(relay.port)),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            answer, _ = await process.communicate(_post(b"[1]"))
            assert answer == _OK

    _run(scenario)


def test_half_a_request_is_not_answered_when_its_end_has_come() -> None:
    async def scenario() -> None:
        async with _relaying(_answering(_OK)) as relay:
            assert await relay.ask(_post(b"four")[:-1]) == b""
            exchange = await relay.exchange()
            assert (exchange.status, exchange.aborted_by) == (499, "client")
            assert exchange.request_body == b"fou"

    _run(scenario)


@pytest.mark.parametrize("resets", [False, True])
def test_client_that_is_gone_in_the_middle_of_its_answer_is_499(*, resets: bool) -> None:
    cut = asyncio.Event()

    async def script(reader: Reader, writer: Writer) -> None:
        await _request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n")
        try:
            # Whether a client has shut its half or is gone is known when something is sent.
            while not resets:
                writer.write(b"3\r\nllo\r\n")
                await writer.drain()
                await asyncio.sleep(0)
            await reader.read()
        finally:
            cut.set()

    async def scenario() -> None:
        async with _relaying(script) as relay:
            reader, writer = await relay.connect()
            writer.write(_post(b"[1]"))
            await reader.readuntil(b"he")
            if resets:
                _reset_at_close(writer)
            writer.transport.abort()
            exchange = await relay.exchange()
            await cut.wait()
            assert (exchange.status, exchange.aborted_by) == (499, "client")
            assert exchange.response_head.startswith(b"HTTP/1.1 200 OK")
            assert exchange.response_body.startswith(b"he")

    _run(scenario)


def _reset_at_close(writer: Writer) -> None:
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


def test_client_that_is_gone_after_it_shut_its_half_is_swept_away() -> None:
    async def script(reader: Reader, writer: Writer) -> None:
        del writer
        await reader.read()

    async def scenario() -> None:
        async with _relaying(script) as relay:
            _, writer = await relay.connect()
            writer.write(_post(b"[1]"))
            writer.write_eof()
            _reset_at_close(writer)
            while not relay.connections.requests:  # noqa: ASYNC110 - turns of the loop
                await asyncio.sleep(0)
            writer.transport.abort()
            while len(relay.connections):
                relay.connections.sweep()
                await asyncio.sleep(0)
            assert (await relay.exchange()).status == 499

    _run(scenario)


def test_client_that_stops_in_the_middle_of_its_request_is_answered_and_let_go() -> None:
    asked, dropped = asyncio.Event(), asyncio.Event()

    async def script(reader: Reader, writer: Writer) -> None:
        del writer
        await reader.readuntil(b"\r\n\r\n")
        asked.set()
        with suppress(ConnectionError):
            await reader.read()
        dropped.set()

    async def scenario() -> None:
        async with _relaying(script) as relay:
            reader, writer = await relay.connect()
            writer.write(_POST + b"[1")
            await asked.wait()
            relay.connections.sweep()
            relay.connections.sweep()
            answer = await reader.read()
            await dropped.wait()
            exchange = await relay.exchange()
            writer.close()

        assert answer.startswith(b"HTTP/1.1 408 ")
        assert (exchange.status, exchange.request_body, exchange.request_cut) == (408, b"[1", 2)

    _run(scenario)


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(_POST + b"[12]", id="whole"),
        pytest.param(
            _POST.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n"), id="not asked"
        ),
    ],
)
def test_client_that_waits_for_the_model_is_waited_with(request_: bytes) -> None:
    may_answer = asyncio.Event()

    async def script(reader: Reader, writer: Writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await may_answer.wait()
        writer.write(_OK)

    async def scenario() -> None:
        async with _relaying(script) as relay:
            reader, writer = await relay.connect()
            writer.write(request_)
            while not relay.connections.requests:  # noqa: ASYNC110 - turns of the loop
                await asyncio.sleep(0)
            for _ in range(3):
                relay.connections.sweep()
            may_answer.set()
            assert (await reader.read(len(_OK) - 1)).startswith(b"HTTP/1.1 200 ")
            writer.close()

    _run(scenario)


def test_upgraded_connection_is_shut_half_by_half() -> None:
    async def script(reader: Reader, writer: Writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 101 Go\r\nConnection: Upgrade\r\nUpgrade: sum\r\n\r\n")
        everything = await reader.read()
        writer.write(b"%d" % len(everything))

    async def scenario() -> None:
        async with _relaying(script) as relay:
            reader, writer = await relay.connect()
            writer.write(
                b"GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: sum\r\n\r\n"
            )
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"x" * 1000)
            writer.write_eof()
            assert await reader.read() == b"1000"
            writer.close()

    _run(scenario)


# Upstreams that fail.


def test_body_that_comes_after_the_upstream_failed_is_recorded() -> None:
    async def scenario() -> None:
        async with _relaying(None) as relay:
            reader, writer = await relay.connect()
            for number in range(2):
                writer.write(_POST + b"a")
                while relay.connections.upstream_errors <= number:  # noqa: ASYNC110 - turns of the loop
                    await asyncio.sleep(0)
                writer.write(b"bcd")
                head = await reader.readuntil(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 502 ")
                assert b"connection: close" not in head
                length = re.search(rb"content-length: (\d+)", head)
                assert length
                await reader.readexactly(int(length[1]))
                exchange = await relay.exchange()
                assert (exchange.status, exchange.request_body) == (502, b"abcd")
                assert exchange.aborted_by == ""
            writer.close()

    _run(scenario)


@pytest.mark.parametrize(
    ("headers", "limits"),
    [
        pytest.param(b"Content-Length: 9", Limits(linger_s=0.05), id="that never comes"),
        pytest.param(b"Content-Length: 9", Limits(capture_limit=3, linger_s=3600), id="too long"),
        pytest.param(
            b"Transfer-Encoding: chunked", Limits(capture_limit=1, linger_s=3600), id="endless"
        ),
        pytest.param(
            b"Content-Length: 9\r\nExpect: 100-continue", Limits(linger_s=3600), id="not sent yet"
        ),
    ],
)
def test_body_that_cannot_be_awaited_does_not_hold_up_the_502(
    headers: bytes, limits: Limits
) -> None:
    async def scenario() -> None:
        async with _relaying(None, limits) as relay:
            reader, writer = await relay.connect()
            writer.write(b"POST / HTTP/1.1\r\nHost: x\r\n%b\r\n\r\n" % headers)
            if b"chunked" in headers:
                while not relay.connections.upstream_errors:  # noqa: ASYNC110 - turns of the loop
                    await asyncio.sleep(0)
                writer.write(b"1\r\na\r\n1\r\nb\r\n")
            answer = await reader.read(65536)
            assert answer.startswith(b"HTTP/1.1 502 ")
            assert b"\r\nconnection: close\r\n" in answer
            assert (await relay.exchange()).status == 502
            writer.close()

    _run(scenario)


def test_half_an_answer_is_never_made_to_look_whole() -> None:
    async def script(reader: Reader, writer: Writer) -> None:
        await _request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n")

    async def scenario() -> None:
        async with _relaying(script, Limits()) as relay:
            with pytest.raises(httpx.RemoteProtocolError):
                async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
                    await client.post(f"http://127.0.0.1:{relay.port}/p", content=b"[1]")
            exchange = await relay.exchange()
            assert (exchange.status, exchange.aborted_by) == (502, "upstream")
            assert exchange.response_head.startswith(b"HTTP/1.1 200 OK")
            assert exchange.response_body == b"hel"

    _run(scenario)


def test_silent_upstream_is_504() -> None:
    async def script(reader: Reader, writer: Writer) -> None:
        del writer
        await reader.read()

    async def scenario() -> None:
        async with _relaying(script, Limits(answer_s=0.01, gives_request_id=False)) as relay:
            reader, writer = await relay.connect()
            writer.write(_post(b"[1]"))
            assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 504 ")
            writer.close()

    _run(scenario)


class _Ahead(asyncio.SelectorEventLoop):
    """A loop whose clock the test can put forward."""

    ahead_s = 0.0

    def time(self) -> float:
        return super().time() + self.ahead_s

    async def put_forward(self, seconds: float) -> None:
        self.ahead_s += seconds
        for _ in range(4):
            await asyncio.sleep(0)


def test_upstream_that_answered_before_is_504_when_the_time_of_this_request_is_over() -> None:
    asked = asyncio.Event()

    async def script(reader: Reader, writer: Writer) -> None:
        await _request(reader)
        writer.write(_OK)
        await _request(reader)
        asked.set()
        await reader.read()

    async def scenario(loop: _Ahead) -> None:
        async with _relaying(script, Limits(answer_s=3600, gives_request_id=False)) as relay:
            reader, writer = await relay.connect()
            writer.write(_post(b"[1]"))
            assert await reader.readexactly(len(_OK)) == _OK
            await loop.put_forward(2000)
            writer.write(_post(b"[1]"))
            await asked.wait()
            # The time of the first request is over, this one's is not.
            await loop.put_forward(3000)
            assert relay.connections.upstream_errors == 0
            await loop.put_forward(1000)
            assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 504 ")
            writer.close()

    with closing(_Ahead()) as loop:
        loop.run_until_complete(scenario(loop))


# Digests.


@pytest.mark.parametrize("chunked", [False, True])
def test_what_is_cut_is_hashed_whole(*, chunked: bool) -> None:
    body = os.urandom(300_000)

    async def scenario() -> None:
        script = _answering(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body), body)
        async with _relaying(_chunked_answer(body) if chunked else script, _CUTTING) as relay:
            pieces = iter([body[:100], body[100:200_000], body[200_000:]])
            async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
                answer = await client.post(
                    f"http://127.0.0.1:{relay.port}/p",
                    content=_later(pieces) if chunked else body,
                )
            assert answer.content == body
            exchange = await relay.exchange()
            digest = hashlib.sha256(body).digest()
            assert exchange.request_body == exchange.response_body == body[:1000]
            assert exchange.request_cut == exchange.response_cut == 299_000
            assert exchange.request_digest == exchange.response_digest == digest

    _run(scenario)


_CUTTING = Limits(capture_limit=1000)


async def _later(pieces: Any) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


def _chunked_answer(body: bytes) -> Script:
    async def script(reader: Reader, writer: Writer) -> None:
        request = b""
        while not request.endswith(b"\r\n0\r\n\r\n"):
            request += await reader.read(65536)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for start in range(0, len(body), 70_000):
            piece = body[start : start + 70_000]
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await writer.drain()
        writer.write(b"0\r\n\r\n")
        await reader.read()

    return script


def test_what_is_kept_whole_has_no_digest() -> None:
    async def scenario() -> None:
        async with _relaying(_answering(_OK), _CUTTING) as relay:
            await relay.ask(_post(b"x" * 1000))
            exchange = await relay.exchange()
            assert (exchange.request_digest, exchange.response_digest) == (b"", b"")
            assert len(exchange.request_body) == 1000

    _run(scenario)


# TLS to the upstream.


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    folder = tmp_path_factory.mktemp("tls")
    key, cert = folder / "key.pem", folder / "cert.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=model.test", "-addext", "subjectAltName=DNS:model.test"),
            *("-keyout", str(key), "-out", str(cert)),
        ],
        check=True,
        capture_output=True,
    )
    return key, cert


async def _tls_model(
    stack: AsyncExitStack, certificate: tuple[Path, Path], seen: list[bytes]
) -> int:
    key, cert = certificate
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    tasks: set[asyncio.Task[Any]] = set()

    async def serve(reader: Reader, writer: Writer) -> None:
        tasks.add(asyncio.current_task())  # type: ignore[arg-type]  # this is one
        with suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            await _answering(_OK, seen=seen)(reader, writer)
        with suppress(ConnectionError, ssl.SSLError):
            writer.close()
            await writer.wait_closed()

    async def end() -> None:
        await asyncio.gather(*tasks)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    stack.push_async_callback(end)
    stack.callback(server.close)
    port: int = server.sockets[0].getsockname()[1]
    return port


def test_upstream_is_spoken_to_by_tls(certificate: tuple[Path, Path]) -> None:
    async def scenario() -> None:
        seen: list[bytes] = []
        async with AsyncExitStack() as stack:
            port = await _tls_model(stack, certificate, seen)
            trusting = ssl.create_default_context(cafile=certificate[1])
            upstream = Upstream(
                "127.0.0.1", port, tls=trusting, server_name="model.test", connect_s=60
            )
            async with _relaying(None, upstream=upstream) as relay:
                body = os.urandom(200_000)
                assert await relay.ask(_post(b"[1]") + _post(body)) == _OK * 2
                assert seen == [_post(b"[1]"), _post(body)]
                assert upstream.open_connections == 1

    _run(scenario)


@pytest.mark.parametrize(
    ("trusts", "name", "detail"),
    [
        pytest.param(False, "model.test", b"certificate is not trusted", id="unknown authority"),
        pytest.param(True, "other.test", b"certificate is not trusted", id="another name"),
        pytest.param(True, None, b"certificate is not trusted", id="address is not the name"),
    ],
)
def test_upstream_that_is_not_trusted_is_502(
    certificate: tuple[Path, Path], *, trusts: bool, name: str | None, detail: bytes
) -> None:
    async def scenario() -> None:
        seen: list[bytes] = []
        async with AsyncExitStack() as stack:
            port = await _tls_model(stack, certificate, seen)
            context = ssl.create_default_context(cafile=certificate[1] if trusts else None)
            upstream = Upstream("127.0.0.1", port, tls=context, server_name=name, connect_s=60)
            async with _relaying(None, upstream=upstream) as relay:
                answer = await relay.ask(_post(b"[1]"))
                assert answer.startswith(b"HTTP/1.1 502 ")
                assert detail in answer
                assert (await relay.exchange()).status == 502
                assert upstream.open_connections == 0
            assert seen == []

    _run(scenario)


def test_upstream_without_tls_is_502_when_tls_is_asked_for() -> None:
    async def scenario() -> None:
        async with AsyncExitStack() as stack:

            async def plain(reader: Reader, writer: Writer) -> None:
                await reader.read(1)
                writer.write(b"HTTP/1.1 400 Bad\r\n\r\n")
                writer.close()

            server = await asyncio.start_server(plain, "127.0.0.1", 0)
            stack.callback(server.close)
            port = server.sockets[0].getsockname()[1]
            upstream = Upstream("127.0.0.1", port, tls=ssl.create_default_context(), connect_s=60)
            async with _relaying(None, upstream=upstream) as relay:
                answer = await relay.ask(_post(b"[1]"))
                assert answer.startswith(b"HTTP/1.1 502 ")
                assert b"TLS" in answer

    _run(scenario)


# What others speak.


def test_standard_client_reads_the_id() -> None:
    async def scenario() -> None:
        async with _relaying(_answering(_OK), Limits()) as relay:

            def ask() -> tuple[int, str | None, bytes]:
                client = http.client.HTTPConnection("127.0.0.1", relay.port, timeout=60)
                client.request("POST", "/p", b"[1]")
                answer = client.getresponse()
                got = answer.status, answer.getheader("x-request-id"), answer.read()
                client.close()
                return got

            status, given, body = await asyncio.to_thread(ask)
            assert (status, body) == (200, b"ok")
            assert given is not None
            assert given.encode() == (await relay.exchange()).request_id

    _run(scenario)


@pytest.mark.parametrize(
    ("sent", "passed_on"),
    [
        pytest.param(
            b"GET http://other/p?q HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET http://other/p?q HTTP/1.1\r\nHost: x\r\n\r\n",
            id="absolute form",
        ),
        pytest.param(
            b"GET / HTTP/1.1\r\nHost: x\r\nTE: trailers\r\nProxy-Connection: keep-alive\r\n"
            b"Keep-Alive: 5\r\nConnection: X-Hop, TE, keep-alive\r\nx-hop: 1\r\nX-End: 1\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\nX-End: 1\r\n\r\n",
            id="hop by hop",
        ),
        pytest.param(
            b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close, Content-Length, Host\r\n"
            b"Content-Length: 0\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
            id="what frames is never dropped",
        ),
        pytest.param(
            b"GET / HTTP/1.1\r\nHost: x\r\nProxy-Authorization: Basic x\r\nB: 2\r\nb: 1\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\nProxy-Authorization: Basic x\r\nB: 2\r\nb: 1\r\n\r\n",
            id="end to end",
        ),
        pytest.param(
            b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n",
            None,
            id="the same length twice",
        ),
    ],
)
def test_head_is_passed_on_without_what_is_meant_for_one_hop(
    sent: bytes, passed_on: bytes | None
) -> None:
    async def scenario() -> None:
        seen: list[bytes] = []
        async with _relaying(_answering(_OK, seen=seen)) as relay:
            answer = await relay.ask(sent)
            if passed_on is None:
                assert answer.startswith(b"HTTP/1.1 400 ")
            else:
                assert seen == [passed_on]

    _run(scenario)


def test_trailers_go_both_ways() -> None:
    chunks = b"2\r\nab\r\n0\r\nX-Sum: 1\r\n\r\n"
    head = b"POST / HTTP/1.1\r\nHost: x\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = b"HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks

    async def script(reader: Reader, writer: Writer) -> None:
        assert await reader.readexactly(len(head + chunks)) == head + chunks
        writer.write(answer)
        await reader.read()

    async def scenario() -> None:
        async with _relaying(script) as relay:
            assert await relay.ask(head + chunks) == answer
            exchange = await relay.exchange()
            assert (exchange.request_body, exchange.response_body) == (b"ab", b"ab")

    _run(scenario)


def test_both_sides_may_be_unix_sockets(tmp_path: Path) -> None:
    async def serve(reader: Reader, writer: Writer) -> None:
        await _request(reader)
        writer.write(_OK)
        writer.close()

    async def scenario() -> None:
        model_path, path = str(tmp_path / "model"), str(tmp_path / "proxy")
        model = await asyncio.start_unix_server(serve, model_path)
        upstream, tap, connections = Upstream(path=model_path, connect_s=60), _Keep(), Connections()
        server = await asyncio.get_running_loop().create_unix_server(
            lambda: Connection(_PassOn(), upstream, tap, limits=_EXACT, connections=connections),
            path,
        )
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(_post(b"[1]"))
        writer.write_eof()
        assert await reader.read() == _OK
        assert tap.exchanges.get_nowait().status == 200
        writer.close()
        # A Unix socket tells at once that its other end is closed and not only shut.
        _, writer = await asyncio.open_unix_connection(path)
        model.close()
        writer.write(_post(b"[1]")[:-1])
        writer.close()
        async with asyncio.timeout(60):
            assert (await tap.exchanges.get()).aborted_by == "client"
        server.close()
        await connections.drain(0)
        await upstream.close()
        await asyncio.sleep(0)

    _run(scenario)
