"""The server's side of a connection: collected requests, in order, however they are cut."""

import asyncio
import http.client
import json
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, cast

import httpx
import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from sidelight.logger._connection import Connection
from sidelight.logger._connections import Connections, Limits
from sidelight.logger._http import Request, Respond, Service, response

_LIMIT = 1000
_GET = b"GET /a?b HTTP/1.1\r\nHost: x\r\n\r\n"
_CHUNKED = b"POST /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


class Echo:
    """Answers with what it understood of the request."""

    def __init__(self) -> None:
        self.requests: list[Request] = []

    def admit(self, method: bytes, target: bytes, head: bytes) -> int | bytes | None:
        del method, head
        if target == b"/refused":
            return response(403, body=b"no")
        return None if target == b"/elsewhere" else _LIMIT

    def handle(self, request: Request, respond: Respond) -> None:
        self.requests.append(request)
        if request.route == b"/closing":
            respond(response(200, headers=[(b"connection", b"close")]))
        respond(response(200, body=b"|".join([request.method, request.target, request.body])))


class Later(Echo):
    """Keeps the answers for the test to give."""

    def __init__(self) -> None:
        super().__init__()
        self.responds: list[Respond] = []

    def handle(self, request: Request, respond: Respond) -> None:
        self.requests.append(request)
        self.responds.append(respond)


