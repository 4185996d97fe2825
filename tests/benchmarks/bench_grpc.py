"""What the gRPC proxy adds to a call, with capture on, beside the same call without it.

    python tests/benchmarks/bench_grpc.py [--seconds 2] [--rounds 3]

A model server of ``grpc.aio`` that answers from memory, the proxy, and the client are processes of
their own. The proxy runs on uvloop with an emitter that encodes both events of each call and hands
them to a sink that takes everything. Rounds alternate between direct and proxied calls, with 1 and
with 16 in flight; the CPU time is that of the proxy's own process. The request holds one row of 20
FP32 values.
"""

import argparse
import asyncio
import multiprocessing
import os
import statistics
import struct
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import uvloop

from sidelight.logger import CapturedEvent, Delivery, Emitter
from sidelight.logger._open_inference import ModelInferRequest, ModelInferResponse
from sidelight.logger.grpc import serve_grpc

_METHOD = "/inference.GRPCInferenceService/ModelInfer"
_TICKS = os.sysconf("SC_CLK_TCK")


def _request() -> bytes:
    request = ModelInferRequest(model_name="flights", model_version="1", id="4711")
    request.inputs.add(name="x", datatype="FP32", shape=[1, 20])
    request.raw_input_contents.append(struct.pack("<20f", *range(20)))
    return bytes(request.SerializeToString())


def _response() -> bytes:
    response = ModelInferResponse(model_name="flights", model_version="1", id="4711")
    response.outputs.add(name="y", datatype="FP32", shape=[1, 1])
    response.raw_output_contents.append(struct.pack("<f", 0.5))
    return bytes(response.SerializeToString())


class _Model(grpc.GenericRpcHandler):  # type: ignore[misc] # grpc has no types
    def __init__(self) -> None:
        answer = _response()

        async def infer(_: bytes, __: Any) -> bytes:
            return answer

        self._handler = grpc.unary_unary_rpc_method_handler(infer)

    def service(self, _: Any) -> Any:
        return self._handler


class _Everything:
    """A sink that takes all events."""

    async def send(self, events: Sequence[CapturedEvent]) -> Delivery:
        return Delivery(n_taken=len(events))

    async def close(self) -> None:
        pass


async def _serve_model(ready: Connection, _: str) -> None:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((_Model(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    ready.send(f"127.0.0.1:{port}")
    await server.wait_for_termination()


async def _serve_proxy(ready: Connection, upstream: str) -> None:
    emitter = Emitter.of(_Everything())
    await emitter.start()
    proxy = await serve_grpc("127.0.0.1:0", upstream, emitter)
    ready.send(proxy.address)
    await asyncio.Event().wait()


def _run(serve: Callable[..., Coroutine[Any, Any, None]], ready: Connection, upstream: str) -> None:
    uvloop.run(serve(ready, upstream))


@contextmanager
def _process(
    serve: Callable[..., Coroutine[Any, Any, None]], upstream: str = ""
) -> Iterator[tuple[int, str]]:
    """Run a server; give its process id and its address."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=_run, args=(serve, there, upstream), daemon=True
    )
    process.start()
    try:
        if not here.poll(20):
            raise SystemExit(f"{serve.__name__} did not start")
        assert process.pid is not None
        yield process.pid, here.recv()
    finally:
        process.terminate()
        process.join(5)


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


async def _load(address: str, n_in_flight: int, seconds: float) -> list[float]:
    """Call for some time; return the latency of each call, seconds."""
    latencies: list[float] = []
    request = _request()
    async with grpc.aio.insecure_channel(address) as channel:
        call = channel.unary_unary(_METHOD)
        await call(request)
        end = time.perf_counter() + seconds

        async def one_after_the_other() -> None:
            while (started := time.perf_counter()) < end:
                await call(request)
                latencies.append(time.perf_counter() - started)

        await asyncio.gather(*[one_after_the_other() for _ in range(n_in_flight)])
    return latencies


def _percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(int(len(values) * share), len(values) - 1)] * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with _process(_serve_model) as (_, model), _process(_serve_proxy, model) as (pid, proxy):
        for n_in_flight in (1, 16):
            _compare(model, proxy, pid, n_in_flight, arguments)


def _compare(
    model: str, proxy: str, pid: int, n_in_flight: int, arguments: argparse.Namespace
) -> None:
    rounds: dict[str, list[tuple[float, float, float]]] = {"direct": [], "proxy": []}
    cpu: list[float] = []
    for _ in range(arguments.rounds):
        for name, address in (("direct", model), ("proxy", proxy)):
            before = _cpu_s(pid)
            latencies = uvloop.run(_load(address, n_in_flight, arguments.seconds))
            if name == "proxy":
                cpu.append((_cpu_s(pid) - before) / len(latencies) * 1e6)
            p50, p99 = _percentile(latencies, 0.5), _percentile(latencies, 0.99)
            rounds[name].append((len(latencies) / arguments.seconds, p50, p99))
    direct, through = (
        [statistics.median(column) for column in zip(*rounds[name], strict=True)]
        for name in ("direct", "proxy")
    )
    print(f"{n_in_flight} in flight")
    for name, (rate, p50, p99) in (("direct", direct), ("proxy", through)):
        print(f"  {name:7} {rate:8.0f} calls/s  p50 {p50:7.0f} us  p99 {p99:7.0f} us")
    print(
        f"  added: p50 {through[1] - direct[1]:.0f} us (ratio {through[1] / direct[1]:.2f}),"
        f" p99 {through[2] - direct[2]:.0f} us; CPU of the proxy {statistics.median(cpu):.0f} us"
        " a call"
    )


if __name__ == "__main__":
    main()
