"""Frozen summary of the reference values of one categorical column."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sidelight.detectors._values import Values, number_word
from sidelight.detectors.errors import SampleError

MISSING = 0


@dataclass(frozen=True, slots=True)
class CategoricalReference:
    """Categories of a reference by frequency, and how often each occurred.

    Cells: 0 missing; 1 to K the K most frequent categories, most frequent first, equal ones
    in alphabetical order; K + 1 the other categories of the reference; K + 2 what the
    reference never had. In this order the cell is a score of strangeness, smallest for the most
    ordinary value.

    Attributes
    ----------
    categories : tuple of str
        Every category of the reference, most frequent first.
    n_kept : int
        K, how many of them have a cell of their own.
    counts : ndarray of int, shape (K + 3,)
        Reference rows in each cell.

    """

    categories: tuple[str, ...]
    n_kept: int
    counts: NDArray[np.int64]
    _cells: Mapping[str, int]

    @classmethod
    def fit(cls, values: Values, *, n_categories: int) -> "CategoricalReference":
        """Summarise reference values; raise ``SampleError`` when all are missing."""
        words = values.as_categories()
        found = Counter(word for word in words if word is not None)
        if not found:
            raise SampleError("reference", expected="at least one value", got="none")
        categories = tuple(sorted(found, key=lambda word: (-found[word], word)))
        kept = min(n_categories, len(categories))
        counts = np.zeros(kept + 3, dtype=np.int64)
        counts[MISSING] = words.count(None)
        counts[1 : kept + 1] = [found[word] for word in categories[:kept]]
        counts[kept + 1] = sum(found[word] for word in categories[kept:])
        return cls.build(categories, kept, counts)

    @classmethod
    def build(
        cls, categories: Sequence[str], n_kept: int, counts: NDArray[np.int64]
    ) -> "CategoricalReference":
        """Put a summary together from its parts."""
        cells = {word: min(rank, n_kept) + 1 for rank, word in enumerate(categories)}
        return cls(tuple(categories), n_kept, counts, cells)

    @property
    def n_cells(self) -> int:
        """Cells: missing, kept, other and new."""
        return self.counts.size

    @property
    def constant(self) -> bool:
        """Whether the reference had one value only."""
        return len(self.categories) == 1

    @property
    def bins(self) -> NDArray[np.int64]:
        """Every cell is a bin of its own."""
        return np.arange(self.n_cells, dtype=np.int64)

    @property
    def bin_counts(self) -> NDArray[np.int64]:
        """Reference rows in each bin."""
        return self.counts

    def cells(self, values: Values) -> NDArray[np.uint16]:
        """Cell of each value, shape (n,)."""
        new = self.n_kept + 2
        cells = np.zeros(values.numbers.size, dtype=np.uint16)
        find = self._cells.get
        present = np.flatnonzero(~np.isnan(values.numbers))
        for row, number in zip(present.tolist(), values.numbers[present].tolist(), strict=True):
            cells[row] = find(number_word(number), new)
        if len(values.words) == cells.size:
            cells[:] = [find(word, new) for word in values.words.values()]
            return cells
        for row, word in values.words.items():
            cells[row] = find(word, new)
        return cells

    def ranks(self, n_ranks: int) -> NDArray[np.int64]:
        """Coarse rank of each cell, for the conformal test; the rarest of many share one."""
        ranks = np.minimum(np.arange(self.n_cells, dtype=np.int64), n_ranks - 2)
        ranks[-1] = min(self.n_cells - 1, n_ranks - 1)
        return ranks

    def surprise(self) -> NDArray[np.float64]:
        """Surprise of each cell, in nats: minus the logarithm of its smoothed reference share."""
        smoothed = self.counts + 0.5
        return np.asarray(-np.log(smoothed / smoothed.sum()), dtype=np.float64)

    def to_parts(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Return what a snapshot keeps."""
        head = {"type": "categorical", "categories": self.categories, "n_kept": self.n_kept}
        return head, {"counts": self.counts}
