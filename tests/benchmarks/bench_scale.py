"""Millions of inferences in one collector: memory, room on the disk, one of them by its id.

    python tests/benchmarks/bench_scale.py [INFERENCES,INFERENCES,... [DEPLOYMENTS [DATA]]]

Batches of 64 events (V2 JSON, one row of 20 features, of one deployment or of so many in turn) go
to a collector over four connections. At each of these numbers it waits until everything is stored
and judged, and asks: the memory of each process on the way (anonymous, without the pages of files),
its CPU time, what stands on the disk for an inference, random inferences by their id before and
after a restart, and pages. The data folder goes at the end; name DATA to keep it.
"""

import asyncio
import contextlib
import os
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import orjson
from prometheus_client.parser import text_string_to_metric_families

from sidelight.logger import Identity, inference_id

CONNECTIONS = 4
PAIRS_A_BATCH = 32
COLUMNS = 20
ASKED = 200
PAGES = 20
SAMPLE_S = 2.0
SHOWN = 6
PATIENCE_S = 3600.0
CONTENT_TYPE = b"application/cloudevents-batch+json"


def request_id(number: int) -> str:
    """Return the id of one inference as a platform would make it: random."""
    return f"{random.Random(number).getrandbits(128):032x}"


def name_of(number: int, deployments: int) -> str:
    """Return the name of the deployment that an inference belongs to."""
    return f"flights-{number % deployments}"


def _attributes(number: int, kind: str, name: str) -> dict[str, str]:
    return {
        "specversion": "1.0",
        "id": request_id(number),
        "source": "http://localhost:9081/",
        "type": f"org.kubeflow.serving.inference.{kind}",
        "datacontenttype": "application/json",
        "inferenceservicename": name,
        "namespace": "prod",
        "component": "predictor",
        "endpoint": "",
    }


def batches(first: int, stop: int, deployments: int = 1) -> Iterator[tuple[bytes, int]]:
    """Yield the bodies of requests, and how many bytes the payloads in each have."""
    for begin in range(first, stop, PAIRS_A_BATCH):
        numbers = range(begin, min(begin + PAIRS_A_BATCH, stop))
        rows = np.random.default_rng(begin).normal(size=(len(numbers), COLUMNS)).round(4)
        members, payload_bytes = [], 0
        for number, row in zip(numbers, rows.tolist(), strict=True):
            tensor = {"name": "x", "shape": [1, COLUMNS], "datatype": "FP64", "data": row}
            answer = {"name": "y", "shape": [1], "datatype": "FP64", "data": [sum(row) / COLUMNS]}
            name = name_of(number, deployments)
            asked = {"id": request_id(number), "inputs": [tensor]}
            answered = {"model_name": "flights", "model_version": "1", "id": request_id(number)}
            for kind, data in (("request", asked), ("response", answered | {"outputs": [answer]})):
                members.append(_attributes(number, kind, name) | {"data": data})
                payload_bytes += len(orjson.dumps(data))
        yield orjson.dumps(members), payload_bytes


@dataclass(slots=True)
class Sent:
    """What the sender made."""

    payload_bytes: int = 0
    body_bytes: int = 0


async def _send(port: int, bodies: Iterator[tuple[bytes, int]], sent: Sent) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for body, payload_bytes in bodies:
            head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n"
            while True:
                writer.write(head % (CONTENT_TYPE, len(body)) + body)
                answer = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"(?i)content-length: (\d+)", answer)
                await reader.readexactly(int(length[1]) if length else 0)
                if answer.startswith(b"HTTP/1.1 200"):
                    break
                # A full disk or too much at once: the collector says so, and is asked again.
                await asyncio.sleep(0.5)
            sent.payload_bytes += payload_bytes
            sent.body_bytes += len(body)
    finally:
        writer.close()


async def _send_all(port: int, bodies: Iterator[tuple[bytes, int]], sent: Sent) -> None:
    await asyncio.gather(*(_send(port, bodies, sent) for _ in range(CONNECTIONS)))


@dataclass
class Collector:
    """A service, and what is known of its processes."""

    data: Path
    deployments: int = 1
    samples: list[tuple[float, dict[str, float]]] = field(default_factory=list)

    def start(self) -> None:
        """Start it, and wait until it is ready."""
        command = [sys.executable, "-m", "sidelight.service", "serve", "--port", "0"]
        self.process = subprocess.Popen(
            [*command, "--data", str(self.data)], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        found = re.search(r":(\d+)/", self.process.stdout.readline())
        assert found is not None
        self.port = int(found[1])
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=60)

    def stop(self) -> None:
        """Stop it."""
        self.client.close()
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(30)

    def processes(self) -> dict[str, Path]:
        """Return what the kernel says of each process, by its role."""
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        folders = [Path(f"/proc/{child}") for child in children]
        return {
            (folder / "cmdline").read_bytes().split(b"\0")[-2].decode(): folder
            for folder in folders
        }

    def resident(self) -> dict[str, float]:
        """Return the anonymous memory of each process in MB."""
        return {
            role: int(re.findall(r"RssAnon:\s+(\d+)", (folder / "status").read_text())[0]) / 1024
            for role, folder in self.processes().items()
        }

    def cpu_seconds(self) -> dict[str, float]:
        """Return the CPU time of each process since its start."""
        spent = {}
        for role, folder in self.processes().items():
            fields = (folder / "stat").read_text().rpartition(") ")[2].split()
            spent[role] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        return spent

    @contextlib.contextmanager
    def sampled(self) -> Iterator[None]:
        """Take samples of the memory while something else is done."""
        over = threading.Event()
        self.samples = []

        def sample() -> None:
            while not over.wait(SAMPLE_S):
                self.samples.append((self.total("inferences_total"), self.resident()))

        thread = threading.Thread(target=sample)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def total(self, name: str) -> float:
        """Return the sum of one metric over its labels."""
        text = self.client.get("/metrics").text
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == f"sidelight_{name}"
        )

    def wait(self, inferences: int) -> None:
        """Wait until so many are stored and judged."""
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            if self.total("inferences_total") >= inferences and not self.total(
                "journal_lag_events"
            ):
                return
            time.sleep(SAMPLE_S)
        raise SystemExit(f"not stored within {PATIENCE_S:g} s")


