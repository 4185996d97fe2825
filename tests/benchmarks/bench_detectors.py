"""Rows a second through detection, and the cost of a look beside scipy's ``ks_2samp``.

Run: ``python tests/benchmarks/bench_detectors.py``.
"""

import time

import numpy as np
from scipy import stats

from sidelight.detectors import (
    DeploymentMonitor,
    KolmogorovSmirnov,
    NumericReference,
    Rows,
    values_of,
)


def throughput(n_features: int, batch_rows: int, n_rows: int) -> float:
    data = np.random.default_rng(0).normal(size=(n_features, 1250 + n_rows))
    times = ["2024-01-01T00:00:00.000000Z"] * data.shape[1]

    def rows(first: int, end: int) -> Rows:
        columns = {f"f{j}": values[first:end] for j, values in enumerate(data)}
        return Rows(times=times[first:end], version="1", columns=columns)

    monitor = DeploymentMonitor("bench/model")
    monitor.update(rows(0, 1250))  # the reference, and the first look with its imports
    batches = [
        rows(first, min(first + batch_rows, data.shape[1]))
        for first in range(1250, data.shape[1], batch_rows)
    ]
    start = time.perf_counter()
    for batch in batches:
        monitor.update(batch)
    return n_rows / (time.perf_counter() - start)


def look_ratio() -> tuple[float, float]:
    rng = np.random.default_rng(0)
    reference, window = rng.normal(size=1000), rng.normal(size=1000)
    fitted = NumericReference.fit(values_of(reference), n_bins=10)
    test = KolmogorovSmirnov()

    def ours() -> None:
        cells = fitted.cells(values_of(window))
        test.compare(fitted.counts, np.bincount(cells, minlength=fitted.n_cells))

    def theirs() -> None:
        stats.ks_2samp(reference, window, method="asymp")

    return tuple(best(call) for call in (ours, theirs))  # type: ignore[return-value] # two calls


def best(call: "object") -> float:
    assert callable(call)
    call()
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(40):
            call()
        seconds.append((time.perf_counter() - start) / 40)
    return min(seconds)


def main() -> None:
    for n_features in (6, 20):
        for batch_rows, n_rows in ((1, 2000), (64, 19_200), (1000, 20_000)):
            speed = throughput(n_features, batch_rows, n_rows)
            print(f"{n_features} features, batches of {batch_rows}: {speed:,.0f} rows/s")
    ours, theirs = look_ratio()
    print(
        f"KS of one window of 1,000 rows: {ours * 1e6:.0f} us, scipy {theirs * 1e6:.0f} us, "
        f"ratio {theirs / ours:.1f}"
    )


if __name__ == "__main__":
    main()
