"""What detection costs: CPU of a row of 20 features, beside a histogram of the same rows.

Run: ``python tests/benchmarks/bench_detectors.py``.

1. The monitor alone, by rows a batch; the floor is NumPy telling the same values apart by 256 bins
   and counting them, which says nothing yet.
2. The stage with its journal, scores, state and documents, each commit durable: one deployment with
   short batches, a hundred in turn, one with blocks of 64 rows in long batches and in batches of
   their own.
3. Kolmogorov-Smirnov of one window of 1,000 rows beside scipy's ``ks_2samp``.

CPU time of this process, so that it stands on a busy machine; the least of some commits beside the
mean, which other processes make larger by what they push out of the caches.
"""

import gc
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
from scipy import stats

from sidelight.adapters import EmbeddedDocuments, EmbeddedJournals, Lake
from sidelight.detectors import (
    DeploymentMonitor,
    KolmogorovSmirnov,
    NumericReference,
    Rows,
    Times,
    values_of,
)
from sidelight.logger import Commit
from sidelight.payloads import ROW_SCHEMA, Batch
from sidelight.service._freed_memory import keep_freed_memory
from sidelight.service._stage import DETECTION
from sidelight.service._stage_detection import DetectionStage

N_FEATURES = 20
WARM = 2500


def monitor_and_floor(batch_rows: int, n_rows: int) -> tuple[float, float]:
    """Microseconds of CPU a row: of the monitor, and of the floor."""
    data = np.random.default_rng(0).normal(size=(N_FEATURES, WARM + n_rows))
    times = Times(np.arange(WARM + n_rows) * 1000)
    edges = np.quantile(data[:, :1000], np.linspace(0, 1, 257)[1:-1], axis=1).T.copy()

    def rows(first: int, end: int) -> Rows:
        columns = {f"f{j}": values[first:end] for j, values in enumerate(data)}
        return Rows(times=times[first:end], version="1", columns=columns)

    monitor = DeploymentMonitor("bench/model")
    monitor.update(rows(0, WARM))
    firsts = range(WARM, WARM + n_rows, batch_rows)
    batches = [rows(first, min(first + batch_rows, WARM + n_rows)) for first in firsts]
    start = time.process_time()
    for batch in batches:
        monitor.update(batch)
    ours = time.process_time() - start
    start = time.process_time()
    for batch in batches:
        for column, bounds in zip(batch.columns.values(), edges, strict=True):
            np.bincount(bounds.searchsorted(column), minlength=256)
    return ours / n_rows * 1e6, (time.process_time() - start) / n_rows * 1e6


def batch_of(name: str, first: int, n: int, rng: np.random.Generator, rows_each: int) -> Batch:
    """Rows as the decoding stage leaves them."""
    ids = [f"{first + i - i % rows_each:022d}" for i in range(n)]
    micros = 1_700_000_000_000_000 + (first + np.arange(n)) * 1000
    columns: dict[str, object] = {
        "id": ids,
        "row": np.arange(n, dtype=np.int32) % rows_each,
        "revision": np.zeros(n, np.int16),
        "request_id": ids,
        "time": micros,
        "version": ["1"] * n,
        "protocol": ["v2"] * n,
        "synthetic": np.zeros(n, np.bool_),
        "request_ref": ids,
        "response_ref": ids,
    }
    arrays = [
        pa.array(columns.get(field.name, [None] * n)).cast(field.type) for field in ROW_SCHEMA
    ]
    names = [*(f"features.f{j}" for j in range(N_FEATURES)), "outputs.y"]
    arrays += [pa.array(rng.normal(size=n)) for _ in names]
    fields = [*ROW_SCHEMA, *(pa.field(each, pa.float64()) for each in names)]
    records = pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))
    return Batch.build(records, deployment=name, layout={"protocol": "v2"})


def stage(
    deployments: int, rows: int, *, records: int, commits: int, rows_each: int = 1
) -> tuple[float, float]:
    """Microseconds of CPU a row of the whole stage: mean, and least of the commits."""
    data = Path(tempfile.mkdtemp())
    journals, documents = EmbeddedJournals(data, groups=(DETECTION,)), EmbeddedDocuments(data)
    detection = DetectionStage(journals, documents, Lake(data), data)
    rng = np.random.default_rng(0)
    warm = -(-WARM // (rows * records))
    a_commit = deployments * rows * records
    used = []
    for number in range(warm + commits):
        batches = [
            batch_of(f"prod/m{i}", number * 10**7 + part * 10**5, rows, rng, rows_each)
            for part in range(records)
            for i in range(deployments)
        ]
        appended = [("inferences", batch.deployment, batch.to_ipc()) for batch in batches]
        journals.commit(Commit(group="decoding", journal="events", positions={}, appended=appended))
        start = time.process_time()
        assert detection.step((number + 1) * 10**10)
        used.append((time.process_time() - start) / a_commit * 1e6)
    documents.close()
    journals.close()
    shutil.rmtree(data)
    return sum(used[warm:]) / commits, min(used[warm:])


def window_ratio() -> tuple[float, float]:
    """Seconds of one window: ours, scipy's."""
    rng = np.random.default_rng(0)
    reference, window = rng.normal(size=1000), rng.normal(size=1000)
    fitted = NumericReference.fit(values_of(reference), n_bins=10)
    test = KolmogorovSmirnov()

    def ours() -> None:
        cells = fitted.cells(values_of(window))
        test.compare(fitted.counts, np.bincount(cells, minlength=fitted.n_cells))

    def theirs() -> None:
        stats.ks_2samp(reference, window, method="asymp")

    return least(ours), least(theirs)


def least(call: Callable[[], None]) -> float:
    call()
    seconds = []
    for _ in range(5):
        start = time.process_time()
        for _ in range(40):
            call()
        seconds.append((time.process_time() - start) / 40)
    return min(seconds)


def main() -> None:
    # As the process of the consumer does.
    keep_freed_memory()
    gc.freeze()
    gc.set_threshold(200_000, 10, 10)
    for batch_rows, n_rows in ((1, 1000), (64, 16_000), (1000, 40_000), (4096, 65_536)):
        ours, floor = monitor_and_floor(batch_rows, n_rows)
        print(
            f"monitor, batches of {batch_rows}: {ours:.2f} us a row, floor {floor:.2f}, "
            f"ratio {ours / floor:.1f}",
            flush=True,
        )
    cases = {
        "1 deployment, 6 batches of 1,000 rows": (1, 1000, 6, 8, 1),
        "100 deployments, 150 rows each": (100, 150, 1, 6, 1),
        "1 deployment, blocks of 64 rows, 32,768 rows": (1, 16_384, 2, 6, 64),
        "1 deployment, 256 batches of a block of 64 rows": (1, 64, 256, 6, 64),
    }
    for name, (deployments, rows, records, commits, each) in cases.items():
        mean, best = stage(deployments, rows, records=records, commits=commits, rows_each=each)
        print(f"stage, {name}: {mean:.2f} us a row, least {best:.2f}", flush=True)
    ours, theirs = window_ratio()
    print(
        f"KS of one window of 1,000 rows: {ours * 1e6:.0f} us, scipy {theirs * 1e6:.0f} us, "
        f"ratio {theirs / ours:.1f}"
    )


if __name__ == "__main__":
    main()
