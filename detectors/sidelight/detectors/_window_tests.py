"""The tests of windows on all columns at once.

The same numbers, bit by bit, as ``PopulationStability``, ``KolmogorovSmirnov`` and ``ChiSquare``
give for one column after the other: at twenty columns the calls cost more than the arithmetic.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sidelight.detectors._chi_square import ChiSquare
from sidelight.detectors._comparison import Comparison
from sidelight.detectors._kolmogorov_smirnov import OrderedCells, numeric_comparisons
from sidelight.detectors._numeric_reference import NumericReference
from sidelight.detectors._population_stability import Bins
from sidelight.detectors._reference import ColumnReference
from sidelight.detectors._settings import DetectionSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Effects:
    """Comparisons of one window, one for each column, in the order of the columns."""

    stability: list[Comparison]
    shift: list[Comparison]

    @property
    def sufficient(self) -> bool:
        """Whether there were enough rows to say anything of any column."""
        return any(item.sufficient for item in self.shift)

    def distances(self) -> NDArray[np.float64]:
        """Shift of each column, 0 where there are too few rows; shape (n_columns,)."""
        return np.array([item.distance or 0.0 for item in self.shift])


class WindowTests:
    """What the tests of one reference need, made once.

    The cells of all columns stand in one row of counts, those of numeric columns first.

    Parameters
    ----------
    columns : mapping of str to NumericReference or CategoricalReference
        At least one.
    settings : DetectionSettings
        Thresholds.

    Attributes
    ----------
    offsets : ndarray of int, shape (n_columns,)
        Where the cells of each column begin in the row of counts.
    n_cells : int
        Length of the row.

    """

    def __init__(self, columns: Mapping[str, ColumnReference], settings: DetectionSettings) -> None:
        self._columns = list(columns.values())
        self._chi_square = ChiSquare(threshold=settings.drift_threshold)
        numeric = [isinstance(column, NumericReference) for column in self._columns]
        self._order = sorted(range(len(numeric)), key=lambda index: not numeric[index])
        self._n_numeric = sum(numeric)
        placed = [self._columns[index] for index in self._order]
        sizes = np.array([column.n_cells for column in placed])
        starts = np.cumsum(sizes) - sizes
        self.n_cells = int(sizes.sum())
        self.offsets = np.empty(len(placed), dtype=np.int64)
        self.offsets[self._order] = starts
        numeric_counts = [column.counts for column in placed[: self._n_numeric]]
        self._numeric_cells = int(sizes[: self._n_numeric].sum())
        # Missing values count, so that all numeric columns have the rows of the reference.
        self._n = int(numeric_counts[0].sum()) if numeric_counts else 0
        self._numeric = OrderedCells(numeric_counts, self._n) if numeric_counts else None
        self._bins = Bins([column.bin_counts for column in placed])
        # Bins are numbered along the cells: each is a run of them.
        first = [np.flatnonzero(np.diff(column.bins, prepend=-1)) for column in placed]
        self._bin_starts = np.concatenate(
            [at + start for at, start in zip(first, starts, strict=True)]
        )

    def compare(self, window: NDArray[np.uint16]) -> Effects:
        """Compare the cells of the rows of a window, shape (n_rows, n_columns)."""
        (effects,) = self.compare_each(window + self.offsets, [slice(0, len(window))])
        return effects

    def compare_each(self, places: NDArray[np.int64], windows: Sequence[slice]) -> list[Effects]:
        """Compare several windows: the calls for one cost as much as those for four.

        Parameters
        ----------
        places : ndarray of int, shape (n_rows, n_columns)
            Cells with the offset of their column added.
        windows : sequence of slice
            The rows of each.

        """
        bins, shifts, rows = [], [], []
        for window in windows:
            chosen = places[window]
            counts = np.bincount(chosen.ravel(), minlength=self.n_cells)
            bins.append(np.add.reduceat(counts, self._bin_starts))
            shifts.append(self._by_column(self._shift(counts, len(chosen))))
            rows.append(len(chosen))
        stability = self._bins.compare_each(np.stack(bins), np.array(rows))
        return [
            Effects(stability=self._by_column(found), shift=shift)
            for found, shift in zip(stability, shifts, strict=True)
        ]

    def _shift(self, counts: NDArray[np.int64], rows: int) -> list[Comparison]:
        shift: list[Comparison] = []
        if self._numeric is not None:
            numeric = counts[: self._numeric_cells]
            found = self._numeric.largest_differences(numeric, rows)
            shift += numeric_comparisons(self._n, rows, found)
        for index in self._order[self._n_numeric :]:
            column, start = self._columns[index], int(self.offsets[index])
            own = counts[start : start + column.n_cells]
            shift.append(self._chi_square.compare(column.counts, own))
        return shift

    def _by_column(self, placed: list[Comparison]) -> list[Comparison]:
        result = placed.copy()
        for index, item in zip(self._order, placed, strict=True):
            result[index] = item
        return result
