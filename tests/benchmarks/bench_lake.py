"""What the lake costs: rows staged a second, one inference by its id, filtered pages.

Run with ``python tests/benchmarks/bench_lake.py [inferences [rows per file]]``.
"""

import hashlib
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from sidelight.adapters import Inferences, Lake, Manifest, Scores
from sidelight.logger._journal import Document
from sidelight.payloads import ROW_SCHEMA, Batch

N_FEATURES = 20

START_US = 1_356_998_400_000_000


class MemoryDocuments:
    """The manifest and what stands beside it; what SQLite costs is measured elsewhere."""

    def __init__(self) -> None:
        self.stored: dict[tuple[str, str], Document] = {}

    def get(self, collection: str, key: str) -> dict[str, Any] | None:
        found = self.stored.get((collection, key))
        return dict(found.value) if found is not None and found.value is not None else None

    def present(self, collection: str, keys: Collection[str]) -> set[str]:
        return {key for key in keys if self.get(collection, key) is not None}

    def find(
        self,
        collection: str,
        *,
        deployment: str | None = None,
        descending: bool = True,
        after: tuple[str, str] | None = None,
        limit: int = 100,
    ) -> list[tuple[str, str, dict[str, Any]]]:
        if collection != "lake_files" or descending:
            return []
        found = sorted(
            (item.order, item.key)
            for (of, _), item in self.stored.items()
            if of == collection and (after is None or (item.order, item.key) > after)
        )
        files = [(order, self.stored[collection, key]) for order, key in found[:limit]]
        return [
            (order, item.key, dict(item.value or {}))
            for order, item in files
            if deployment in {None, item.deployment}
        ]

    def put(self, documents: Sequence[Document]) -> None:
        for document in documents:
            key = document.collection, document.key
            if document.value is None:
                self.stored.pop(key, None)
            else:
                self.stored[key] = document

    def counters(self) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        return {}


def inference_id(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()[:32]


def block(start: int, n_rows: int, random: np.random.Generator) -> Batch:
    numbers = range(start, start + n_rows)
    ids = pa.array([inference_id(number) for number in numbers])
    times = pa.array(np.arange(start, start + n_rows) * 50_000 + START_US)
    fixed: dict[str, Any] = {
        "id": ids,
        "row": pa.array(np.zeros(n_rows, np.int32)),
        "revision": pa.array(np.zeros(n_rows, np.int16)),
        "request_id": ids,
        "time": times.cast(pa.timestamp("us", tz="UTC")),
        "version": pa.array(["v1"] * n_rows),
        "latency_ms": pa.array(random.gamma(2.0, 3.0, n_rows)),
        "status": pa.array(np.full(n_rows, 200, np.int32)),
        "protocol": pa.array(["v2"] * n_rows),
        "synthetic": pa.array(np.zeros(n_rows, np.bool_)),
        "request_ref": pa.array([f"0-{number}-0" for number in numbers]),
        "response_ref": pa.array([f"0-{number}-1" for number in numbers]),
    }
    fields = list(ROW_SCHEMA)
    columns = [fixed.get(field.name, pa.nulls(n_rows, field.type)) for field in fields]
    for index in range(N_FEATURES):
        fields.append(pa.field(f"features.f{index}", pa.float64()))
        columns.append(pa.array(random.normal(size=n_rows)))
    fields.append(pa.field("outputs.y", pa.float64()))
    columns.append(pa.array(random.uniform(size=n_rows)))
    records = pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields))
    return Batch.build(records, deployment="prod/flights", layout={"protocol": "v2"})


def median_ms(work: Callable[[int], object], times: int) -> str:
    work(0)
    spent = []
    for number in range(1, times + 1):
        began = time.perf_counter()
        work(number)
        spent.append((time.perf_counter() - began) * 1e3)
    return f"{np.median(spent):8.1f} ms   (worst {max(spent):.1f})"


def ask(lake: Inferences, n_rows: int, name: str) -> None:
    middle = "2013-01-01T02:00:00Z"
    questions: dict[str, tuple[Callable[[int], object], int]] = {
        "get by id": (lambda i: lake.get(inference_id(i * 7919 % n_rows)), 20),
        "get of an unknown id": (lambda i: lake.get(f"unknown-{i}"), 10),
        "newest page": (lambda _: lake.find(), 10),
        "page by time": (lambda _: lake.find(from_=middle, order="time"), 10),
        "page, 1 in 1,000 rows": (
            lambda _: lake.find(where="features.f3 > 3.09 and status = 200"),
            10,
        ),
        "page, 1 in 1,000,000 rows": (lambda _: lake.find(where="features.f3 > 4.75"), 5),
        "page by outlier score": (lambda _: lake.find(where="outlier_score > 2.5"), 5),
        "count of all": (lambda _: lake.count(), 5),
    }
    for question, (work, times) in questions.items():
        print(f"{name:>10} {question:28} {median_ms(work, times)}")


def main() -> None:
    n_rows = int(sys.argv[1]) if len(sys.argv) > 1 else 300_000
    per_file = int(sys.argv[2]) if len(sys.argv) > 2 else 5_000
    random = np.random.default_rng(7)
    with tempfile.TemporaryDirectory() as folder:
        documents, lake = MemoryDocuments(), Lake(Path(folder))
        spent = scored = 0.0
        for start in range(0, n_rows, per_file):
            batch = block(start, per_file, random)
            began = time.perf_counter()
            documents.put(lake.stage([batch], first=start, last=start + per_file - 1))
            spent += time.perf_counter() - began
            numbers = random.normal(size=per_file)
            scores = Scores.of(
                batch, outlier_score=numbers, p_value=np.abs(numbers), outlier=numbers > 3
            )
            began = time.perf_counter()
            documents.put(lake.stage_scores([scores], first=start, last=start + per_file - 1))
            scored += time.perf_counter() - began
        print(f"stage {n_rows / spent:,.0f} rows/s, scores {n_rows / scored:,.0f} rows/s")
        queries = Inferences(Path(folder), documents)
        ask(queries, n_rows, "hot")
        manifest = Manifest(documents)
        began, merged, obsolete = time.perf_counter(), 0, list[str]()
        while (compaction := lake.compact(manifest, min_files=8)) is not None:
            documents.put(compaction.documents)
            obsolete += compaction.obsolete
            merged += compaction.rows
        print(f"compacted {merged / (time.perf_counter() - began):,.0f} rows/s")
        documents.put(lake.remove(obsolete))
        ask(queries, n_rows, "compacted")
        queries.close()


if __name__ == "__main__":
    main()
