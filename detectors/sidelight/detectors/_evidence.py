"""Evidence of all monitored columns of a deployment since its tests last began."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sidelight.detectors._capital import Capital
from sidelight.detectors._conformal_ranks import ConformalRanks
from sidelight.detectors._simple_jumper import SimpleJumper, average_log10

# Without change evidence hovers a little above its low; this close to it, in decades, nothing
# has begun yet.
_NEAR = 0.02
# A chance gain stays in the capital, so the low may rise by this much a look, in decades; a change
# that matters gains decades a look.
_RISE = 0.1


@dataclass(slots=True)
class Evidence:
    """Martingales of the columns, their peaks, and where each began to rise.

    Attributes
    ----------
    peaks : ndarray of float, shape (n_columns,)
        Largest log10 evidence so far. Ville's inequality is about it, so it may be read ever after.
    average_peak : float
        Largest log10 of the average e-value so far.
    lows : ndarray of float, shape (n_columns,)
        Smallest log10 evidence of late.
    since : list of str
        Time of the row after which evidence last left its low: the estimated beginning of a change.

    """

    bag: ConformalRanks
    jumper: SimpleJumper
    peaks: NDArray[np.float64]
    average_peak: float
    lows: NDArray[np.float64]
    since: list[str]

    @classmethod
    def start(cls, reference_ranks: NDArray[np.int64]) -> "Evidence":
        """Begin with the reference in the bag, shape (n_columns, n_ranks)."""
        n = len(reference_ranks)
        return cls(
            ConformalRanks(reference_ranks.copy()),
            SimpleJumper(n),
            np.zeros(n),
            0.0,
            np.full(n, np.inf),
            [""] * n,
        )

    def update(
        self, ranks: NDArray[np.int64], u: NDArray[np.float64], times: Sequence[str]
    ) -> None:
        """Take rows of ranks and uniform numbers, shape (n_rows, n_columns), with their times."""
        evidence = self.jumper.update(self.bag.update(ranks, u))
        self.peaks = np.maximum(self.peaks, evidence.max(axis=0))
        self.average_peak = max(self.average_peak, float(average_log10(evidence).max()))
        self.lows = np.minimum(self.lows + _RISE, evidence.min(axis=0))
        last = len(evidence) - 1
        low = evidence <= self.lows + _NEAR
        for column in np.flatnonzero(low.any(axis=0)).tolist():
            low_row = last - int(np.argmax(low[::-1, column]))
            # The low row itself is still unchanged; its successor may be in the next block.
            self.since[column] = times[min(low_row + 1, last)]

    def to_parts(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Return what a snapshot keeps."""
        head, arrays = capital_parts(self.jumper.capital)
        head |= {"average_peak": self.average_peak, "since": self.since}
        arrays |= {"bag": self.bag.counts, "peaks": self.peaks, "lows": self.lows}
        return head, arrays

    @classmethod
    def from_parts(cls, head: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> "Evidence":
        """Read what ``to_parts`` returned."""
        return cls(
            ConformalRanks(arrays["bag"]),
            SimpleJumper.resume(capital_from_parts(head, arrays)),
            arrays["peaks"],
            head["average_peak"],
            arrays["lows"],
            list(head["since"]),
        )


def capital_parts(capital: Capital) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Return what a snapshot keeps of martingales."""
    return (
        {"age": capital.age, "jump_rate": capital.jump_rate},
        {"amounts": capital.amounts, "exponents": capital.exponents},
    )


def capital_from_parts(head: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Capital:
    """Read what ``capital_parts`` returned."""
    return Capital(arrays["amounts"], arrays["exponents"], head["age"], head["jump_rate"])
