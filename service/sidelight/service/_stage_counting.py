"""The second stage where there is no lake: what was decoded is counted, as storing does it."""

from typing import Final

from sidelight.logger import Commit, Journals
from sidelight.payloads import Batch
from sidelight.service._inference_counts import count_inferences
from sidelight.service._stage import STORING, Counts

_MAX_RECORDS: Final = 4096
_MAX_BYTES: Final = 64 << 20
# A commit costs the disk a sync however little it counts.
_GATHER_NS: Final = 200_000_000


class CountingStage:
    """Takes decoded batches from ``inferences`` and counts them, at the position of storing.

    So a lake that is turned on later goes on from there.

    Parameters
    ----------
    journals : Journals

    """

    name = STORING

    def __init__(self, journals: Journals) -> None:
        self._journals = journals
        self._counted_ns = 0

    def reset(self) -> None:
        """Nothing is kept that is not committed."""

    def step(self, now_ns: int) -> bool:
        """Count what was decoded."""
        # A clock that was set back makes nobody wait for what it showed before.
        if 0 <= now_ns - self._counted_ns < _GATHER_NS:
            return False
        slices = self._journals.read_inferences(
            STORING, max_records=_MAX_RECORDS, max_bytes=_MAX_BYTES
        )
        for part in slices:
            counts = Counts()
            count_inferences([Batch.from_ipc(record.payload) for record in part.records], counts)
            self._journals.commit(
                Commit(
                    group=STORING,
                    journal="inferences",
                    positions={part.partition: part.last + 1},
                    counters=counts,
                )
            )
            self._counted_ns = 0 if len(part.records) >= _MAX_RECORDS else now_ns
        return bool(slices)
