"""What the sinks cost: events a second of each, beside the bare client with ready records.

Also how long the event loop, which carries the model's traffic, was held up meanwhile.

Run with ``python tests/benchmarks/bench_sinks.py [events]``. Kafka and the object store are real
ones, prepared as for ``make test-services``; without Java and Maven there is no Kafka.
"""

import asyncio
import gc
import io
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import uvloop
from confluent_kafka import Producer

sys.path.append(str(Path(__file__).parents[2]))

from tests.services.kafka_server import KafkaServer
from tests.services.s3_server import BUCKET, S3Server

from sidelight.adapters import FILE_LIMITS, KAFKA_LIMITS, FileFormat, FileSink, KafkaSink
from sidelight.adapters._sink_files_lines import line
from sidelight.adapters._sink_files_parquet import records_of
from sidelight.adapters._sink_kafka_record import record_of
from sidelight.adapters._sink_kafka_settings import _DEFAULTS, _FIXED
from sidelight.logger import Capture, CapturedEvent, Exchange, Sink

N_ROUNDS = 3


def exchange(number: int, n_rows: int) -> Exchange:
    numbers = ",".join(f"{(number * 31 + index) % 1000 / 1000}" for index in range(20 * n_rows))
    body = (
        f'{{"inputs":[{{"name":"x","shape":[{n_rows},20],"datatype":"FP32","data":[{numbers}]}}]}}'
    )
    answers = ",".join("0.5" for _ in range(n_rows))
    answer = (
        f'{{"model_name":"flights","outputs":[{{"name":"y","shape":[{n_rows},1],'
        f'"datatype":"FP32","data":[{answers}]}}]}}'
    )
    now = time.time_ns()
    head = b"Content-Type: application/json\r\nX-Request-Id: %d\r\n\r\n" % number
    return Exchange(
        method=b"POST",
        target=b"/v2/models/flights/infer",
        request_head=b"POST /v2/models/flights/infer HTTP/1.1\r\n" + head,
        request_body=body.encode(),
        response_head=b"HTTP/1.1 200 OK\r\n" + head,
        response_body=answer.encode(),
        status=200,
        started_ns=now,
        finished_ns=now + 1_000_000,
        latency_ms=1.0,
    )


