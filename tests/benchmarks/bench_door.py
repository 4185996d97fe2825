"""Events a second that the door makes durable: `python tests/benchmarks/bench_door.py`.

The door runs in a process of its own, the clients in this one. Each connection sends its next
request after the answer to the last. The heads are those of KServe's agent, with an id of its
own for every event, request and response in turn on each connection.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from itertools import count
from pathlib import Path

import uvloop

from sidelight.logger._connection import Connection
from sidelight.logger._door import Door
from sidelight.logger._door_server import DoorServer, serve_door
from sidelight.logger._segments import Done

_ATTRIBUTES = {
    "specversion": "1.0",
    "source": "http://localhost:9081/",
    "inferenceservicename": "flights",
    "namespace": "production",
    "component": "predictor",
    "endpoint": "default",
    "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    "time": "2026-01-01T00:00:00.000000000Z",
}
_BODIES = {
    "request": json.dumps(
        {
            "inputs": [
                {
                    "name": "x",
                    "shape": [1, 20],
                    "datatype": "FP64",
                    "data": [round(0.37 * index, 3) for index in range(20)],
                }
            ]
        }
    ),
    "response": json.dumps(
        {
            "model_name": "flights",
            "outputs": [{"name": "y", "shape": [1], "datatype": "FP64", "data": [0.25]}],
        }
    ),
}


def singles(start: int) -> Iterator[bytes]:
    """Requests of one connection, one event each."""
    for number in count():
        kind = ("request", "response")[number % 2]
        body = _BODIES[kind]
        lines = [
            "POST / HTTP/1.1",
            "Host: collector.sidelight.svc.cluster.local",
            "User-Agent: Go-http-client/1.1",
            f"Content-Length: {len(body)}",
            f"Ce-Id: {start:06d}-{number // 2:012d}",
            f"Ce-Type: org.kubeflow.serving.inference.{kind}",
            *(f"Ce-{name.capitalize()}: {value}" for name, value in _ATTRIBUTES.items()),
            "Content-Type: application/json",
            "Accept-Encoding: gzip",
        ]
        yield ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


def batches(start: int, *, size: int = 64) -> Iterator[bytes]:
    """Requests of one connection, a batch each."""
    for number in count():
        members = [
            {
                **_ATTRIBUTES,
                "id": f"{start:06d}-{number:09d}-{index:03d}",
                "type": "org.kubeflow.serving.inference.request",
                "data": json.loads(_BODIES["request"]),
            }
            for index in range(size)
        ]
        body = json.dumps(members)
        head = (
            "POST / HTTP/1.1\r\nHost: collector\r\n"
            "Content-Type: application/cloudevents-batch+json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        # Made once: what is measured is the door.
        request = (head + body).encode()
        while True:
            yield request


class Client(asyncio.Protocol):
    """One connection in a closed loop."""

    _transport: asyncio.Transport

    def __init__(self, requests: Iterator[bytes], until: float, waits: list[float]) -> None:
        self._requests = requests
        self._until = until
        self._waits = waits
        self._sent = 0.0
        self.ended = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # connections make full transports
        self._send()

    def data_received(self, data: bytes) -> None:
        assert data.startswith(b"HTTP/1.1 200 "), data
        now = time.perf_counter()
        self._waits.append(now - self._sent)
        if now < self._until:
            self._send()
        else:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.set_result(exc)

    def _send(self) -> None:
        self._sent = time.perf_counter()
        self._transport.write(next(self._requests))


async def load(port: int, requests: list[Iterator[bytes]], seconds: float) -> list[float]:
    """Drive the door and return how long each answer took, in seconds."""
    waits: list[float] = []
    loop = asyncio.get_running_loop()
    until = time.perf_counter() + seconds
    clients = [Client(some, until, waits) for some in requests]
    for client in clients:
        await loop.create_connection(partial(_itself, client), "127.0.0.1", port)
    for client in clients:
        await asyncio.wait_for(client.ended, seconds + 10)
    return waits


def _itself(client: Client) -> Client:
    return client


class Nowhere:
    """A journal that forgets."""

    def append(self, head: bytes, body: bytes, done: Done) -> None:
        del head, body
        done(0, None)


async def serve(data: str) -> None:
    """Run the door, or one without a journal when no folder is named."""
    if data:
        server = DoorServer(Path(data), "127.0.0.1", 0)
        await serve_door(server, ready=lambda: print(server.port, flush=True))
        return
    door = Door(Nowhere())
    listener = await asyncio.get_running_loop().create_server(
        lambda: Connection(door), "127.0.0.1", 0
    )
    print(listener.sockets[0].getsockname()[1], flush=True)
    await listener.serve_forever()


def measure(data: str, requests: list[Iterator[bytes]], seconds: float) -> dict[str, float]:
    """Start a door, drive it, end it."""
    process = subprocess.Popen([sys.executable, __file__, "--serve", data], stdout=subprocess.PIPE)
    assert process.stdout is not None
    port = int(process.stdout.readline())
    uvloop.run(load(port, requests, 0.5))
    used = _cpu_seconds(process.pid)
    waits = sorted(uvloop.run(load(port, requests, seconds)))
    used = _cpu_seconds(process.pid) - used
    process.terminate()
    process.wait()
    process.stdout.close()
    return {
        "requests": len(waits) / seconds,
        "p50_ms": 1e3 * waits[len(waits) // 2],
        "p99_ms": 1e3 * waits[len(waits) * 99 // 100],
        "cpu_us": 1e6 * used / len(waits),
    }


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--serve")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--data", default=".", help="where the journal is put")
    options = parser.parse_args()
    if options.serve is not None:
        uvloop.run(serve(options.serve))
        return
    rounds = {
        "single events, 64 connections": (64, singles, 1),
        "single events, 1 connection": (1, singles, 1),
        "batches of 64, 4 connections": (4, batches, 64),
    }
    with tempfile.TemporaryDirectory(dir=options.data) as folder:
        for index, (name, (connections, make, events)) in enumerate(rounds.items()):
            requests = [make(start) for start in range(connections)]
            none = measure("", requests, options.seconds)
            durable = measure(f"{folder}/{index}", requests, options.seconds)
            print(
                f"{name}: {durable['requests'] * events:,.0f} events/s durable, "
                f"{durable['requests'] / none['requests']:.2f} of {none['requests'] * events:,.0f} "
                f"without a journal; p50 {durable['p50_ms']:.2f} ms, p99 {durable['p99_ms']:.2f} "
                f"ms, {durable['cpu_us'] / events:.1f} us of CPU per event at the door"
            )


if __name__ == "__main__":
    main()