def _sizes(data: Path) -> dict[str, int]:
    def size(pattern: str) -> int:
        return sum(path.stat().st_size for path in data.glob(pattern) if path.is_file())

    return {
        "archive": size("raw/*"),
        "lake": size("lake/**/*"),
        "of it rows": size("lake/inferences/**/*"),
        "state.db": size("state.db"),
    }


def _milliseconds(collector: Collector, paths: list[str]) -> str:
    spent = []
    for path in paths:
        begun = time.perf_counter()
        answer = collector.client.get(path)
        spent.append(1000 * (time.perf_counter() - begun))
        assert answer.status_code == 200, answer.text
    first, later = spent[0], sorted(spent[1:] or spent)
    at = [later[int(share * (len(later) - 1))] for share in (0.5, 0.99)]
    return f"first {first:.0f}, p50 {at[0]:.1f}, p99 {at[1]:.1f}"


def _ids(stored: int, seed: int, deployments: int = 1) -> list[str]:
    numbers = random.Random(seed).sample(range(stored), min(ASKED, stored))
    keys = [
        Identity("prod", name_of(n, deployments), "", "predictor", request_id(n)) for n in numbers
    ]
    return [f"/v1/inferences/{inference_id(key)}" for key in keys]


def _pages(collector: Collector, query: str) -> str:
    paths, cursor = [], None
    for _ in range(PAGES):
        following = f"/v1/inferences?deployment=prod/flights-0&limit=100{query}"
        following += f"&cursor={cursor}" if cursor else ""
        answer = collector.client.get(following).json()
        paths.append(following)
        cursor = answer["next"]
        if cursor is None:
            break
    return _milliseconds(collector, paths)


def _report(collector: Collector, stored: int, sent: Sent) -> None:
    print(f"== {stored:,} inferences stored")
    roles = sorted(collector.resident())
    print(f"  MB of {', '.join(roles)} on the way:")
    samples = collector.samples
    for number, sizes in samples[:: max(1, len(samples) // SHOWN)]:
        shown = ", ".join(f"{sizes.get(role, 0.0):.0f}" for role in roles)
        print(f"    {number:12,.0f}: {shown}")
    peaks = [max(sizes.get(role, 0.0) for _, sizes in samples) for role in roles]
    print(f"    at most     : {', '.join(f'{peak:.0f}' for peak in peaks)}")
    payload = sent.payload_bytes / stored
    print(f"  payloads of both events: {payload:.0f} bytes an inference")
    print(f"  the same with the attributes of the events: {sent.body_bytes / stored:.0f}")
    for name, size in _sizes(collector.data).items():
        each = size / stored
        print(f"  {name}: {each:.1f} bytes an inference, {each / payload:.3f} of the payloads")
    print(f"  by id, ms: {_milliseconds(collector, _ids(stored, 1, collector.deployments))}")
    print(f"  pages of 100, newest first, ms: {_pages(collector, '')}")
    print(f"  pages of 100 where x_1 > 2, ms: {_pages(collector, '&where=features.x_1 > 2')}")
    collector.stop()
    begun = time.perf_counter()
    collector.start()
    print(f"  ready again after {time.perf_counter() - begun:.1f} s")
    ids = _ids(stored, 2, collector.deployments)
    print(f"  by id after a restart, ms: {_milliseconds(collector, ids)}", flush=True)


def _measure(data: Path, marks: list[int], deployments: int) -> None:
    collector, sent, stored = Collector(data, deployments), Sent(), 0
    collector.start()
    try:
        for mark in marks:
            begun, before = time.perf_counter(), collector.cpu_seconds()
            with collector.sampled():
                bodies = batches(stored, mark, deployments)
                asyncio.run(_send_all(collector.port, bodies, sent))
                received = time.perf_counter() - begun
                collector.wait(mark)
            spent = time.perf_counter() - begun
            for role, seconds in collector.cpu_seconds().items():
                each = 1e6 * (seconds - before[role]) / (mark - stored)
                print(f"{role}: {each:.0f} us of CPU an inference")
            print(
                f"{mark - stored:,} more: {2 * (mark - stored) / received:,.0f} events a second, "
                f"stored and judged {(mark - stored) / spent:,.0f} inferences a second"
            )
            stored = mark
            _report(collector, stored, sent)
    finally:
        collector.stop()


def main() -> None:
    """Print the figures at each number of inferences."""
    marks = [int(text) for text in (sys.argv[1] if len(sys.argv) > 1 else "30000").split(",")]
    deployments = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    if len(sys.argv) > 3:
        _measure(Path(sys.argv[3]), marks, deployments)
        return
    with tempfile.TemporaryDirectory() as folder:
        _measure(Path(folder), marks, deployments)


if __name__ == "__main__":
    main()
