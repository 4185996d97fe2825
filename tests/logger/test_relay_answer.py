"""The relay between two transports in memory: whatever is cut, the same goes through."""

import asyncio
from itertools import pairwise
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from sidelight.logger._connection import Connection
from sidelight.logger._connections import Connections, Limits
from sidelight.logger._exchange import Exchange
from sidelight.logger._http import Request, Respond
from sidelight.logger._request_id import RequestIds
from sidelight.logger._upstream import Upstream
from sidelight.logger._upstream_link import Link


class _PassOn:
    def admit(self, method: bytes, target: bytes, head: bytes) -> int | bytes | None:
        del method, target, head
        return None

    def handle(self, request: Request, respond: Respond) -> None:
        raise AssertionError(request, respond)


class _Transport(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False

    def write(self, data: Any) -> None:
        self.written += data

    def can_write_eof(self) -> bool:
        return False

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        del name
        return default


class _InMemory(Upstream):
    """Gives every request a link of its own, so that the test can answer on the last one."""

    def __init__(self) -> None:
        super().__init__("unused", 1)
        self.links: list[Link] = []

    def take(self, user: Any) -> Link:
        link = Link(self)
        link.connection_made(_Transport())
        link.user = user
        self.links.append(link)
        return link

    def keep(self, link: Link) -> None:
        pass


class _Keep:
    def __init__(self) -> None:
        self.exchanges: list[Exchange] = []

    def wants(self, method: bytes, target: bytes, head: bytes) -> bool:
        del method, target, head
        return True

    def offer(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)


def _pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:end] for start, end in pairwise(edges)]


def _relayed(
    requests: list[bytes], answers: list[bytes]
) -> tuple[bytes, bytes, bool, list[tuple[Any, ...]]]:
    """Relay one request; give what each side got and what was captured."""

    async def relay() -> tuple[bytes, bytes, bool, list[tuple[Any, ...]]]:
        upstream = _InMemory()
        tap = _Keep()
        limits = Limits(gives_request_id=False)
        connection = Connection(_PassOn(), upstream, tap, limits=limits)
        client = _Transport()
        connection.connection_made(client)
        for piece in requests:
            connection.data_received(piece)
        link = upstream.links[0]
        transport = link.transport
        assert isinstance(transport, _Transport)
        for piece in answers:
            link.data_received(piece)
        if link.user is not None:
            link.connection_lost(None)
        await asyncio.sleep(0)
        captured = [
            (one.status, one.request_head, one.request_body, one.response_head, one.response_body)
            for one in tap.exchanges
        ]
        return transport.written, client.written, client.closed, captured

    return asyncio.run(relay())


_INTERIM = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nA: b\r\n\r\n"
_CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"
_CHUNKS = b"POST /p HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"

_requests = st.sampled_from(
    [
        b"GET /p HTTP/1.1\r\nHost: x\r\nA: b\r\n\r\n",
        b"GET /p HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, x-y\r\nX-Y: z\r\n\r\n",
        b"GET /p HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"HEAD /p HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /p HTTP/1.0\r\n\r\n",
        b"POST /p HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\nabc",
        b"POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 12\r\n\r\n\r\n\r\nGET / HTT",
        _CHUNKS + b"a;b=c\r\n0\r\n\r\n56789\r\n1\r\nx\r\n00\r\nT: u\r\n\r\n",
    ]
)
_answers = st.sampled_from(
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nA:b\r\n\r\n", b"hello"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", b""),
        (_INTERIM + b"HTTP/1.1 201 Made\r\nKeep-Alive: 5\r\nContent-Length: 2\r\n\r\n", b"ok"),
        (b"HTTP/1.0 200 OK\r\nServer: old\r\n\r\n", b"until the end"),
        (b"HTTP/1.1 204 No\r\n\r\n", b""),
        (
            _CHUNKED + b"Trailer: T\r\n\r\n",
            b"5\r\nhello\r\nB;x\r\n\r\n0\r\n\r\nworl\r\n0\r\nT: u\r\n\r\n",
        ),
        (_CHUNKED + b"Content-Length: 9\r\n\r\n", b"0\r\n\r\n"),
    ]
)
_cuts = st.lists(st.integers(0, 300), max_size=12)


