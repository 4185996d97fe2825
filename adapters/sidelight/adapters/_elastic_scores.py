"""Scores that the detectors left, in the lake or beside it, for the rows that are indexed."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sidelight.adapters._elastic_documents import Score
from sidelight.adapters._lake_file import LakeFile
from sidelight.adapters._lake_manifest import Manifest
from sidelight.adapters._lake_reading import LakeReader
from sidelight.adapters._waiting_scores import indexed_scores, waiting_scores
from sidelight.logger._journal import Document, Documents
from sidelight.payloads import Batch

log = logging.getLogger(__name__)

_COLUMNS: Final = ["id", "row", "revision", "outlier_score", "p_value", "outlier"]
_ATTEMPTS: Final = 3


class ScoreReader:
    """Reads the scores of rows by their place in the journal.

    Parameters
    ----------
    data : Path
        The data folder.
    documents : Documents
        Where the lake's manifest is.

    """

    def __init__(self, data: Path, documents: Documents) -> None:
        self._reader = LakeReader(Path(data) / "lake")
        self._documents = documents
        self._manifest = Manifest(documents)

    def read(
        self, deployment: str, batches: Sequence[Batch], *, partition: int, first: int, last: int
    ) -> dict[tuple[str, int, int], Score]:
        """Return the scores of rows, by inference, row and revision; those without are missing.

        Parameters
        ----------
        first, last : int
            Positions of the batches in the journal, both included.

        """
        found: dict[tuple[str, int, int], Score] = {}
        for records in waiting_scores(
            self._documents, deployment, partition=partition, first=first, last=last
        ):
            _add(found, records)
        return found | self._of_lake(deployment, batches, partition, first, last)

    def indexed(self, partition: int, last: int) -> list[Document]:
        """Return what forgets scores that nobody needs any more, for the commit of their rows."""
        return indexed_scores(self._documents, partition, last)

    def _of_lake(
        self, deployment: str, batches: Sequence[Batch], partition: int, first: int, last: int
    ) -> dict[tuple[str, int, int], Score]:
        for attempt in range(_ATTEMPTS):
            files = [
                file
                for file in self._manifest.files("scores", deployment=deployment, fresh=attempt > 0)
                if file.partition == partition and file.first <= last and file.last >= first
            ]
            try:
                return self._read(files, batches)
            except FileNotFoundError:
                # A compaction has replaced it: the manifest knows by what.
                continue
        log.warning("scores are missing", extra={"deployment": deployment, "first": first})
        return {}

    def _read(
        self, files: Sequence[LakeFile], batches: Sequence[Batch]
    ) -> dict[tuple[str, int, int], Score]:
        if not files:
            return {}
        times = [pc.min_max(batch.records.column("time")) for batch in batches if len(batch)]
        start = pc.min(pa.array([item["min"].value for item in times])).as_py()
        end = pc.max(pa.array([item["max"].value for item in times])).as_py()
        kind = pa.timestamp("us", tz="UTC")
        inside = (pc.field("time") >= pa.scalar(start, kind)) & (
            pc.field("time") <= pa.scalar(end, kind)
        )
        wanted = pa.concat_arrays([batch.records.column("id") for batch in batches])
        found: dict[tuple[str, int, int], Score] = {}
        for file in files:
            if file.hot is None:
                table = pq.read_table(
                    self._reader.path(file), columns=_COLUMNS, filters=inside, partitioning=None
                )
            else:
                table = self._reader.part(file).filter(inside)
            _add(found, table.filter(pc.is_in(table.column("id"), value_set=wanted)))
        return found


def _add(found: dict[tuple[str, int, int], Score], table: pa.Table | pa.RecordBatch) -> None:
    columns = [table.column(name).to_pylist() for name in _COLUMNS]
    for name, row, revision, *score in zip(*columns, strict=True):
        found[name, row, revision] = (score[0], score[1], score[2])
