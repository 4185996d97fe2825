"""Events a second that the door makes durable: `python tests/benchmarks/bench_door.py`.

A door runs in a process of its own on one core, `wrk` on another; each connection sends its next
request after the answer to the last. Rounds of all doors are interleaved, and what is printed are
medians with the least and the most. CPU a event is told beside the rate: it holds on a machine
that does other things as well.
"""

import argparse
import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import uvloop

from sidelight.logger._door import Door
from sidelight.logger._door_connection import DoorConnection
from sidelight.logger._door_heads import LearnedHeads
from sidelight.logger._door_server import DoorServer, serve_door
from sidelight.logger._segments import Done, SegmentWriter
from sidelight.logger._verify import verify

HERE = Path(__file__).parent
WARM_S = 0.7
N_CHECKED = 400_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One door under one load."""

    name: str
    door: str
    load: str
    connections: int = 64
    events: int = 1


CASES = (
    Case(name="single, FastAPI + SDK, not stored", door="fastapi", load="single"),
    Case(name="single, the door without a journal", door="floor", load="single"),
    Case(name="single, durable", door="door", load="single"),
    Case(name="pairs, durable", door="door", load="pairs"),
    Case(name="64x20, durable", door="door", load="wide"),
    Case(name="batches of 64, durable", door="door", load="batch", connections=4, events=64),
    Case(name="single, a sync takes 3 ms", door="slow", load="single"),
    Case(name="single, durable, 1 connection", door="door", load="single", connections=1),
)


class Nowhere:
    """A journal that forgets."""

    def append(self, head: bytes, body: bytes, done: Done) -> None:
        del head, body
        done(0, None)


def slow_sync(descriptor: int) -> None:
    """Stand for a disk whose syncs take 3 ms."""
    del descriptor
    time.sleep(0.003)


async def serve(kind: str, data: Path) -> None:
    """Run one of the doors and print its port."""
    if kind == "floor":
        door, heads = Door(Nowhere()), LearnedHeads()
        listener = await asyncio.get_running_loop().create_server(
            lambda: DoorConnection(door, heads), "127.0.0.1", 0
        )
        print(listener.sockets[0].getsockname()[1], flush=True)
        await listener.serve_forever()
    sync = slow_sync if kind == "slow" else os.fdatasync
    server = DoorServer(data, "127.0.0.1", 0, sync=sync)
    await serve_door(server, ready=lambda: print(server.port, flush=True))


def serve_fastapi() -> None:
    """Run what people write first: each event becomes an object of the SDK and is forgotten."""
    import socket  # noqa: PLC0415 - only this peer needs them

    import uvicorn  # noqa: PLC0415
    from cloudevents.core.bindings.http import HTTPMessage, from_http_event  # noqa: PLC0415
    from fastapi import FastAPI, Request, Response  # noqa: PLC0415

    app = FastAPI()

    async def receive(request: Request) -> Response:
        message = HTTPMessage(headers=dict(request.headers), body=await request.body())
        assert from_http_event(message).get_id()
        return Response()

    app.post("/")(receive)
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    print(listener.getsockname()[1], flush=True)
    config = uvicorn.Config(
        app, loop="uvloop", http="httptools", access_log=False, log_level="error"
    )
    uvicorn.Server(config).run(sockets=[listener])


@contextmanager
def running(kind: str, data: Path, core: int) -> Iterator[tuple[int, int]]:
    """Run a door in a process of its own; give its process id and its port."""
    command = ["taskset", "-c", str(core), sys.executable, __file__, "--serve", kind]
    process = subprocess.Popen([*command, "--data", str(data)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        yield process.pid, int(process.stdout.readline())
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


def measure(case: Case, data: Path, seconds: float, cores: tuple[int, int]) -> dict[str, float]:
    """Start a door, drive it, end it."""
    with running(case.door, data, cores[0]) as (pid, port):
        drive(case, port, WARM_S, cores[1])
        used = _cpu_seconds(pid)
        told = drive(case, port, seconds, cores[1])
        used = _cpu_seconds(pid) - used
    shutil.rmtree(data, ignore_errors=True)
    assert not told["failed"], f"{case.name}: {told['failed']:.0f} requests failed"
    events = told["requests"] * case.events
    return told | {"rate": events / told["seconds"], "cpu_us": 1e6 * used / events}


def drive(case: Case, port: int, seconds: float, core: int) -> dict[str, float]:
    """Have `wrk` send for a while."""
    command = ["taskset", "-c", str(core), "wrk", "--threads", "1"]
    command += ["--connections", str(case.connections), "--duration", f"{max(1, round(seconds))}s"]
    command += ["--script", str(HERE / "door.lua"), f"http://127.0.0.1:{port}", "--", case.load]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    figures: dict[str, float] = json.loads(told.splitlines()[-1])
    return figures


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def check_archive(data: Path) -> None:
    """Print how fast an archive is checked: by `verify`, and by a start after a kill."""
    writer = SegmentWriter(data, sync=lambda _: None)
    record = (bytes(640), bytes(300), lambda _, __: None)
    while writer.end < N_CHECKED:
        writer._commit([record] * 64)
    writer._archive._release()  # as a kill leaves it
    begun = time.process_time()
    report = verify(data)
    rate = report.bytes / (time.process_time() - begun)
    begun = time.process_time()
    SegmentWriter(data).close()
    print(
        f"verify: {rate / 1e6:,.0f} MB for a second of CPU; a start after a kill: "
        f"{time.process_time() - begun:.2f} s of CPU with {report.bytes / 1e6:,.0f} MB of archive"
    )
    assert report.ok


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--serve", help="run one of the doors instead")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="cases whose name has this in it")
    parser.add_argument("--cores", default="1,0", help="of the door and of wrk")
    parser.add_argument("--data", type=Path, default=Path(), help="where the journal is put")
    options = parser.parse_args()
    if options.serve == "fastapi":
        serve_fastapi()
    elif options.serve:
        uvloop.run(serve(options.serve, options.data))
    else:
        door, load = (int(core) for core in options.cores.split(","))
        compare(options, (door, load))


def compare(options: argparse.Namespace, cores: tuple[int, int]) -> None:
    """Run all cases in turn, a few times, and print what they have in common."""
    cases = [case for case in CASES if options.only in case.name]
    told: dict[str, list[dict[str, float]]] = {case.name: [] for case in cases}
    with tempfile.TemporaryDirectory(dir=options.data) as folder:
        if not options.only:
            check_archive(Path(folder) / "checked")
        for _ in range(options.rounds):
            for case in cases:
                told[case.name].append(measure(case, Path(folder) / "data", options.seconds, cores))
    peer = told.get(CASES[0].name)
    for case in cases:
        rounds = told[case.name]
        rates = sorted(one["rate"] for one in rounds)
        cpu_us = median(one["cpu_us"] for one in rounds)
        print(
            f"{case.name}: {median(rates):,.0f} events/s [{rates[0]:,.0f} to {rates[-1]:,.0f}]; "
            f"p50 {median(one['p50_ms'] for one in rounds):.2f} ms, p99 "
            f"{median(one['p99_ms'] for one in rounds):.2f} ms [at most "
            f"{max(one['p99_ms'] for one in rounds):.1f}]; {cpu_us:.1f} us of CPU an event"
        )
        if peer and case is not CASES[0]:
            rate = median(rates) / median(one["rate"] for one in peer)
            cpu = median(one["cpu_us"] for one in peer) / cpu_us
            print(f"    {rate:.1f} times the rate of FastAPI, {cpu:.1f} times less CPU an event")


if __name__ == "__main__":
    main()