def captured(n_events: int, n_rows: int) -> list[CapturedEvent]:
    capture = Capture()
    return [
        event
        for number in range(n_events // 2)
        for event in capture.events(exchange(number, n_rows))
    ]


def batches(
    events: Sequence[CapturedEvent], *, n_events: int, n_bytes: int
) -> Iterator[list[CapturedEvent]]:
    chosen: list[CapturedEvent] = []
    size = 0
    for event in events:
        chosen.append(event)
        size += event.size
        if len(chosen) >= n_events or size >= n_bytes:
            yield chosen
            chosen, size = [], 0
    if chosen:
        yield chosen


async def _tick(gaps: list[float]) -> None:
    last = time.perf_counter()
    while True:
        await asyncio.sleep(0.001)
        now = time.perf_counter()
        gaps.append(now - last - 0.001)
        last = now


def through(sink: Sink, work: Sequence[Sequence[CapturedEvent]]) -> tuple[float, float]:
    """Return seconds, and for how long the loop was held up in 99 of 100 cases."""

    async def run() -> tuple[float, float]:
        await sink.send(work[0][:1])
        gaps: list[float] = []
        ticking = asyncio.create_task(_tick(gaps))
        began = time.perf_counter()
        for batch in work:
            delivery = await sink.send(batch)
            if delivery.n_taken != len(batch):
                raise RuntimeError(f"expected {len(batch)} taken, got {delivery}")
        spent = time.perf_counter() - began
        ticking.cancel()
        await sink.close()
        return spent, sorted(gaps)[len(gaps) * 99 // 100]

    return uvloop.run(run())


def idle() -> float:
    """Return what the machine itself holds up."""

    async def run() -> float:
        gaps: list[float] = []
        ticking = asyncio.create_task(_tick(gaps))
        await asyncio.sleep(2)
        ticking.cancel()
        return sorted(gaps)[len(gaps) * 99 // 100]

    return uvloop.run(run())


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def compare(
    name: str,
    n_events: int,
    ours: Callable[[int], tuple[float, float]],
    bare: Callable[[int], float],
) -> None:
    """Take turns, so that a busy moment of the machine meets both."""
    spent, floor, held = list[float](), list[float](), list[float]()
    for number in range(N_ROUNDS):
        floor.append(bare(number))
        seconds, gap = ours(number)
        spent.append(seconds)
        held.append(gap)
    sink, client = statistics.median(spent), statistics.median(floor)
    print(
        f"{name:28} {n_events / sink:9,.0f} events/s   bare client {n_events / client:9,.0f}"
        f"   ratio {client / sink:4.2f}   loop held up p99 {statistics.median(held) * 1e3:5.1f} ms"
    )


def bench_kafka(server: KafkaServer, events: Sequence[CapturedEvent], name: str) -> None:
    work = list(
        batches(events, n_events=KAFKA_LIMITS.batch_events, n_bytes=KAFKA_LIMITS.batch_bytes)
    )
    ready = [record_of(event, mode="binary", key="deployment") for event in events]
    topics = [server.create_topic(f"{name}-{side}".replace(" ", "-")) for side in ("ours", "bare")]

    def bare(_: int) -> float:
        producer = Producer({**_DEFAULTS, **_FIXED, "bootstrap.servers": server.servers})
        producer.produce(topics[1], b"first")
        producer.flush()

        def produce() -> None:
            for record in ready:
                while True:
                    try:
                        producer.produce(
                            topics[1], record.value, record.key, headers=record.headers
                        )
                        break
                    except BufferError:
                        producer.poll(0.01)
            producer.flush()

        return timed(produce)

    def ours(_: int) -> tuple[float, float]:
        return through(KafkaSink(server.servers, topic=topics[0], timeout_s=60), work)

    compare(f"kafka, {name}", len(events), ours, bare)


def bench_files(
    folder: Path, events: Sequence[CapturedEvent], name: str, file_format: FileFormat
) -> None:
    work = file_batches(events)
    table = pa.Table.from_batches([records_of(events)])
    lines = b"".join(map(line, events))

    def bare(number: int) -> float:
        path = folder / f"bare-{name}-{number}.{file_format}"

        def write() -> None:
            with path.open("wb") as file:
                if file_format == "parquet":
                    pq.write_table(table, file, compression="zstd")
                else:
                    file.write(lines)
                file.flush()
                os.fsync(file.fileno())

        return timed(write)

    def ours(number: int) -> tuple[float, float]:
        sink = FileSink(folder / f"{name}-{file_format}-{number}", file_format=file_format)
        return through(sink, work)

    compare(f"{file_format}, {name}", len(events), ours, bare)


def bench_s3(server: S3Server, events: Sequence[CapturedEvent], name: str) -> None:
    work = file_batches(events)
    file = io.BytesIO()
    pq.write_table(pa.Table.from_batches([records_of(events)]), file, compression="zstd")

    def bare(number: int) -> float:
        files = server.files()

        def put() -> None:
            with files.open_output_stream(f"{BUCKET}/bare/{name}-{number}.parquet") as stream:
                stream.write(file.getbuffer())

        return timed(put)

    def ours(number: int) -> tuple[float, float]:
        where = f"s3://{BUCKET}/ours-{name}-{number}".replace(" ", "-")
        return through(FileSink(where, s3=server.settings, timeout_s=60), work)

    compare(f"s3 parquet, {name}", len(events), ours, bare)


def file_batches(events: Sequence[CapturedEvent]) -> list[list[CapturedEvent]]:
    return list(batches(events, n_events=FILE_LIMITS.batch_events, n_bytes=FILE_LIMITS.batch_bytes))


def main() -> None:
    n_events = int(sys.argv[1]) if len(sys.argv) > 1 else 40_000
    print(f"{'nothing to do':28} loop held up p99 {idle() * 1e3:5.1f} ms")
    traffic: dict[str, Any] = {
        "1x20": captured(n_events, 1),
        "64x20": captured(n_events // 8, 64),
    }
    # A proxy does not hold that many events; looking through them is none of the sinks' work.
    gc.collect()
    gc.freeze()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if shutil.which("mvn") and shutil.which("java"):
            (folder / "kafka").mkdir()
            broker = KafkaServer(folder / "kafka")
            broker.start()
            for name, events in traffic.items():
                bench_kafka(broker, events, name)
            broker.close()
        for name, events in traffic.items():
            bench_files(folder, events, name, "parquet")
            bench_files(folder, events, name, "jsonl")
        (folder / "s3").mkdir()
        store = S3Server(folder / "s3")
        store.start()
        for name, events in traffic.items():
            bench_s3(store, events, name)
        store.close()


if __name__ == "__main__":
    main()
