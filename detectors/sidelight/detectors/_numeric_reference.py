"""Frozen summary of the reference values of one numeric column."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sidelight.detectors._values import Values
from sidelight.detectors.errors import SampleError

MISSING = 0
# More distinct values than this are thinned to as many quantiles: cell numbers fit 16 bits.
_MAX_POINTS = 16_000


@dataclass(frozen=True, slots=True)
class NumericReference:
    """Cells of the number line, frozen from a reference, and how often the reference fell in each.

    The distinct reference values ``u_1 < ... < u_k`` cut the line into ``2k + 1`` cells: the gap
    before each value, the value itself, and the gap after the last. Cell 0 is "missing", so missing
    counts as smaller than everything. Every statistic of a window is a function of its counts on
    these cells, and counts add. Two samples have the same Kolmogorov-Smirnov distance on the cells
    as on their values, ties included.

    Attributes
    ----------
    points : ndarray of float, shape (k,)
        Distinct reference values, ascending.
    counts : ndarray of int, shape (2k + 2,)
        Reference rows in each cell.
    bins : ndarray of int, shape (2k + 2,)
        Number of the quantile bin of each cell; 0 is missing.
    bin_counts : ndarray of int, shape (n_bins + 1,)
        Reference rows in each bin.

    """

    points: NDArray[np.float64]
    counts: NDArray[np.int64]
    bins: NDArray[np.int64]
    bin_counts: NDArray[np.int64]

    @classmethod
    def fit(cls, values: Values, *, n_bins: int) -> "NumericReference":
        """Summarise reference values; raise ``SampleError`` when all are missing."""
        present = values.numbers[~np.isnan(values.numbers)]
        if present.size == 0:
            raise SampleError("reference", expected="at least one value", got="none")
        points = np.unique(present)
        if points.size > _MAX_POINTS:
            ranks = np.linspace(0, points.size - 1, _MAX_POINTS).round().astype(np.int64)
            points = points[ranks]
        # The first of equal zeros decides the sign; both are the same number.
        points = points + 0.0
        counts = np.bincount(_locate(points, values.numbers), minlength=2 * points.size + 2)
        return cls.build(points, counts.astype(np.int64), _quantile_bins(counts, n_bins))

    @classmethod
    def build(
        cls, points: NDArray[np.float64], counts: NDArray[np.int64], bins: NDArray[np.int64]
    ) -> "NumericReference":
        """Put a summary together from its parts."""
        bin_counts = np.bincount(bins, weights=counts).astype(np.int64)
        return cls(points, counts, bins, bin_counts)

    @property
    def n_cells(self) -> int:
        """Cells, the missing one included."""
        return self.counts.size

    @property
    def constant(self) -> bool:
        """Whether the reference had one value only."""
        return self.points.size == 1

    def cells(self, values: Values) -> NDArray[np.uint16]:
        """Cell of each value, shape (n,). Words are no numbers: they count as missing."""
        return _locate(self.points, values.numbers).astype(np.uint16)

    def ranks(self, n_ranks: int) -> NDArray[np.int64]:
        """Coarse rank of each cell, for the conformal test: missing is 0, then equal shares."""
        return _quantile_bins(self.counts, n_ranks)

    def to_parts(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Return what a snapshot keeps."""
        return {"type": "numeric"}, {
            "points": self.points,
            "counts": self.counts,
            "bins": self.bins,
        }


def _locate(points: NDArray[np.float64], numbers: NDArray[np.float64]) -> NDArray[np.int64]:
    # Two cells for each point below a value, one more for a point that equals it. NaN sorts behind
    # all points and equals none.
    below = points.searchsorted(numbers)
    cells = 2 * below
    cells += points.take(below, mode="clip") == numbers
    cells += 1
    cells[np.isnan(numbers)] = MISSING
    return np.asarray(cells, dtype=np.int64)


def _quantile_bins(counts: NDArray[np.int64], n_bins: int) -> NDArray[np.int64]:
    """Group the cells into at most ``n_bins`` bins of about equal reference share, from 1 on."""
    present = counts[1:]
    # A cell belongs to the bin that its last reference row falls in: bins are (a, b]. A gap without
    # reference rows goes with the value above it, the last gap with the last bin, so that every
    # bin holds part of the reference.
    upto = np.cumsum(present)
    bins = np.maximum(upto - 1, 0) * n_bins // max(int(upto[-1]), 1)
    bins[present == 0] = n_bins - 1
    bins = np.minimum.accumulate(bins[::-1])[::-1]
    bins = np.minimum(bins, bins[np.flatnonzero(present)[-1]])
    # Heavy ties leave numbers unused; bins are counted without gaps.
    _, dense = np.unique(bins, return_inverse=True)
    return np.concatenate([[0], dense.reshape(-1) + 1]).astype(np.int64)