@given(_requests, _answers, _cuts, _cuts)
def test_exchange_is_the_same_wherever_it_is_cut(
    request: bytes, parts: tuple[bytes, bytes], request_cuts: list[int], answer_cuts: list[int]
) -> None:
    head, body = parts
    answer = head if request.startswith(b"HEAD") else head + body
    whole = _relayed([request], [answer])

    assert _relayed(_pieces(request, request_cuts), _pieces(answer, answer_cuts)) == whole
    assert len(whole[3]) == 1


class _Counted(RequestIds):
    """Ids that a test can foresee."""

    def __init__(self) -> None:
        super().__init__()
        self._count = 0

    def new(self) -> bytes:
        self._count += 1
        return b"id-%d" % self._count


_Seen = tuple[list[bytes], bytes, bool, list[Exchange]]


def _pipelined(pieces: list[bytes], requests: list[bytes], answers: list[list[bytes]]) -> _Seen:
    """Relay requests of one client, which come in pieces; each is answered when it is whole."""

    async def relay() -> _Seen:
        upstream = _InMemory()
        tap = _Keep()
        connections = Connections()
        connections.request_ids = _Counted()
        connection = Connection(_PassOn(), upstream, tap, connections=connections)
        client = _Transport()
        connection.connection_made(client)
        answered = 0

        def answer() -> None:
            nonlocal answered
            while answered < len(upstream.links):
                link = upstream.links[answered]
                if cast("_Transport", link.transport).written != requests[answered]:
                    return
                answered += 1
                for piece in answers[answered - 1]:
                    link.data_received(piece)
                if link.user is not None:
                    link.connection_lost(None)

        for piece in pieces:
            connection.data_received(piece)
            answer()
        sent = [cast("_Transport", link.transport).written for link in upstream.links]
        return sent, client.written, client.closed, tap.exchanges

    return asyncio.run(relay())


_whole = st.sampled_from(
    [
        b"GET /p HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /q HTTP/1.1\r\nHost: x\r\nX-Request-Id: own\r\n\r\n",
        b'POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 22\r\n\r\n{"id": "v2", "x": [9]}',
        b"POST /p HTTP/1.1\r\nHost: x\r\nCe-Id: ce\r\nContent-Length: 3\r\n\r\n[1]",
        _CHUNKS + b"3\r\n[1]\r\n0\r\n\r\n",
    ]
)
_kept = st.sampled_from(
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nx-request-id: model\r\n\r\nok",
        b"HTTP/1.1 204 No\r\nKeep-Alive: 5\r\n\r\n",
        _INTERIM + b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n",
        _CHUNKED + b"\r\n5\r\nhello\r\n0\r\nT: u\r\n\r\n",
    ]
)


@given(st.lists(st.tuples(_whole, _kept, _cuts), min_size=1, max_size=5), _cuts)
def test_pipelined_exchanges_are_the_same_wherever_they_are_cut(
    parts: list[tuple[bytes, bytes, list[int]]], cuts: list[int]
) -> None:
    requests = [request for request, _, _ in parts]
    whole = _pipelined(requests, requests, [[answer] for _, answer, _ in parts])
    pieces = _pieces(b"".join(requests), cuts)
    cut = _pipelined(pieces, requests, [_pieces(answer, at) for _, answer, at in parts])

    for one, other in zip(whole[3], cut[3], strict=True):
        for name in ("latency_ms", "started_ns", "finished_ns", "added_s"):
            setattr(one, name, 0)
            setattr(other, name, 0)
    assert cut == whole
    assert len(whole[3]) == len(parts)
    assert whole[0] == requests
    ids = [exchange.request_id for exchange in whole[3]]
    assert all(ids)
    assert whole[1].count(b"X-Request-Id: ") == sum(one.startswith(b"id-") for one in ids)


def test_answer_that_says_more_than_announced_ends_the_upstreams_connection() -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n\r\n"
    request = b"GET /p HTTP/1.1\r\nHost: x\r\n\r\n"

    _, client, closed, captured = _relayed([request], [answer])

    assert client == b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    assert not closed
    assert captured[0][4] == b"ok"
