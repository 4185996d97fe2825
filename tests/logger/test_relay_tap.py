"""What the tap is asked and given of what is relayed."""

import asyncio
import os
import threading
import time
from dataclasses import replace

import pytest
from tests.logger.relayed import (
    EXACT,
    GET,
    OK,
    PATIENCE_S,
    Keep,
    answering,
    proxied,
    read_request,
    read_until,
    scripted,
    wait_for,
)

from sidelight.logger._exchange import Exchange
from sidelight.logger._upstream import Upstream


def test_tap_is_asked_first_and_gets_only_what_it_wants() -> None:
    tap = Keep()
    with (
        scripted(answering(OK)) as port,
        proxied(port, tap=tap) as proxy,
        proxy.connect() as client,
    ):
        client.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        read_until(client, b"ok")
        client.sendall(GET)
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

    assert passed_on == OK
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
    assert exchange.added_s < exchange.latency_ms / 1e3 - 0.25


def test_all_exchanges_in_work_share_one_bound() -> None:
    body = os.urandom(30_000)
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 30000\r\n\r\n"
    tap = Keep()
    with (
        scripted(answering(OK)) as port,
        proxied(port, tap=tap, limits=replace(EXACT, max_captured_bytes=25_000)) as proxy,
        proxy.connect() as first,
        proxy.connect() as second,
    ):
        first.sendall(head + body[:20_000])
        wait_for(lambda: proxy.connections.captured_bytes == 20_000)
        second.sendall(head + body[:20_000])
        wait_for(lambda: proxy.connections.captured_bytes == 25_000)
        for client in (second, first):
            client.sendall(body[20_000:])
            assert read_until(client, b"ok") == OK
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
        scripted(answering(OK)) as port,
        proxied(port, tap=_Broken(wants=wants)) as proxy,
        proxy.connect() as client,
    ):
        for _ in range(3):
            client.sendall(GET)
            assert read_until(client, b"ok") == OK

        assert proxy.connections.captured == 0
    assert proxy.connections.tap_errors == 3


class _Slow(Keep):
    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()

    def offer(self, exchange: Exchange) -> None:
        assert self.go.wait(PATIENCE_S)
        super().offer(exchange)


def test_answer_does_not_wait_for_the_tap() -> None:
    tap = _Slow()
    with (
        scripted(answering(OK)) as port,
        proxied(port, tap=tap) as proxy,
        proxy.connect() as client,
    ):
        client.sendall(GET)
        assert read_until(client, b"ok") == OK
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
