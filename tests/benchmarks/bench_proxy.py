"""What the proxy costs: direct, relayed and captured requests, measured in one run.

    python tests/benchmarks/bench_proxy.py [--seconds 2] [--rounds 3] [--connections 32]

Every peer is a process of its own. The upstream answers from memory; the load comes from a raw
client on uvloop. Rounds alternate between the ways, so that a slow moment of the machine meets all
of them. The proxy's own CPU time per request is read from the process, so it holds on a busy
machine where requests per second do not.
"""

import argparse
import asyncio
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable
from multiprocessing.connection import Connection as Pipe
from typing import Any

import uvloop

from sidelight.logger._connection import Connection
from sidelight.logger._exchange import Exchange
from sidelight.logger._http import Request, Respond
from sidelight.logger._upstream import Upstream

_BODY = (
    b'{"inputs":[{"name":"input","shape":[1,20],"datatype":"FP32","data":['
    + b",".join(b"0.%08d" % (number * 4_321_987) for number in range(20))
    + b"]}]}"
)
_ANSWER_BODY = (
    b'{"model_name":"flights","outputs":[{"name":"p","datatype":"FP32","data":[0.123456]}]}'
)
_ANSWER = (
    b"HTTP/1.1 200 OK\r\ndate: Sat, 21 Nov 2026 12:00:00 GMT\r\nserver: uvicorn\r\n"
    b"content-length: %d\r\ncontent-type: application/json\r\n\r\n" % len(_ANSWER_BODY)
) + _ANSWER_BODY


def _request(number: int | None) -> bytes:
    """Give a request; a number makes its head differ from all others, as tracing does."""
    identity = b"" if number is None else b"X-Request-Id: %032x\r\n" % number
    return (
        b"POST /v2/models/flights/infer HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n"
        b"User-Agent: python-requests/2.32.3\r\nAccept-Encoding: gzip, deflate\r\n"
        b"Accept: */*\r\nConnection: keep-alive\r\nContent-Type: application/json\r\n"
        + identity
        + b"Content-Length: %d\r\n\r\n" % len(_BODY)
        + _BODY
    )


class _Model(asyncio.Protocol):
    """Answers every request that comes in one piece."""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if data.endswith(b"]}]}"):
            self._transport.write(_ANSWER)


class _PassOn:
    def admit(self, method: bytes, target: bytes, head: bytes) -> int | bytes | None:
        del method, target, head
        return None

    def handle(self, request: Request, respond: Respond) -> None:
        raise AssertionError(request, respond)


class _Count:
    def __init__(self) -> None:
        self.bytes = 0

    def wants(self, method: bytes, target: bytes, head: bytes) -> bool:
        del method, target, head
        return True

    def offer(self, exchange: Exchange) -> None:
        self.bytes += len(exchange.request_body) + len(exchange.response_body)


def _serve(make: Callable[[], asyncio.Protocol], pipe: Pipe) -> None:
    async def serve() -> None:
        server = await asyncio.get_running_loop().create_server(make, "127.0.0.1", 0)
        pipe.send(server.sockets[0].getsockname()[1])
        loop = asyncio.get_running_loop()
        loop.add_reader(pipe.fileno(), lambda: pipe.send(time.process_time()) if pipe.recv() else 0)
        await server.serve_forever()

    uvloop.run(serve())


def _model(pipe: Pipe) -> None:
    _serve(_Model, pipe)


def _proxy(pipe: Pipe, port: int, *, captured: bool) -> None:
    upstream = Upstream("127.0.0.1", port)
    tap = _Count() if captured else None
    service = _PassOn()
    _serve(lambda: Connection(service, upstream, tap), pipe)


class _Client(asyncio.Protocol):
    """Asks again as soon as it has its answer."""

    def __init__(self, requests: list[bytes], until: float, times: list[float]) -> None:
        self._requests = requests
        self._until = until
        self._times = times
        self._count = 0
        self._buffer = b""
        self.ended = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._ask()

    def _ask(self) -> None:
        self._began = time.perf_counter()
        self._transport.write(self._requests[self._count % len(self._requests)])
        self._count += 1

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._buffer.endswith(_ANSWER_BODY):
            return
        self._buffer = b""
        now = time.perf_counter()
        self._times.append(now - self._began)
        if now < self._until:
            self._ask()
        else:
            self._transport.close()
            self.ended.set_result(None)


async def _load(port: int, connections: int, seconds: float, *, distinct: bool) -> list[float]:
    times: list[float] = []
    until = time.perf_counter() + seconds
    requests = [_request(number) for number in range(997)] if distinct else [_request(None)]
    loop = asyncio.get_running_loop()
    clients = [
        await loop.create_connection(lambda: _Client(requests, until, times), "127.0.0.1", port)
        for _ in range(connections)
    ]
    await asyncio.gather(*(client.ended for _, client in clients))
    return times


def _start(target: Callable[..., None], *args: Any, **options: Any) -> tuple[Any, Pipe, int]:
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(
        target=target, args=(theirs, *args), kwargs=options, daemon=True
    )
    process.start()
    return process, ours, ours.recv()


def _cpu_s(pipe: Pipe) -> float:
    pipe.send(1)
    return float(pipe.recv())


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what the proxy costs.")
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=32)
    options = parser.parse_args()

    model, model_pipe, model_port = _start(_model)
    relay, relay_pipe, relay_port = _start(_proxy, model_port, captured=False)
    tapped, tapped_pipe, tapped_port = _start(_proxy, model_port, captured=True)
    ways = [
        ("direct", model_pipe, model_port, False),
        ("relayed", relay_pipe, relay_port, False),
        ("captured", tapped_pipe, tapped_port, False),
        ("captured, every head differs", tapped_pipe, tapped_port, True),
    ]
    print(f"{os.cpu_count()} cores, body {len(_BODY)} B, answer {len(_ANSWER)} B")
    base: dict[int, tuple[float, float]] = {}
    for connections in (1, options.connections):
        results: dict[str, list[tuple[float, float, float, float]]] = {}
        for _ in range(options.rounds):
            for name, pipe, port, distinct in ways:
                cpu = _cpu_s(pipe)
                times = uvloop.run(_load(port, connections, options.seconds, distinct=distinct))
                cpu = _cpu_s(pipe) - cpu
                times.sort()
                results.setdefault(name, []).append(
                    (
                        len(times) / options.seconds,
                        times[len(times) // 2] * 1e6,
                        times[len(times) * 99 // 100] * 1e6,
                        cpu / len(times) * 1e6,
                    )
                )
        for name, rounds in results.items():
            rate, p50, p99, cpu = (
                statistics.median(column) for column in zip(*rounds, strict=True)
            )
            first = base.setdefault(connections, (rate, p50))
            print(
                f"{connections:3} connections, {name:28} {rate:8.0f}/s "
                f"({rate / first[0]:.2f} of direct), p50 {p50:6.0f} us (+{p50 - first[1]:.0f}), "
                f"p99 {p99:6.0f} us, server CPU {cpu:5.1f} us/request"
            )
    for process in (model, relay, tapped):
        process.terminate()
        process.join()


if __name__ == "__main__":
    main()
