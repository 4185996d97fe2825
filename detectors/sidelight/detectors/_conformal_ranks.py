"""Conformal p-values of a stream against everything seen before."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sidelight.detectors.errors import SampleError


@dataclass(slots=True)
class ConformalRanks:
    """Bags of ranks, one a column, that grow with every row.

    ``p_t = (#{i <= t: s_i > s_t} + u_t * #{i <= t: s_i = s_t}) / t`` over the reference and all
    rows so far: independent and uniform while reference and stream are exchangeable. A bag that
    stays fixed measures how well the reference happens to represent the truth as well: with
    enough rows any difference becomes evidence, and a false alarm certain (measured with a
    reference of 1,000: 3.5 % of streams of 10,000 rows at a level of 1 %, none when it grows). The
    bag holds counts on at most a few dozen ranks; ties within a rank are broken by ``u``.

    Parameters
    ----------
    counts : ndarray of int, shape (n_columns, n_ranks)
        Rows of the reference by rank. Becomes the state.

    References
    ----------
    V. Vovk, A. Gammerman, G. Shafer, *Algorithmic Learning in a Random World*, 2nd ed. 2022,
    chapter 8.

    """

    counts: NDArray[np.int64]

    @property
    def n_ranks(self) -> int:
        """Number of ranks."""
        return int(self.counts.shape[1])

    def update(self, ranks: NDArray[np.int64], u: NDArray[np.float64]) -> NDArray[np.float64]:
        """Take rows of shape (n_rows, n_columns); return their p-values, same shape, in [0, 1].

        ``u`` are uniform numbers of the same shape. Raises ``SampleError`` for ranks that there
        are not.
        """
        if ranks.shape != u.shape or ranks.ndim != 2 or ranks.shape[1] != len(self.counts):  # noqa: PLR2004
            raise SampleError("ranks", expected=f"(n, {len(self.counts)})", got=ranks.shape)
        if ranks.size and not 0 <= int(ranks.min()) <= int(ranks.max()) < self.n_ranks:
            raise SampleError("ranks", expected=f"0 to {self.n_ranks - 1}", got=int(ranks.max()))
        p_values = np.empty(ranks.shape)
        for column in range(ranks.shape[1]):
            p_values[:, column] = self._column(column, ranks[:, column], u[:, column])
        return p_values

    def _column(
        self, column: int, ranks: NDArray[np.int64], u: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        bag = self.counts[column]
        rows = np.arange(ranks.size)
        hits = np.zeros((ranks.size + 1, self.n_ranks), dtype=np.int32)
        hits[rows + 1, ranks] = 1
        # Row t of `before` counts the block's rows before row t, by rank.
        before = np.cumsum(hits, axis=0, dtype=np.int32)
        upto = np.cumsum(before, axis=1, dtype=np.int32)
        total = int(bag.sum())
        greater = (total - np.cumsum(bag))[ranks] + rows - upto[rows, ranks]
        equal = bag[ranks] + before[rows, ranks] + 1
        bag += before[-1]
        return np.asarray((greater + u * equal) / (total + rows + 1), dtype=np.float64)
