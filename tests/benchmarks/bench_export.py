"""CPU and memory of an export by format; ``python -m tests.benchmarks.bench_export [N]``."""

import resource
import sys
import tempfile
import time
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow as pa
from tests.adapters.conftest import EPOCH, MemoryDocuments

from sidelight.adapters import Inferences, Lake
from sidelight.adapters._query_export import EXPORTS, ExportFormat
from sidelight.payloads import ROW_SCHEMA, Batch

_INFERENCES = 200_000
_A_FILE = 50_000
_FEATURES = 20


def _batch(first: int, n: int) -> Batch:
    rng = np.random.default_rng(first)
    ids = [f"{first + number:032d}" for number in range(n)]
    start_us = int(EPOCH.timestamp()) * 1_000_000
    times = start_us + (np.arange(n) + first) * 1000
    own = {
        "id": pa.array(ids),
        "row": pa.array(np.zeros(n, np.int32)),
        "revision": pa.array(np.zeros(n, np.int16)),
        "request_id": pa.array(ids),
        "time": pa.array(times).cast(pa.timestamp("us", "UTC")),
        "protocol": pa.array(["v2-json"] * n),
        "synthetic": pa.array([False] * n),
    }
    fields = list(ROW_SCHEMA)
    arrays = [own.get(field.name, pa.nulls(n, field.type)).cast(field.type) for field in fields]
    for name in (*(f"features.f{number}" for number in range(_FEATURES)), "outputs.y"):
        fields.append(pa.field(name, pa.float64()))
        arrays.append(pa.array(rng.normal(size=n)))
    records = pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))
    return Batch.build(records, deployment="prod/flights", layout={"protocol": "v2-json"})


def _export(folder: Path, documents: MemoryDocuments, name: ExportFormat) -> None:
    queries = Inferences(folder, documents)
    started, n_bytes = time.process_time(), 0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for chunk in queries.export(format=name, deployment="prod/flights"):
        n_bytes += len(chunk)
    spent = time.process_time() - started
    n = queries.count(deployment="prod/flights")
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        f"{name:8} {n} inferences of 1x{_FEATURES}: {spent / n * 1e6:.0f} us of CPU each, "
        f"{n_bytes / n:.0f} bytes each; resident {before / 1024:.0f} -> {after / 1024:.0f} MiB"
    )


def main() -> None:
    n = int(sys.argv[1]) if len(sys.argv) > 1 else _INFERENCES
    with tempfile.TemporaryDirectory() as folder:
        documents = MemoryDocuments()
        lake = Lake(Path(folder))
        for position, first in enumerate(range(0, n, _A_FILE)):
            batch = _batch(first, min(_A_FILE, n - first))
            documents.put(lake.stage([batch], first=position, last=position))
        # A process of its own for each: the largest size of a process never shrinks.
        for name in EXPORTS:
            process = get_context("spawn").Process(
                target=_export, args=(Path(folder), documents, name)
            )
            process.start()
            process.join()


if __name__ == "__main__":
    main()
