"""Rows of one file of the lake that are past their time, and those that stay."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

Span = tuple[int | None, int | None]
"""From (included) to (excluded), microseconds since 1970 UTC; None is open."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Remainder:
    """What stays of a file.

    Parameters
    ----------
    stays : array of bool, shape (n_rows,)
        One for each row of the file, in its order.
    min_us, max_us : int
        Times of the rows that stay; 0 when there are none.

    """

    stays: NDArray[np.bool_]
    min_us: int
    max_us: int

    @property
    def rows(self) -> int:
        """How many stay."""
        return int(self.stays.sum())


def meets(start_us: int, end_us: int, span: Span) -> bool:
    """Whether times from ``start_us`` to ``end_us``, both included, reach into a span."""
    first, behind = span
    return (first is None or end_us >= first) and (behind is None or start_us < behind)


def remainder(path: Path, *, before_us: int, kept: Sequence[Span]) -> Remainder:
    """Read the times of a file and say which of its rows stay."""
    column = pq.ParquetFile(path).read(columns=["time"]).column("time")
    times: NDArray[np.int64] = column.cast(pa.int64()).to_numpy()
    stays = times >= before_us
    for first, behind in kept:
        inside = np.ones(len(times), dtype=np.bool_)
        if first is not None:
            inside &= times >= first
        if behind is not None:
            inside &= times < behind
        stays |= inside
    left = times[stays]
    if not len(left):
        return Remainder(stays=stays, min_us=0, max_us=0)
    return Remainder(stays=stays, min_us=int(left.min()), max_us=int(left.max()))


def staying_rows(path: Path, stays: NDArray[np.bool_]) -> Iterator[pa.Table]:
    """Read the rows of a file that stay, one row group at a time."""
    file = pq.ParquetFile(path)
    begin = 0
    for number in range(file.num_row_groups):
        group = file.read_row_group(number)
        mask = stays[begin : begin + group.num_rows]
        begin += group.num_rows
        if mask.any():
            yield group.filter(pa.array(mask))