class Transport(asyncio.Transport):
    """Keeps what is written, remembers what was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False
        self.ended = False
        self.reading = True

    def write(self, data: Any) -> None:
        self.written += data

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.ended = True

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


def connected(service: Service, **options: Any) -> tuple[Connection, Transport]:
    connection = Connection(service, **options)
    transport = Transport()
    connection.connection_made(transport)
    return connection, transport


def fed(pieces: list[bytes], service: Service | None = None) -> bytes:
    """Feed the pieces to a connection and give out what it answers."""

    async def feed() -> bytes:
        connection, transport = connected(service if service is not None else Echo())
        for piece in pieces:
            connection.data_received(piece)
        return transport.written + (b"<end>" if transport.closed or transport.ended else b"")

    return asyncio.run(feed())


def pieces_of(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:end] for start, end in pairwise(edges)]


@contextmanager
def listening(service: Service, **options: Any) -> Iterator[int]:
    """Serve on a free port, on uvloop, in a thread."""
    loop = uvloop.new_event_loop()
    connections = options.setdefault("connections", Connections())

    async def serve() -> asyncio.AbstractServer:
        return await loop.create_server(lambda: Connection(service, **options), "127.0.0.1", 0)

    async def end() -> None:
        server.close()
        await connections.drain(0)
        # uvloop refuses to close a loop whose transports have not said that they are lost.
        while len(connections):  # noqa: ASYNC110 - turns of the loop, not a poll
            await asyncio.sleep(0)

    server = loop.run_until_complete(serve())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield cast("asyncio.Server", server).sockets[0].getsockname()[1]
    finally:
        asyncio.run_coroutine_threadsafe(end(), loop).result(60)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


requests = st.sampled_from(
    [
        _GET,
        b"\r\n" + _GET,
        b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
        b"POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nworld",
        b"POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
        _CHUNKED + b"3;q\r\nabc\r\n2\r\nde\r\n0\r\nT: u\r\n\r\n",
        b"GET /old HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        b"POST /refused HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /elsewhere HTTP/1.1\r\nHost: x\r\n\r\n",
    ]
)
ends = st.sampled_from(
    [
        b"",
        b"GET /last HTTP/1.0\r\n\r\n",
        b"GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"GET /closing HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\nHost: x\n\n",
        b"\x16\x03\x01\x02\x00",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1001\r\n\r\n",
        _CHUNKED + b"3E9\r\n" + b"x" * 1001 + b"\r\n",
        _CHUNKED + b"5\nhello",
        _CHUNKED + b"5\r\nhello!\r\n",
    ]
)


@given(st.lists(requests, max_size=5), ends, st.lists(st.integers(0, 2000), max_size=20))
def test_requests_are_answered_the_same_wherever_they_are_cut(
    stream: list[bytes], end: bytes, cuts: list[int]
) -> None:
    whole = b"".join(stream) + end

    assert fed(pieces_of(whole, cuts)) == fed([whole] if whole else [])


def test_requests_are_answered_the_same_byte_by_byte() -> None:
    whole = _GET * 3 + b"POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"

    assert fed([bytes([byte]) for byte in whole]) == fed([whole])


def test_service_sees_method_target_raw_head_and_body() -> None:
    service = Echo()
    head = b"POST /p?q HTTP/1.1\r\nHOST: x\r\ncontent-LENGTH: 5\r\n\r\n"
    fed([head + b"hello"], service)

    request = service.requests[0]
    assert (request.method, request.target, request.route) == (b"POST", b"/p?q", b"/p")
    assert (request.head, request.body) == (head, b"hello")


def test_chunked_body_is_collected_without_its_framing() -> None:
    service = Echo()
    head = b"POST /p HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    fed([head + b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"], service)

    assert service.requests[0].body == b"hello world"


def test_thousand_pipelined_requests_do_not_nest() -> None:
    assert fed([_GET * 5000]).count(b"HTTP/1.1 200 OK\r\n") == 5000


def test_pipelined_requests_wait_for_the_answer_before() -> None:
    service = Later()
    _, transport = _fed_later(service, [_GET + _GET])

    assert len(service.requests) == 1
    service.responds[0](response(200, body=b"1"))
    assert len(service.requests) == 2
    service.responds[1](response(200, body=b"2"))
    assert transport.written == response(200, body=b"1") + response(200, body=b"2")


def test_second_answer_to_a_request_is_not_taken_for_the_next() -> None:
    service = Later()
    _, transport = _fed_later(service, [_GET + _GET])

    service.responds[0](response(200, body=b"1"))
    service.responds[0](response(200, body=b"again"))

    assert transport.written == response(200, body=b"1")


def test_client_that_runs_ahead_is_no_longer_read() -> None:
    service = Later()
    connection, transport = _fed_later(service, [_GET], limits=Limits(max_waiting_bytes=100))

    for _ in range(4):
        connection.data_received(_GET)
    assert not transport.reading
    for number in range(5):
        service.responds[number](response(200))

    assert transport.reading
    assert len(service.requests) == 5


def test_client_that_does_not_read_is_not_served_further() -> None:
    service = Echo()
    connection, _ = _fed_later(service, [])

    connection.pause_writing()
    connection.data_received(_GET * 3)
    assert service.requests == []
    connection.resume_writing()

    assert len(service.requests) == 3


def test_answer_after_the_client_went_away_is_dropped() -> None:
    service = Later()
    connection, transport = _fed_later(service, [_GET])

    connection.connection_lost(None)
    service.responds[0](response(200))

    assert transport.written == b""


def _fed_later(
    service: Service, pieces: list[bytes], **options: Any
) -> tuple[Connection, Transport]:
    connection, transport = connected(service, **options)
    for piece in pieces:
        connection.data_received(piece)
    return connection, transport


@pytest.mark.parametrize(
    ("request_", "connection"),
    [
        pytest.param(_GET, None, id="1.1 is kept without a word"),
        pytest.param(b"GET / HTTP/1.0\r\n\r\n", b"close", id="1.0 is closed"),
        pytest.param(
            b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", b"keep-alive", id="1.0 is kept"
        ),
        pytest.param(
            b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b"close", id="closed"
        ),
    ],
)
def test_answer_says_what_becomes_of_the_connection(
    request_: bytes, connection: bytes | None
) -> None:
    answer = fed([request_])

    said = b"connection: " + connection + b"\r\n" if connection is not None else b""
    assert answer.count(b"connection:") == (connection is not None)
    assert said in answer
    assert answer.endswith(b"<end>") == (connection == b"close")


def test_answer_to_head_has_no_body() -> None:
    answer = fed([b"HEAD /x HTTP/1.1\r\nHost: x\r\n\r\n"])

    assert answer == b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\n"


def test_continue_is_said_when_the_client_waits_for_it() -> None:
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"

    assert fed([head]) == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert fed([head + b"hello"]).startswith(b"HTTP/1.1 200 OK\r\n")


def test_continue_is_not_said_to_a_body_that_is_too_long() -> None:
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1001\r\nExpect: 100-continue\r\n\r\n"

    assert fed([head]).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        pytest.param(b"GET / HTTP/1.1\r\nA:" + b"x" * 65536, 431, id="a long head"),
        pytest.param(
            b"GET / HTTP/1.1\r\nA:" + b"x" * 65536 + b"\r\n\r\n", 431, id="a long whole head"
        ),
        pytest.param(b"\x16\x03\x01", 400, id="TLS"),
        pytest.param(b"GET / HTTP/1.1\n", 400, id="a lone LF"),
        pytest.param(b"GET / HTTP/2.0\r\n\r\n", 505, id="another version"),
    ],
)
def test_what_is_no_request_is_refused_and_the_connection_ends(data: bytes, status: int) -> None:
    answer = fed([data])
    head, _, body = answer.removesuffix(b"<end>").partition(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert b"\r\ncontent-type: application/problem+json\r\n" in head
    assert b"\r\nconnection: close" in head
    assert json.loads(body)["status"] == status
    assert answer.endswith(b"<end>")


def test_refused_request_whose_body_is_here_keeps_the_connection() -> None:
    refused = b"POST /refused HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nab"
    answer = fed([refused + _GET])

    assert answer == response(403, body=b"no") + response(200, body=b"GET|/a?b|")


def test_refused_request_whose_body_is_not_here_ends_the_connection() -> None:
    answer = fed([b"POST /refused HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\na"])

    assert b"\r\nconnection: close\r\n" in answer
    assert answer.endswith(b"<end>")


def test_relayed_request_without_upstream_is_not_found() -> None:
    assert fed([b"GET /elsewhere HTTP/1.1\r\nHost: x\r\n\r\n"]).startswith(b"HTTP/1.1 404 ")


class _Failing(Echo):
    def __init__(self, *, in_admit: bool) -> None:
        super().__init__()
        self._in_admit = in_admit

    def admit(self, method: bytes, target: bytes, head: bytes) -> int | bytes | None:
        if self._in_admit:
            raise ZeroDivisionError
        return super().admit(method, target, head)

    def handle(self, request: Request, respond: Respond) -> None:
        del request, respond
        raise ZeroDivisionError


@pytest.mark.parametrize("in_admit", [True, False])
def test_service_that_raises_is_an_answer_500(
    caplog: pytest.LogCaptureFixture, *, in_admit: bool
) -> None:
    with caplog.at_level(logging.ERROR):
        answer = fed([_GET + _GET], _Failing(in_admit=in_admit))

    assert answer.count(b"HTTP/1.1 500 ") == 2
    assert len(caplog.records) == 2


def test_silent_connection_is_swept_away() -> None:
    connections = Connections()
    _, idle = _fed_later(Echo(), [], connections=connections)
    _, busy = _fed_later(Later(), [_GET], connections=connections)

    connections.sweep()
    assert not idle.closed
    connections.sweep()

    assert idle.closed
    assert not busy.closed


def test_half_a_request_is_answered_408_when_nothing_follows() -> None:
    async def sweep() -> Transport:
        connections = Connections()
        _, transport = _fed_later(Echo(), [_GET[:20]], connections=connections)
        connections.sweep()
        connections.sweep()
        return transport

    transport = asyncio.run(sweep())

    assert transport.written.startswith(b"HTTP/1.1 408 ")
    assert transport.ended


def test_drained_connections_end_with_their_answer() -> None:
    async def drain() -> tuple[int, bytes]:
        connections = Connections()
        service = Later()
        idle, idle_transport = _fed_later(Echo(), [], connections=connections)
        busy, transport = _fed_later(service, [_GET], connections=connections)
        draining = asyncio.create_task(connections.drain(60.0))
        await asyncio.sleep(0)
        assert idle_transport.closed
        idle.connection_lost(None)
        service.responds[0](response(200))
        assert transport.closed
        busy.connection_lost(None)
        return await draining, transport.written

    cut, written = asyncio.run(drain())

    assert cut == 0
    assert b"connection: close" in written


def test_bodies_of_all_clients_together_are_bounded() -> None:
    async def fill() -> tuple[bytes, bytes, int, int]:
        shared = Connections()
        limits = Limits(max_collected_bytes=500)
        head = b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 400\r\n\r\n"
        first, first_transport = connected(Echo(), limits=limits, connections=shared)
        second, second_transport = connected(Echo(), limits=limits, connections=shared)
        first.data_received(head + b"a" * 300)
        second.data_received(head + b"b" * 300)
        after_refusal = shared.collected_bytes
        first.data_received(b"a" * 100)
        return (
            first_transport.written,
            second_transport.written,
            after_refusal,
            shared.collected_bytes,
        )

    answered, refused, after_refusal, at_the_end = asyncio.run(fill())

    assert answered.startswith(b"HTTP/1.1 200 ")
    assert refused.startswith(b"HTTP/1.1 503 ")
    assert b"retry-after: 1" in refused
    assert (after_refusal, at_the_end) == (300, 0)


def test_bytes_of_a_body_that_never_ends_are_given_back() -> None:
    async def leave() -> int:
        shared = Connections()
        connection, _ = connected(Echo(), connections=shared)
        connection.data_received(b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 400\r\n\r\nabc")
        assert shared.collected_bytes == 3
        connection.connection_lost(None)
        return shared.collected_bytes

    assert asyncio.run(leave()) == 0


def test_connection_that_does_not_end_is_cut() -> None:
    async def drain() -> tuple[int, Transport]:
        connections = Connections()
        _, transport = _fed_later(Later(), [_GET], connections=connections)
        return await connections.drain(0.01), transport

    cut, transport = asyncio.run(drain())

    assert cut == 1
    assert transport.closed


def _with_http_client(port: int) -> list[tuple[int, bytes]]:
    client = http.client.HTTPConnection("127.0.0.1", port)
    answers = []
    for method, body in [("GET", None), ("POST", b"hello"), ("POST", iter([b"a", b"b"]))]:
        client.request(method, "/p", body)
        answer = client.getresponse()
        answers.append((answer.status, answer.read()))
    client.close()
    return answers


def _with_httpx(port: int) -> list[tuple[int, bytes]]:
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=60) as client:
        answers = [
            client.get("/p"),
            client.post("/p", content=b"hello"),
            client.post("/p", content=iter([b"a", b"b"])),
        ]
    return [(answer.status_code, answer.content) for answer in answers]


@pytest.mark.parametrize("client", [_with_http_client, _with_httpx])
def test_clients_of_others_are_served(
    client: Callable[[int], list[tuple[int, bytes]]],
) -> None:
    with listening(Echo()) as port:
        answers = client(port)

    assert answers == [(200, b"GET|/p|"), (200, b"POST|/p|hello"), (200, b"POST|/p|ab")]


def test_client_that_still_sends_can_read_why_it_was_refused() -> None:
    with listening(Echo()) as port, socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 900000\r\n\r\n")
        client.sendall(b"x" * 900_000)
        answer = http.client.HTTPResponse(client)
        answer.begin()

        assert answer.status == 413
        assert json.loads(answer.read())["expected"] == "at most 1000 bytes"
