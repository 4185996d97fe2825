"""One process tree on two cores: events a second made durable, inferences stored and judged.

    python tests/benchmarks/bench_end_to_end.py [SECONDS [DEPLOYMENTS [ROWS [BATCH]]]]

``wrk`` sends pairs of events (V2 JSON, ROWS rows of 20 features, one unless told) for some seconds:
single events from 64 connections as KServe's agent does, or BATCH events a request from four as the
proxy does. Then the time until everything is stored and judged is measured, the CPU time that
each process took for an inference, and its memory afterwards. The floor beside it is the same load
on a server of 20 lines that answers without storing anything. wrk shares the two cores. Inferences
are of one deployment, or of so many in turn.
"""

import asyncio
import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

HERE = Path(__file__).parent
CONNECTIONS = 64
BATCH_CONNECTIONS = 4


@dataclass(frozen=True)
class Load:
    """What is sent."""

    seconds: float = 8.0
    deployments: int = 1
    rows: int = 1
    batch: int = 1

    @classmethod
    def of(cls, arguments: list[str]) -> "Load":
        """Read the command line."""
        given = dict(zip(("deployments", "rows", "batch"), map(int, arguments[1:]), strict=False))
        return cls(seconds=float(arguments[0]) if arguments else cls.seconds, **given)


class _Floor(asyncio.Protocol):
    """Answers once for each request head that ends in a chunk; wrk sends a request at a time."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        del data
        self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")  # type: ignore[attr-defined]


def _load(port: int, load: Load) -> tuple[float, int]:
    """Return events a second that were answered with 200, and how many they were."""
    connections = CONNECTIONS if load.batch == 1 else BATCH_CONNECTIONS
    shape = (f"{time.time():.0f}", *map(str, (load.deployments, load.rows, load.batch)))
    script = ("-s", str(HERE / "pairs.lua"), f"http://127.0.0.1:{port}/", "--", *shape)
    done = subprocess.run(
        ["wrk", "-t1", f"-c{connections}", f"-d{load.seconds:g}s", "--latency", *script],
        capture_output=True,
        text=True,
        check=True,
    )
    for line in done.stdout.splitlines():
        if re.search(r"50%|99%|Non-2xx|Socket errors", line):
            print("   ", line.strip())
    each_second = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    requests = re.search(r"(\d+) requests in", done.stdout)
    assert each_second
    assert requests
    return load.batch * float(each_second[1]), load.batch * int(requests[1])


def _total(port: int, name: str) -> float:
    text = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=30).text
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == f"sidelight_{name}"
    )


def _wait_for_detection(port: int) -> None:
    """Return when the process that judges is there: its start is not the load's."""
    while httpx.get(f"http://127.0.0.1:{port}/readyz").json().get("detection") is False:
        time.sleep(0.1)


def _cpu_seconds(pid: int) -> dict[str, float]:
    """Return the CPU time of each process of the service, by its role."""
    spent = {}
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        role = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")[-2].decode()
        fields = Path(f"/proc/{child}/stat").read_text().rpartition(") ")[2].split()
        spent[role] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return spent


def _anonymous_mb(pid: int) -> dict[str, float]:
    """Return the anonymous memory of each process of the service, by its role."""
    found = {}
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        role = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")[-2].decode()
        text = Path(f"/proc/{child}/status").read_text()
        found[role] = int(text.split("RssAnon:")[1].split()[0]) / 1000
    return found


def _serve(data: Path) -> "tuple[subprocess.Popen[str], int]":
    process = subprocess.Popen(
        [sys.executable, "-m", "sidelight.service", "serve", "--port", "0", "--data", str(data)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    return process, int(re.search(r":(\d+)/", line)[1])  # type: ignore[index]


def _measure_floor(load: Load) -> float:
    code = (
        "import asyncio, uvloop, sys; sys.path.insert(0, sys.argv[1]); "
        "from bench_end_to_end import run_floor; uvloop.run(run_floor())"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(HERE)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        return _load(int(process.stdout.readline()), load)[0]
    finally:
        process.terminate()
        process.wait()


async def run_floor() -> None:
    """Serve the floor until terminated."""
    server = await asyncio.get_running_loop().create_server(_Floor, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def main() -> None:
    """Print events and inferences a second, and the ratio to the floor."""
    if shutil.which("wrk") is None:
        print("wrk is not installed: apt-get install wrk")
        return
    load = Load.of(sys.argv[1:])
    floor = _measure_floor(replace(load, seconds=min(load.seconds, 3.0)))
    print(f"floor, nothing stored: {floor:,.0f} events/s")
    with tempfile.TemporaryDirectory() as folder:
        process, port = _serve(Path(folder))
        try:
            _wait_for_detection(port)
            before = _cpu_seconds(process.pid)
            started = time.perf_counter()
            rate, sent = _load(port, load)
            loaded = time.perf_counter() - started
            print(f"door: {rate:,.0f} events/s durable, {rate / floor:.2f} of the floor")
            during = _total(port, "inferences_total")
            print(f"stored while the load ran: {during / loaded:,.0f} inferences/s")
            # What was sent last is known when it was taken; until then nobody says that it waits.
            while _total(port, "events_received_total") < sent or _total(
                port, "journal_lag_events"
            ):
                time.sleep(0.2)
            seconds_all = time.perf_counter() - started
            stored = _total(port, "inferences_total")
            print(
                f"end to end: {stored:,.0f} inferences stored and judged in {seconds_all:.1f} s: "
                f"{stored / seconds_all:,.0f}/s, {load.rows * stored / seconds_all:,.0f} rows/s"
            )
            memory = _anonymous_mb(process.pid)
            for role, spent in _cpu_seconds(process.pid).items():
                each = (spent - before.get(role, 0.0)) / stored
                print(f"{role}: {1e6 * each:.0f} us of CPU per inference, {memory[role]:.0f} MB")
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)


if __name__ == "__main__":
    main()
