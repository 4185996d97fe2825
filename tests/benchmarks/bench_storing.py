"""What the storing stage costs: CPU time an inference, rows of one deployment or of many in turn.

    python tests/benchmarks/bench_storing.py [DEPLOYMENTS [INFERENCES A STEP [STEPS]]]

Decoded batches, as the decoding stage leaves them, are appended to the journal of a data folder;
then the stage takes them, a step for each half second that it would have had. Threads that tidy up
are measured too. The parts that every deployment costs are seen where inferences are few.
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from bench_lake import block  # type: ignore[import-not-found]

from sidelight.adapters import EmbeddedDocuments, EmbeddedJournals, Lake, Scores
from sidelight.logger import Commit
from sidelight.payloads import Batch
from sidelight.service._stage import DECODING, STORING
from sidelight.service._stage_storing import StoringStage

_STEP_NS = 1_000_000_000


def _records(first: int, deployments: int, n_rows: int) -> list[Batch]:
    random = np.random.default_rng(first)
    each = max(n_rows // deployments, 1)
    return [
        Batch.build(
            block(first + number * each, each, random).records,
            deployment=f"prod/model-{number}",
            layout={"request": {"protocol": "v2"}},
        )
        for number in range(deployments)
    ]


def main() -> None:
    """Print microseconds of CPU for an inference, of storing and of scores."""
    deployments = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    n_rows = int(sys.argv[2]) if len(sys.argv) > 2 else 5_000
    n_steps = int(sys.argv[3]) if len(sys.argv) > 3 else 40
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        journals, documents = EmbeddedJournals(data, groups=(STORING,)), EmbeddedDocuments(data)
        stage, lake = StoringStage(journals, documents, Lake(data)), Lake(data)
        total, stored, scored, now_ns = 0, 0.0, 0.0, 10**18
        for step in range(n_steps):
            batches = _records(total, deployments, n_rows)
            total += sum(map(len, batches))
            appended = [("rows", item.deployment, item.to_ipc()) for item in batches]
            journals.commit(Commit(group=DECODING, journal="events", appended=appended))
            now_ns += _STEP_NS
            began = time.process_time()
            while stage.step(now_ns):
                pass
            stored += time.process_time() - began
            items = [(item, *_scores(len(item))) for item in batches]
            began = time.process_time()
            entries = lake.stage_scores([Scores.joined(items)], first=step, last=step)
            documents.put(entries)
            scored += time.process_time() - began
        began = time.process_time()
        while stage.step(now_ns := now_ns + _STEP_NS) or now_ns % (60 * _STEP_NS):
            time.sleep(0.01)
        stage.close()
        tidied = time.process_time() - began
        documents.close()
        journals.close()
    print(
        f"{deployments} deployments, {n_rows} inferences a step: {1e6 * stored / total:.1f} us an "
        f"inference stored, {1e6 * scored / total:.1f} us scores, {1e6 * tidied / total:.1f} later"
    )


def _scores(n_rows: int) -> "tuple[np.ndarray, np.ndarray, np.ndarray]":
    numbers = np.linspace(0.1, 1.0, n_rows)
    return numbers, numbers, numbers > 2


if __name__ == "__main__":
    main()
