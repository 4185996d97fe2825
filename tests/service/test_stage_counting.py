"""Without a lake rows are counted as with one, and scores wait for the search server."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.service.conftest import Folder

from sidelight.adapters import ScoreReader, WaitingScores
from sidelight.adapters._waiting_scores import COLLECTION
from sidelight.payloads import Batch
from sidelight.service._deployments import put_all_settings
from sidelight.service._settings_deployment import DeploymentSettings, ReferenceSettings
from sidelight.service._stage import STORING
from sidelight.service._stage_counting import CountingStage
from sidelight.service._stage_detection import DetectionStage


class FolderWithoutLake(Folder):
    """A data folder whose rows are counted and judged, and stored by nobody."""

    def begin(self) -> None:
        super().begin()
        self.stages[1] = CountingStage(self.journals)
        self.detection = DetectionStage(self.journals, self.documents, WaitingScores(), self.data)
        self.stages[2] = self.detection


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[FolderWithoutLake]:
    made = FolderWithoutLake(tmp_path)
    yield made
    made.close()


def test_rows_are_counted_once_and_no_file_is_written(folder: FolderWithoutLake) -> None:
    folder.ask([[1, "m"], [2, "f"]])
    folder.ask([[3, "m"]])

    folder.work()
    folder.begin()
    folder.work()

    assert folder.counter("inferences_total") == 2
    assert folder.counter("inference_rows_total") == 3
    ends = folder.journals.ends("inferences")
    assert folder.journals.positions(STORING, "inferences") == ends
    assert not list((folder.data / "lake").rglob("*.parquet"))


def test_scores_wait_for_their_rows_and_are_forgotten_behind_them(
    folder: FolderWithoutLake,
) -> None:
    known = DeploymentSettings(name="prod/flights", reference=ReferenceSettings(first_rows=50))
    put_all_settings(folder.documents, (known,))
    for number in range(60):
        folder.ask([[number % 7, "mf"[number % 2]]])
    folder.work()
    folder.ask([[9_000, "m"]])
    folder.work()
    reader = ScoreReader(folder.data, folder.documents)
    (part,) = folder.journals.read_inferences("none", max_records=100, max_bytes=1 << 20)
    batch = Batch.from_ipc(part.records[-1].payload)

    found = reader.read("prod/flights", [batch], partition=0, first=part.last, last=part.last)
    scores = [
        found[place][2]
        for place in zip(
            batch.records.column("id").to_pylist(),
            batch.records.column("row").to_pylist(),
            batch.records.column("revision").to_pylist(),
            strict=True,
        )
    ]
    waiting = len(folder.documents.find(COLLECTION))
    folder.documents.put(reader.indexed(0, part.last))

    assert scores == [True]
    assert waiting > 0
    assert folder.documents.find(COLLECTION) == []
    assert reader.read("prod/other", [batch], partition=0, first=0, last=part.last) == {}
