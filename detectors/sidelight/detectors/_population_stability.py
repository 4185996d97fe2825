"""Population stability index on bins frozen from the reference."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sidelight.detectors._comparison import Comparison, insufficient
from sidelight.detectors._tail_probabilities import chi_square_tails
from sidelight.detectors.errors import ParameterError

# Half a count in every bin keeps the index finite when a bin is empty: the Jeffreys prior of a
# multinomial.
_PSEUDO_COUNT = 0.5
# With fewer rows a bin the chi-square scaling is wrong by a tenth and more (measured: the 99 %
# quantile at 10 rows a bin is 0.241, the formula says 0.219), so nothing is said.
_ROWS_PER_BIN = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class PopulationStability:
    """Population stability index, corrected for its bias.

    ``psi = sum((q - p) * ln(q / p))`` over the bins that are not empty in both samples, with
    ``p`` and ``q`` the smoothed shares of reference and window: the symmetrised
    Kullback-Leibler divergence, in nats. Without change ``psi`` is close to
    ``(1/n + 1/m) * chi2(B - 1)``; the distance is ``max(0, psi - (B - 1) * (1/n + 1/m))``.

    Parameters
    ----------
    threshold : float, default 0.1
        Distances from it on count as drift, in nats.

    Raises
    ------
    ParameterError
        If ``threshold`` is not above 0.

    References
    ----------
    B. Yurdakul, *Statistical properties of population stability index*, 2018, for the null
    distribution; the smoothing and the correction are ours.

    Examples
    --------
    >>> PopulationStability().compare(np.array([500, 500]), np.array([250, 250])).distance
    0.0
    >>> round(PopulationStability().compare(np.array([500, 500]), np.array([350, 150])).distance, 2)
    0.17

    """

    threshold: float = 0.1

    def __post_init__(self) -> None:
        """Reject a threshold that everything exceeds."""
        if not self.threshold > 0:
            raise ParameterError("threshold", self.threshold, "above 0")

    def compare(self, reference: NDArray[np.int64], window: NDArray[np.int64]) -> Comparison:
        """Compare counts of shape (B,) on the same bins."""
        bins = Bins([reference])
        ((answer,),) = bins.compare_each(window[np.newaxis], np.array([window.sum()]))
        return answer


class Bins:
    """The bins of several columns, one column after the other.

    Parameters
    ----------
    reference : sequence of ndarray of int, each of shape (n_bins,)
        Counts of each column.

    """

    def __init__(self, reference: Sequence[NDArray[np.int64]]) -> None:
        sizes = np.array([column.size for column in reference])
        self._starts = np.cumsum(sizes) - sizes
        self._counts = np.concatenate(reference)
        self._column = np.repeat(np.arange(sizes.size), sizes)
        self._n = np.add.reduceat(self._counts, self._starts)
        self._n_rows = self._n.tolist()
        self._smoothed = self._counts + _PSEUDO_COUNT
        self._inverse_n = 1 / np.maximum(self._n, 1)
        # Nearly every window fills no bin that the reference left empty.
        self._empty = np.flatnonzero(self._counts == 0)
        self._usual = self._used(self._counts > 0)

    def compare_each(
        self, windows: NDArray[np.int64], rows: NDArray[np.int64]
    ) -> list[list[Comparison]]:
        """Compare counts of windows, shape (n_windows, n_bins of all columns).

        Parameters
        ----------
        rows : ndarray of int, shape (n_windows,)
            Of each window.

        """
        if not windows.take(self._empty, axis=1).any():
            return self._compared(self._usual, windows, rows)
        answers = []
        for place, used in enumerate((self._counts + windows) > 0):
            one = slice(place, place + 1)
            answers += self._compared(self._used(used), windows[one], rows[one])
        return answers

    def _compared(
        self, known: "_Used", windows: NDArray[np.int64], rows: NDArray[np.int64]
    ) -> list[list[Comparison]]:
        of_window = rows[:, np.newaxis]
        p = known.p
        q = windows.take(known.bins, axis=1) + _PSEUDO_COUNT
        q /= (of_window + known.added).take(known.column, axis=1)
        index = _sums((q - p) * np.log(q / p), known.n_used)
        enough = np.minimum(self._n, of_window) >= known.needed
        scale = self._inverse_n + 1 / np.maximum(of_window, 1)
        distances = np.maximum(0.0, index - known.degrees * scale)
        degrees = np.broadcast_to(known.degrees, index.shape)
        tails = chi_square_tails(np.where(enough, index / scale, 0.0), degrees)
        answers = [
            list(map(Comparison, *found))
            for found in zip(distances.tolist(), tails.tolist(), strict=True)
        ]
        for window, place in np.argwhere(np.logical_not(enough)).tolist():
            n, m, least = self._n_rows[place], int(rows[window]), int(known.needed[place])
            answers[window][place] = insufficient(
                min(n, m), least, "window" if m < n else "reference"
            )
        return answers

    def _used(self, used: NDArray[np.bool_]) -> "_Used":
        n_used = np.add.reduceat(used, self._starts, dtype=np.int64)
        added = _PSEUDO_COUNT * n_used
        column = self._column[used]
        return _Used(
            bins=np.flatnonzero(used),
            column=column,
            n_used=n_used,
            degrees=n_used - 1,
            needed=_ROWS_PER_BIN * np.maximum(n_used, 2),
            added=added,
            p=self._smoothed[used] / (self._n + added)[column],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Used:
    """What follows from which bins are not empty in both samples.

    ``bins``, their ``column`` and their shares ``p`` are of each such bin, the rest of each column.
    """

    bins: NDArray[np.intp]
    column: NDArray[np.intp]
    n_used: NDArray[np.int64]
    degrees: NDArray[np.int64]
    needed: NDArray[np.int64]
    added: NDArray[np.float64]
    p: NDArray[np.float64]


def _sums(terms: NDArray[np.float64], sizes: NDArray[np.int64]) -> NDArray[np.float64]:
    """Sum the terms of each column of each window, in the order in which ``sum`` adds up those."""
    first = int(sizes[0])
    if (sizes == first).all():
        each = terms.reshape(len(terms) * sizes.size, first).sum(axis=1)
        return np.asarray(each.reshape(len(terms), sizes.size))
    sums = np.zeros((len(terms), sizes.size))
    of_column = np.repeat(sizes, sizes)
    for size in np.unique(sizes[sizes > 0]).tolist():
        chosen = np.ascontiguousarray(terms[:, of_column == size]).reshape(-1, size)
        sums[:, sizes == size] = chosen.sum(axis=1).reshape(len(terms), -1)
    return sums
