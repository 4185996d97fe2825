"""Rows and seconds of an explanation: 12 features, 100 background rows, in process.

Compared with ``shap.KernelExplainer`` where it is installed, else with plain enumeration.
Run: ``.venv/bin/python tests/benchmarks/bench_explainers.py``
"""

import importlib
import importlib.util
import time
import warnings
from typing import Any

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped] # has no types

from sidelight.explainers import Background, Broker, Explained, Limits, LocalModel, Shapley, Target

N_FEATURES, N_BACKGROUND, N_INSTANCES = 12, 100, 5


def traffic(rng: np.random.Generator, n_rows: int, *, is_mixed: bool) -> Any:
    """Adult-like: most features repeat (few levels, skewed); or all of them continuous."""
    table = rng.normal(size=(n_rows, N_FEATURES))
    if is_mixed:
        for index in range(3, N_FEATURES):
            table[:, index] = np.minimum(rng.geometric(0.45, n_rows), 8)
    return table


def explain_all(
    model: LocalModel, instances: Any, background: Background, budget: int
) -> tuple[list[Explained], float]:
    """Explain one by one, with a broker that knows nothing yet."""
    started = time.perf_counter()
    with Broker(Limits(rows_per_second=1e9, rows_per_call=8_192)) as broker:
        answers = [
            Shapley(budget_rows=budget).explain(
                [instance],
                background,
                broker=broker,
                model=model,
                target=Target(deployment="bench/model"),
                deadline_s=600,
            )
            for instance in instances.tolist()
        ]
    return answers, (time.perf_counter() - started) / len(instances)


def enumeration(predict: Any, instance: Any, background: Any) -> tuple[int, float]:
    """Ask every coalition with every background row, as a plain program would."""
    started = time.perf_counter()
    masks = ((np.arange(1 << N_FEATURES)[:, None] >> np.arange(N_FEATURES)) & 1).astype(bool)
    rows = 0
    for part in np.array_split(masks, 64):
        table = np.where(part[:, None, :], instance, background).reshape(-1, N_FEATURES)
        predict(table)
        rows += len(table)
    return rows, time.perf_counter() - started


def shap_kernel(predict: Any, instances: Any, background: Any) -> tuple[int, float]:
    """Explain with shap's Kernel SHAP in its default configuration."""
    shap: Any = importlib.import_module("shap")
    rows = 0

    def counted(table: Any) -> Any:
        nonlocal rows
        rows += len(table)
        return predict(table)

    started = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shap.KernelExplainer(counted, background).shap_values(instances, silent=True)
    return rows // len(instances), (time.perf_counter() - started) / len(instances)


def main() -> None:
    """Print one line a case."""
    for is_mixed in (True, False):
        rng = np.random.default_rng(0)
        table = traffic(rng, 3_000, is_mixed=is_mixed)
        labels = table[:, 0] + table[:, 3] * table[:, 1] + rng.normal(size=3_000) > 0.5
        model = HistGradientBoostingClassifier(max_iter=50, random_state=0).fit(table, labels)

        def predict(rows: Any, model: Any = model) -> Any:
            return model.predict_proba(rows)[:, 1]

        def by_column(columns: Any, model: Any = model) -> Any:
            return model.predict_proba(np.array(columns).T)[:, 1]

        names = [f"x{index}" for index in range(N_FEATURES)]
        background = Background(names=names, rows=table[:N_BACKGROUND].tolist())
        instances = table[-N_INSTANCES:]
        print(f"{'mixed' if is_mixed else 'continuous'} features")
        for budget in (600_000, 60_000, 20_000):
            answers, seconds = explain_all(LocalModel(by_column), instances, background, budget)
            rows = sum(answer.cost.unique_rows for answer in answers) // len(answers)
            worst = max(
                max(item.standard_error for item in answer.rows[0].attributions.values())
                / np.ptp([item.value for item in answer.rows[0].attributions.values()])
                for answer in answers
            )
            plans = {answer.plans[0] for answer in answers}
            print(
                f"  budget {budget:7,}: {rows:9,.0f} rows, {seconds:6.2f} s, "
                f"error/range {worst:.4f}, {'+'.join(sorted(plans))}"
            )
            if budget == 60_000:
                ours = rows, seconds
        if importlib.util.find_spec("shap"):
            rows, seconds = shap_kernel(predict, instances, table[:N_BACKGROUND])
            name = "shap.KernelExplainer"
        else:
            rows, seconds = enumeration(predict, instances[0], table[:N_BACKGROUND])
            name = "plain enumeration"
        print(f"  {name}: {rows:9,} rows, {seconds:6.2f} s")
        print(f"  ratio at the default: rows {rows / ours[0]:.1f}, time {seconds / ours[1]:.1f}")


if __name__ == "__main__":
    # More threads than one spin for each other on a shared machine, and the times say nothing.
    with threadpool_limits(limits=1):
        main()
