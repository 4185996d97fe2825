"""The second stage: decoded rows become files of the lake."""

from sidelight.adapters import Lake, Manifest
from sidelight.logger import Commit, Documents, Journals
from sidelight.payloads import Batch
from sidelight.service._inference_counts import count_inferences
from sidelight.service._lake_commits import LakeCommits
from sidelight.service._lake_tidying import LakeTidying
from sidelight.service._stage import STORING, Counts

_MAX_RECORDS = 4096
_MAX_BYTES = 64 << 20
# A file holds what came within half a second, or a full slice: queryable within a second.
_GATHER_NS = 500_000_000
# Each deployment costs some work however few its rows are: where there are many, more is gathered.
_GATHER_A_DEPLOYMENT_NS = 10_000_000
_MOST_GATHER_NS = 1_000_000_000


class StoringStage:
    """Takes decoded batches from ``inferences`` and makes them visible in the lake."""

    name = STORING

    def __init__(self, journals: Journals, documents: Documents, lake: Lake) -> None:
        self._journals = journals
        self._commits = LakeCommits(journals, documents, lake)
        self._lake = lake
        self._manifest = Manifest(documents)
        self._tidying = LakeTidying(journals, documents, lake, self._manifest)
        self._written_ns = 0
        self._gather_ns = _GATHER_NS
        forgotten = lake.sweep(self._manifest)
        if forgotten:
            journals.commit(Commit(group=STORING, journal="inferences", documents=forgotten))

    def reset(self) -> None:
        """Nothing is kept that is not committed, but what is to be deleted."""

    def step(self, now_ns: int) -> bool:
        """Write what was decoded; tidy up now and then."""
        # A clock that was set back makes nobody wait for what it showed before.
        if not 0 <= now_ns - self._written_ns < self._gather_ns and self._store(now_ns):
            return True
        return self._tidying.step(now_ns)

    def close(self) -> None:
        """Wait for a merge that is under way."""
        self._tidying.close()

    def _store(self, now_ns: int) -> bool:
        slices = self._journals.read_inferences(
            STORING, max_records=_MAX_RECORDS, max_bytes=_MAX_BYTES
        )
        for part in slices:
            batches = [Batch.from_ipc(record.payload) for record in part.records]
            with self._commits.staging():
                documents = self._lake.stage(
                    batches, first=part.first, last=part.last, partition=part.partition
                )
            counts = Counts()
            count_inferences(batches, counts)
            self._commits.commit(
                Commit(
                    group=STORING,
                    journal="inferences",
                    positions={part.partition: part.last + 1},
                    documents=documents,
                    counters=counts,
                )
            )
            self._written_ns = 0 if len(part.records) >= _MAX_RECORDS else now_ns
            self._tidying.note(now_ns)
            waiting_ns = _GATHER_A_DEPLOYMENT_NS * len({batch.deployment for batch in batches})
            self._gather_ns = min(max(_GATHER_NS, waiting_ns), _MOST_GATHER_NS)
        return bool(slices)
