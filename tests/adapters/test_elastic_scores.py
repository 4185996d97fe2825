"""Scores of rows, found by their place in the journal, also while files are merged."""

from types import SimpleNamespace
from typing import Any

from sidelight.adapters import Manifest, ScoreReader, Scores
from sidelight.payloads import Batch


def _score(batch: Batch, first: float) -> Scores:
    values = [first + number for number in range(len(batch))]
    p_values = [0.5] * len(batch)
    return Scores.of(batch, outlier_score=values, p_value=p_values, outlier=[True] * len(batch))


def _fill(store: Any, samples: SimpleNamespace, n_batches: int) -> list[Batch]:
    batches = [
        samples.batch([samples.row(f"r{number}", row=row) for row in range(2)])
        for number in range(n_batches)
    ]
    for position, batch in enumerate(batches):
        scores = [_score(batch, 10.0 * position)]
        store.documents.put(store.lake.stage_scores(scores, first=position, last=position))
    return batches


def test_the_scores_of_some_rows_are_found_by_inference_row_and_revision(
    store: Any, samples: SimpleNamespace
) -> None:
    batches = _fill(store, samples, 3)
    reader = ScoreReader(store.folder, store.documents)

    found = reader.read("prod/flights", batches[1:2], partition=0, first=1, last=1)

    assert found == {("r1", 0, 0): (10.0, 0.5, True), ("r1", 1, 0): (11.0, 0.5, True)}


def test_scores_of_other_deployments_partitions_and_positions_are_not_read(
    store: Any, samples: SimpleNamespace
) -> None:
    batches = _fill(store, samples, 1)
    reader = ScoreReader(store.folder, store.documents)

    assert reader.read("prod/other", batches, partition=0, first=0, last=0) == {}
    assert reader.read("prod/flights", batches, partition=1, first=0, last=0) == {}
    assert reader.read("prod/flights", batches, partition=0, first=1, last=9) == {}


def test_a_file_that_was_merged_meanwhile_is_found_again(
    store: Any, samples: SimpleNamespace
) -> None:
    batches = _fill(store, samples, 4)
    reader = ScoreReader(store.folder, store.documents)
    before = reader.read("prod/flights", batches, partition=0, first=0, last=3)

    compaction = store.lake.compact(Manifest(store.documents), min_files=2)
    removed = store.lake.remove(compaction.obsolete)
    after_removal = reader.read("prod/flights", batches, partition=0, first=0, last=3)
    store.documents.put([*compaction.documents, *removed])
    after = reader.read("prod/flights", batches[2:3], partition=0, first=2, last=2)

    assert len(before) == 8
    # Nobody said where they are: rows without scores are better than none.
    assert after_removal == {}
    assert after == {("r2", 0, 0): (20.0, 0.5, True), ("r2", 1, 0): (21.0, 0.5, True)}
