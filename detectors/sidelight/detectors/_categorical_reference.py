"""Frozen summary of the reference values of one categorical column."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sidelight.detectors._values import Values, bounded, number_word
from sidelight.detectors.errors import SampleError

MISSING = 0


@dataclass(frozen=True, slots=True)
class CategoricalReference:
    """Categories of a reference by frequency, and how often each occurred.

    Cells: 0 missing; 1 to K the categories that are told apart, most frequent first, equal ones in
    alphabetical order; K + 1 every other value, whether the reference had it or not. In this
    order the cell is a score of strangeness, smallest for the most ordinary value.

    With more than ``n_categories`` distinct values, the even rows choose which are told apart and
    the odd rows are counted. Chosen and counted on the same rows, the most frequent of many would
    look more frequent than they are (of 100 equal ones the top 30 hold 41 % of 1,000 rows instead
    of 30 %), and every new row would be a change.

    Attributes
    ----------
    categories : tuple of str, length K
        Categories that are told apart.
    counts : ndarray of int, shape (K + 2,)
        Reference rows in each cell.
    bins : ndarray of int, shape (K + 2,)
        Number of the bin of each cell; the rarest share the last one.
    surprises : ndarray of float, shape (K + 2,)
        Minus the logarithm of the smoothed share of each cell in the even rows, in nats: the
        outlier detector learns from these and is calibrated on the odd ones.

    """

    categories: tuple[str, ...]
    counts: NDArray[np.int64]
    bins: NDArray[np.int64]
    surprises: NDArray[np.float64]
    bin_counts: NDArray[np.int64]
    _cells: Mapping[str, int]

    @classmethod
    def fit(cls, values: Values, *, n_categories: int, n_bins: int = 10) -> "CategoricalReference":
        """Summarise reference values; raise ``SampleError`` when all are missing."""
        words = values.as_categories()
        present = [word for word in words if word is not None]
        if not present:
            raise SampleError("reference", expected="at least one value", got="none")
        chosen, counted = _by_frequency(present), words
        if len(chosen) > n_categories:
            chosen = _by_frequency([word for word in words[0::2] if word is not None])
            chosen, counted = chosen[:n_categories], words[1::2]
        cells = _cell_numbers(chosen)
        n_cells = len(chosen) + 2
        return cls.build(
            chosen,
            _count(counted, cells, n_cells),
            np.minimum(np.arange(n_cells, dtype=np.int64), n_bins),
            _surprises(_count(words[0::2], cells, n_cells)),
        )

    @classmethod
    def build(
        cls,
        categories: Sequence[str],
        counts: NDArray[np.int64],
        bins: NDArray[np.int64],
        surprises: NDArray[np.float64],
    ) -> "CategoricalReference":
        """Put a summary together from its parts."""
        bin_counts = np.bincount(bins, weights=counts).astype(np.int64)
        cells = _cell_numbers(categories)
        return cls(tuple(categories), counts, bins, surprises, bin_counts, cells)

    @property
    def n_cells(self) -> int:
        """Cells: missing, K categories, others."""
        return self.counts.size

    @property
    def constant(self) -> bool:
        """Whether the reference had one value only."""
        return int((self.counts[1:] > 0).sum()) <= 1

    def cells(self, values: Values) -> NDArray[np.uint16]:
        """Cell of each value, shape (n,)."""
        other = len(self.categories) + 1
        cells = np.zeros(values.numbers.size, dtype=np.uint16)
        find = self._cells.get
        if len(values.words) == cells.size:
            cells[:] = [find(word, other) for word in values.words.values()]
            return cells
        present = np.flatnonzero(~np.isnan(values.numbers))
        for row, number in zip(present.tolist(), values.numbers[present].tolist(), strict=True):
            cells[row] = find(number_word(number), other)
        for row, word in values.words.items():
            cells[row] = find(word, other)
        return cells

    def ranks(self, n_ranks: int) -> NDArray[np.int64]:
        """Coarse rank of each cell, for the conformal test; the rarest of many share one."""
        return np.minimum(np.arange(self.n_cells, dtype=np.int64), n_ranks)

    def to_parts(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Return what a snapshot keeps."""
        head = {"type": "categorical", "categories": self.categories}
        return head, {"counts": self.counts, "bins": self.bins, "surprises": self.surprises}


def _by_frequency(words: Sequence[str]) -> list[str]:
    found = Counter(words)
    return sorted(found, key=lambda word: (-found[word], word))


def _cell_numbers(categories: Sequence[str]) -> dict[str, int]:
    # References of versions before may hold long ones whole.
    return {bounded(word): cell for cell, word in enumerate(categories, start=1)}


def _count(
    words: Sequence[str | None], cells: Mapping[str, int], n_cells: int
) -> NDArray[np.int64]:
    found = [MISSING if word is None else cells.get(word, n_cells - 1) for word in words]
    return np.bincount(np.array(found, dtype=np.int64), minlength=n_cells).astype(np.int64)


def _surprises(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    smoothed = counts + 0.5
    return np.asarray(-np.log(smoothed / smoothed.sum()), dtype=np.float64)
