"""The second stage: decoded rows become Parquet files of the lake."""

import logging

from sidelight.adapters import Lake, Manifest
from sidelight.logger import Commit, Documents, Journals
from sidelight.payloads import Batch
from sidelight.service._inference_counts import count_inferences
from sidelight.service._stage import STORING, Counts

log = logging.getLogger(__name__)

_MAX_RECORDS = 4096
_MAX_BYTES = 64 << 20
# A file holds what came within half a second, or a full slice: queryable within a second.
_GATHER_NS = 500_000_000
# A file costs a millisecond or two however short it is: where there are many deployments each
# gets fewer and longer ones.
_GATHER_A_FILE_NS = 10_000_000
_MOST_GATHER_NS = 1_000_000_000
_TIDY_NS = 15_000_000_000
# Queries hold files that a compaction replaced for no longer than this.
_GRACE_NS = 60_000_000_000


class StoringStage:
    """Takes decoded batches from ``inferences`` and makes them visible in the lake."""

    name = STORING

    def __init__(self, journals: Journals, documents: Documents, lake: Lake) -> None:
        self._journals = journals
        self._lake = lake
        self._manifest = Manifest(documents)
        self._obsolete: list[tuple[int, tuple[str, ...]]] = []
        self._written_ns = 0
        self._gather_ns = _GATHER_NS
        self._tidied_ns = 0
        forgotten = lake.sweep(self._manifest)
        if forgotten:
            journals.commit(Commit(group=STORING, journal="inferences", documents=forgotten))

    def reset(self) -> None:
        """Nothing is kept that is not committed."""

    def step(self, now_ns: int) -> bool:
        """Write what was decoded; tidy up now and then."""
        # A clock that was set back makes nobody wait for what it showed before.
        if not 0 <= now_ns - self._written_ns < self._gather_ns and self._store(now_ns):
            return True
        return not 0 <= now_ns - self._tidied_ns < _TIDY_NS and self._tidy(now_ns)

    def _store(self, now_ns: int) -> bool:
        slices = self._journals.read_inferences(
            STORING, max_records=_MAX_RECORDS, max_bytes=_MAX_BYTES
        )
        for part in slices:
            batches = [Batch.from_ipc(record.payload) for record in part.records]
            documents = self._lake.stage(
                batches, first=part.first, last=part.last, partition=part.partition
            )
            counts = Counts()
            count_inferences(batches, counts)
            self._journals.commit(
                Commit(
                    group=STORING,
                    journal="inferences",
                    positions={part.partition: part.last + 1},
                    documents=documents,
                    counters=counts,
                )
            )
            self._written_ns = 0 if len(part.records) >= _MAX_RECORDS else now_ns
            waiting_ns = _GATHER_A_FILE_NS * len(documents)
            self._gather_ns = min(max(_GATHER_NS, waiting_ns), _MOST_GATHER_NS)
        return bool(slices)

    def _tidy(self, now_ns: int) -> bool:
        self._tidied_ns = now_ns
        due = [paths for since, paths in self._obsolete if now_ns - since > _GRACE_NS]
        self._obsolete = [item for item in self._obsolete if now_ns - item[0] <= _GRACE_NS]
        forgotten = [document for paths in due for document in self._lake.remove(paths)]
        if forgotten:
            self._journals.commit(Commit(group=STORING, journal="inferences", documents=forgotten))
        compaction = self._lake.compact(self._manifest)
        if compaction is None:
            return bool(forgotten)
        self._journals.commit(
            Commit(group=STORING, journal="inferences", documents=compaction.documents)
        )
        self._obsolete.append((now_ns, compaction.obsolete))
        self._tidied_ns = 0
        return True
