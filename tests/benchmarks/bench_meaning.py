"""From stored events to decoded batches, alone on one core.

    python tests/benchmarks/bench_meaning.py [inferences]

CPU time of this process per inference (one request and one response, V2 JSON), best of three
rounds, for single binary events and for batches of 64, with 1 and 64 rows of 20 numbers: of
envelope, pairing and decoding, then of the whole decoding stage, which reads the journal and
commits what it made, and of the storing stage behind it.
"""

import gc
import json
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from sidelight.adapters import Decoder, EmbeddedDocuments, EmbeddedJournals, Lake
from sidelight.logger import Pairing, scan
from sidelight.logger._journal import EventRecord
from sidelight.logger._segments import SegmentWriter
from sidelight.service._stage_decoding import DecodingStage
from sidelight.service._stage_storing import StoringStage

STEP = 1024
COLUMNS = 20


def _bodies(number: int, rows: int, rng: random.Random) -> tuple[bytes, bytes]:
    data = [round(rng.gauss(0, 1), 4) for _ in range(rows * COLUMNS)]
    shape = [rows, COLUMNS]
    tensor = {"name": "x", "shape": shape, "datatype": "FP64", "data": data}
    answer = {"name": "y", "shape": [rows], "datatype": "FP64", "data": data[:rows]}
    request = {"id": str(number), "inputs": [tensor]}
    response = {"model_name": "m", "model_version": "1", "id": str(number), "outputs": [answer]}
    return json.dumps(request).encode(), json.dumps(response).encode()


def _attributes(number: int, kind: str, deployments: int) -> dict[str, str]:
    return {
        "specversion": "1.0",
        "id": f"0a6f1c1e-6f0f-4c0e-9c7b-{number:012d}",
        "source": "http://localhost:9081/",
        "type": f"org.kubeflow.serving.inference.{kind}",
        "time": f"2026-05-01T10:{number // 60 % 60:02d}:{number % 60:02d}.123456Z",
        "inferenceservicename": f"flights-{number % deployments}",
        "namespace": "prod",
        "component": "predictor",
        "endpoint": "",
        "requestpath": "/v2/models/flights/infer",
        "requestmethod": "POST",
        "statuscode": "200",
        "latencyms": "1.234",
    }


def _single(n: int, rows: int, deployments: int = 1) -> list[EventRecord]:
    rng = random.Random(7)
    records: list[EventRecord] = []
    for number in range(n):
        for kind, body in zip(("request", "response"), _bodies(number, rows, rng), strict=True):
            attributes = _attributes(number, kind, deployments)
            lines = [f"Ce-{name.title()}: {text}" for name, text in attributes.items()]
            lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
            lines += ["Host: collector.monitoring.svc", "User-Agent: Go-http-client/1.1"]
            head = "POST / HTTP/1.1\r\n" + "\r\n".join(lines) + "\r\n\r\n"
            records.append(EventRecord(0, len(records), len(records), head.encode(), body))
    return records


def _batched(n: int, rows: int, deployments: int = 1) -> list[EventRecord]:
    rng = random.Random(7)
    head = b"POST / HTTP/1.1\r\nContent-Type: application/cloudevents-batch+json\r\n\r\n"
    records: list[EventRecord] = []
    for start in range(0, n, 32):
        members = []
        for number in range(start, min(start + 32, n)):
            for kind, body in zip(("request", "response"), _bodies(number, rows, rng), strict=True):
                attributes = json.dumps(_attributes(number, kind, deployments)).encode()
                members.append(attributes[:-1] + b',"data":' + body + b"}")
        body = b"[" + b",".join(members) + b"]"
        records.append(EventRecord(0, len(records), len(records), head, body))
    return records


def _steps(records: list[EventRecord], per_record: int) -> Iterator[list[EventRecord]]:
    size = max(1, 2 * STEP // per_record)
    for start in range(0, len(records), size):
        yield records[start : start + size]


def _run(records: list[EventRecord], per_record: int) -> tuple[int, dict[str, float]]:
    pairing = Pairing(lambda _: None)
    decoder = Decoder()
    spent = dict.fromkeys(("envelope", "pairing", "decoding"), 0.0)
    rows = 0

    for step in _steps(records, per_record):
        begun = time.process_time()
        events, _ = scan(step)
        parsed = time.process_time()
        pairs = pairing.step(events, lambda _: {}).pairs
        paired = time.process_time()
        rows += sum(len(batch) for batch in decoder.decode(pairs).batches)
        spent["envelope"] += parsed - begun
        spent["pairing"] += paired - parsed
        spent["decoding"] += time.process_time() - paired
    return rows, spent


def _stage_us(records: list[EventRecord], n: int) -> tuple[float, float, float]:
    """Return the CPU time of both stages for an inference, and inferences in a batch."""
    best, best_stored = float("inf"), float("inf")
    for _ in range(3):
        with tempfile.TemporaryDirectory() as folder:
            data = Path(folder)
            writer = SegmentWriter(data)
            for written in [writer.write(record.head, record.body) for record in records]:
                written.result()
            journals, documents = EmbeddedJournals(data, ("storing",)), EmbeddedDocuments(data)
            stage = DecodingStage(
                journals, documents, orphan_after_s=60, max_inflated_bytes=64 << 20
            )
            storing = StoringStage(journals, documents, Lake(data))
            now_ns = time.time_ns()
            begun = time.process_time()
            while stage.step(now_ns):
                now_ns += 500_000_000
            best = min(best, time.process_time() - begun)
            begun = time.process_time()
            while storing.step(now_ns):
                now_ns += 1_000_000_000
            best_stored = min(best_stored, time.process_time() - begun)
            storing.close()
            batches = journals.ends("inferences")[0]
            documents.close()
            journals.close()
            writer.close()
    return best / n * 1e6, best_stored / n * 1e6, n / batches


def _report_stage(n: int) -> None:
    # Arrow loads pandas with the first list that it is given, where that is installed.
    pa.array([0])
    for name, records, count in (
        ("single, 1x20", _single(n, 1), n),
        ("single, 1x20, 100 deployments", _single(n, 1, 100), n),
        ("batch of 64, 1x20", _batched(n, 1), n),
        ("single, 64x20", _single(n // 10, 64), n // 10),
    ):
        gc.collect()
        gc.freeze()
        each, stored, size = _stage_us(records, count)
        print(
            f"stage, {name}: {each:.1f} us per inference, {size:.0f} in a batch; "
            f"stored {stored:.1f} us"
        )


def main(n: int) -> None:
    for name, make, per_record, rows, count in (
        ("single, 1x20", _single, 1, 1, n),
        ("batch of 64, 1x20", _batched, 64, 1, n),
        ("single, 64x20", _single, 1, 64, n // 10),
    ):
        records = make(count, rows)
        # A consumer holds one step; here every record is there for the collector to walk.
        gc.collect()
        gc.freeze()
        # As in the consumer.
        gc.set_threshold(200_000, 10, 10)
        best: dict[str, float] = {}
        for _ in range(3):
            stored, spent = _run(records, per_record)
            assert stored == count * rows
            if not best or sum(spent.values()) < sum(best.values()):
                best = spent
        total = sum(best.values()) / count * 1e6
        parts = ", ".join(f"{part} {value / count * 1e6:.1f}" for part, value in best.items())
        print(f"{name}: {total:.1f} us per inference = {1e6 / total:,.0f}/s ({parts})")
    _report_stage(n)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20_000)
