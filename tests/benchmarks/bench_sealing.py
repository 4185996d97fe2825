"""What sealing costs: storing, reading and checking events with and without it.

``python tests/benchmarks/bench_sealing.py`` prints CPU microseconds an event, and bytes.
"""

import json
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from sidelight.logger._sealed_verify import verify_sealed
from sidelight.logger._sealing import SealingJournal, SealingSettings
from sidelight.logger._segments import SegmentReader, SegmentWriter

_EVENTS = 20_000
_BATCH = 64
_SEALED = SealingSettings(deployments=("prod/flights",))

Requests = list[tuple[bytes, bytes]]


def _attributes(number: int) -> dict[str, str]:
    return {
        "specversion": "1.0",
        "type": "org.kubeflow.serving.inference.request",
        "source": "/s",
        "id": f"r{number}",
        "namespace": "prod",
        "inferenceservicename": "flights",
    }


def _payload(n_values: int) -> dict[str, object]:
    values = [0.123456] * n_values
    return {"inputs": [{"name": "x", "shape": [1, n_values], "datatype": "FP64", "data": values}]}


def singles(n_values: int) -> Requests:
    """Return requests with one event each."""
    body = json.dumps(_payload(n_values)).encode()
    return [(_head(number), body) for number in range(_EVENTS)]


def _head(number: int) -> bytes:
    lines = ["POST / HTTP/1.1", "content-type: application/json"]
    lines += [f"ce-{name}: {value}" for name, value in _attributes(number).items()]
    return "\r\n".join([*lines, "", ""]).encode()


def batches(n_values: int) -> Requests:
    """Return requests with 64 events each."""
    head = b"POST / HTTP/1.1\r\ncontent-type: application/cloudevents-batch+json\r\n\r\n"
    starts = range(0, _EVENTS, _BATCH)
    return [
        (
            head,
            json.dumps(
                [_attributes(start + of) | {"data": _payload(n_values)} for of in range(_BATCH)]
            ).encode(),
        )
        for start in starts
    ]


def measured(requests: Requests, data: Path, *, is_sealed: bool) -> Iterator[str]:
    """Yield what storing, reading and checking cost."""
    left = threading.Semaphore(0)
    writer = SegmentWriter(data)
    journal = SealingJournal(data, writer, _SEALED) if is_sealed else None
    append = writer.append if journal is None else journal.append
    began = time.process_time()
    for head, body in requests:
        append(head, body, lambda *_: left.release())
    for _ in requests:
        left.acquire()
    yield f"store {_us(began):.1f} us"
    if journal is not None:
        journal.close()
    writer.close()
    size = sum(path.stat().st_size for name in ("raw", "keys") for path in data.glob(f"{name}/*"))
    yield f"{size / _EVENTS:.0f} bytes"
    reader = SegmentReader(data)
    began, position = time.process_time(), 0
    while position < reader.end():
        position = reader.read(position, max_records=4096, max_bytes=4 << 20)[-1].position + 1
    yield f"read {_us(began):.1f} us"
    reader.close()
    began = time.process_time()
    verify_sealed(data)
    yield f"check {_us(began):.1f} us"


def _us(began: float) -> float:
    return (time.process_time() - began) / _EVENTS * 1e6


def main() -> None:
    """Print one line for each kind of request, sealed and not."""
    kinds = {
        "single, 20 values": singles(20),
        "single, 600 values": singles(600),
        "batch of 64, 20 values": batches(20),
    }
    for name, requests in kinds.items():
        for is_sealed in (False, True):
            with tempfile.TemporaryDirectory() as folder:
                found = ", ".join(measured(requests, Path(folder), is_sealed=is_sealed))
            sys.stdout.write(f"{name}, {'sealed' if is_sealed else 'plain'}: {found}\n")


if __name__ == "__main__":
    main()
