"""Two-sample chi-square test of categories."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sidelight.detectors._comparison import Comparison, insufficient
from sidelight.detectors._tail_probabilities import chi_square_tail
from sidelight.detectors.errors import ParameterError

_MIN_ROWS = 30
# Cochran's rule: the chi-square distribution holds when every expected count is at least this.
_MIN_EXPECTED = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ChiSquare:
    """Two-sample chi-square test, with the total variation distance as its effect size.

    The p-value is Pearson's of the 2 x K table, after cells with an expected count below 5 were
    merged with each other, rarest first. The distance is ``sqrt(max(0, T**2 - b**2))``, with
    ``T = sum(|q - p|) / 2`` over all cells (the share of rows that changed category) and
    ``b`` its expectation without change in the normal approximation; the correction is ours.

    Parameters
    ----------
    threshold : float, default 0.1
        Distances from it on count as drift, in (0, 1].

    Raises
    ------
    ParameterError
        If ``threshold`` is outside its range.

    """

    threshold: float = 0.1

    def __post_init__(self) -> None:
        """Reject a threshold that nothing or everything exceeds."""
        if not 0 < self.threshold <= 1:
            raise ParameterError("threshold", self.threshold, "above 0 and at most 1")

    def compare(self, reference: NDArray[np.int64], window: NDArray[np.int64]) -> Comparison:
        """Compare counts of shape (n_cells,) on the same cells."""
        n, m = int(reference.sum()), int(window.sum())
        if min(n, m) < _MIN_ROWS:
            return insufficient(min(n, m), _MIN_ROWS, "window" if m < n else "reference")
        moved = float(np.abs(window / m - reference / n).sum()) / 2
        pooled = (reference + window) / (n + m)
        spread = np.sqrt(pooled * (1 - pooled) * (1 / n + 1 / m))
        chance = math.sqrt(2 / math.pi) / 2 * float(spread.sum())
        return Comparison(
            distance=math.sqrt(max(0.0, moved * moved - chance * chance)),
            p_value=_pearson(*merge_rare(reference, window)),
        )


def merge_rare(
    reference: NDArray[np.int64], window: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Merge the rarest cells until every expected count is at least 5 or one cell is left."""
    n, m = int(reference.sum()), int(window.sum())
    pooled = reference + window
    order = np.argsort(pooled, kind="stable")
    order = order[pooled[order] > 0]
    needed = _MIN_EXPECTED * (n + m) / min(n, m)
    reached = np.cumsum(pooled[order]) >= needed
    rare = pooled[order] < needed
    n_merged = max(int(rare.sum()), 1)
    if not reached[n_merged - 1]:
        n_merged = min(n_merged + 1, order.size)
    starts = np.concatenate([[0], np.arange(n_merged, order.size)])
    return (
        np.add.reduceat(reference[order], starts),
        np.add.reduceat(window[order], starts),
    )


def _pearson(reference: NDArray[np.int64], window: NDArray[np.int64]) -> float:
    n, m = int(reference.sum()), int(window.sum())
    balance = math.sqrt(n / m)
    statistic = ((balance * window - reference / balance) ** 2 / (reference + window)).sum()
    return chi_square_tail(float(statistic), reference.size - 1)
