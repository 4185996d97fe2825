"""Rows of one deployment, layout and kind, gathered from the batches of a step."""

from dataclasses import dataclass, field

import pyarrow as pa

from sidelight.adapters._lake_hot import HotRows, Owner
from sidelight.adapters._lake_kinds import Kind
from sidelight.adapters._lake_rows import DAY_US
from sidelight.adapters._lake_writing import span


@dataclass(slots=True)
class Group:
    """Rows of one deployment, layout and kind, as they came."""

    deployment: str
    layout: bytes
    kind: Kind
    records: list[pa.RecordBatch] = field(default_factory=list)
    n_rows: int = 0

    def add(self, records: pa.RecordBatch) -> None:
        """Take the rows of one more batch."""
        self.records.append(records)
        self.n_rows += records.num_rows

    def n_days(self) -> int:
        """Return how many days its rows span; never fewer than they have."""
        spans = [span(item) for item in self.records]
        first, last = min(begin for begin, _ in spans), max(end for _, end in spans)
        return int(last // DAY_US - first // DAY_US + 1)


def joined(groups: list[Group]) -> list[HotRows]:
    """Put groups of one kind behind each other."""
    by_kind: dict[str, list[Group]] = {}
    for group in groups:
        by_kind.setdefault(group.kind.digest, []).append(group)
    joined = []
    for same in by_kind.values():
        records = [item for group in same for item in group.records]
        joined.append(
            HotRows(
                kind=same[0].kind,
                records=_one_batch(records),
                owners=[Owner(group.deployment, group.layout, group.n_rows) for group in same],
            )
        )
    return joined


def _one_batch(records: list[pa.RecordBatch]) -> pa.RecordBatch:
    if len(records) == 1:
        return records[0]
    # Metadata are not compared, and pyarrow before 19 has no other way.
    rows = pa.Table.from_batches(records, records[0].schema)
    return rows.combine_chunks().to_batches()[0]
