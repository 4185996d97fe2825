"""Evidence of all monitored columns of a deployment since its tests last began."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sidelight.detectors._capital import Capital, play_together
from sidelight.detectors._conformal_ranks import ConformalRanks
from sidelight.detectors._outlier_rate import OutlierRate
from sidelight.detectors._rise import Rise, Risen
from sidelight.detectors._simple_jumper import SimpleJumper, average_log10, bets_on


class Played(NamedTuple):
    """What was played between two looks.

    Attributes
    ----------
    evidence : ndarray of float, shape (n_rows, n_columns)
        Decimal logarithm of the capital of each column after each row.
    largest : ndarray of float, shape (n_rows,)
        Of the columns.
    risen : Risen
        What it makes of ``Evidence.rise``.

    """

    evidence: NDArray[np.float64]
    largest: NDArray[np.float64]
    risen: Risen


@dataclass(slots=True)
class Evidence:
    """Martingales of the columns against exchangeability with the reference.

    Attributes
    ----------
    rise : Rise
        Of each column.
    average_peak : float
        Largest log10 of the average e-value so far.

    """

    bag: ConformalRanks
    jumper: SimpleJumper
    rise: Rise
    average_peak: float

    @classmethod
    def start(cls, reference_ranks: NDArray[np.int64]) -> "Evidence":
        """Begin with the reference in the bag, shape (n_columns, n_ranks)."""
        n = len(reference_ranks)
        return cls(ConformalRanks(reference_ranks.copy()), SimpleJumper(n), Rise.start(n), 0.0)

    def play(self, ranks: NDArray[np.integer[Any]], u: NDArray[np.float64]) -> NDArray[np.float64]:
        """Play rows of any number of looks.

        Parameters
        ----------
        ranks : ndarray of int, shape (n_rows, n_columns)
            Of the rows' cells.
        u : ndarray of float, shape (n_rows, n_columns)
            Uniform numbers.

        Returns
        -------
        ndarray of float, shape (n_rows, n_columns)
            Decimal logarithm of the capital of each column after each row, for ``after_each``.

        """
        return self.jumper.update(self.bag.update(ranks, u))

    def play_beside(
        self,
        ranks: NDArray[np.integer[Any]],
        u: NDArray[np.float64],
        other: Capital,
        other_factors: NDArray[np.float64],
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Do the same, and play factors of another capital in the same loop."""
        factors = bets_on(self.bag.update(ranks, u), beside=other_factors.shape[2])
        factors[:, :, ranks.shape[1] :] = other_factors
        return play_together(self.jumper.capital, other, factors)

    def after_each(self, evidence: NDArray[np.float64], n_looks: int) -> list["Played"]:
        """Part what was played since the last look by the looks to come, for ``note``."""
        n_columns = evidence.shape[1]
        blocks = evidence.T.reshape(n_columns, n_looks, -1).transpose(1, 2, 0)
        largest = evidence.max(axis=1).reshape(n_looks, -1)
        return list(map(Played, blocks, largest, self.rise.after_each(evidence, n_looks)))

    def note(self, played: "Played", times: Sequence[str]) -> None:
        """Take what was played since the last look, of rows at these times."""
        self.rise.take(played.risen, times)
        # An average is not above the largest: most rows need not be averaged.
        if played.largest.max() > self.average_peak:
            chosen = played.evidence[played.largest > self.average_peak]
            self.average_peak = max(self.average_peak, float(average_log10(chosen).max()))

    def copy(self) -> "Evidence":
        """Return the same, to be played while this stays where it is; they share their rise."""
        jumper = SimpleJumper.resume(replace(self.jumper.capital))
        return replace(self, bag=replace(self.bag), jumper=jumper)

    def to_parts(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Return what a snapshot keeps."""
        head, arrays = _parts(self.jumper.capital, self.rise)
        return head | {"average_peak": self.average_peak}, arrays | {
            "bag": _narrow(self.bag.counts)
        }

    @classmethod
    def from_parts(cls, head: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> "Evidence":
        """Read what ``to_parts`` returned."""
        capital, rise = _from_parts(head, arrays)
        jumper = SimpleJumper.resume(capital)
        bag = arrays["bag"].astype(np.int64)
        return cls(ConformalRanks(bag), jumper, rise, head["average_peak"])


@dataclass(slots=True)
class RateEvidence:
    """Evidence that there are more outliers than the calibration allows."""

    capital: Capital
    rise: Rise

    @classmethod
    def start(cls) -> "RateEvidence":
        """Begin with no evidence."""
        return cls(OutlierRate.start(), Rise.start(1))

    @property
    def peak(self) -> float:
        """Largest log10 evidence so far."""
        return float(self.rise.peaks[0])

    def copy(self) -> "RateEvidence":
        """Return the same as ``Evidence.copy`` does."""
        return replace(self, capital=replace(self.capital))

    def to_parts(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Return what a snapshot keeps."""
        return _parts(self.capital, self.rise)

    @classmethod
    def from_parts(
        cls, head: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]
    ) -> "RateEvidence":
        """Read what ``to_parts`` returned."""
        return cls(*_from_parts(head, arrays))


def _narrow(counts: NDArray[np.int64]) -> NDArray[Any]:
    """Return counts in a quarter of the room where they are small, as they are for long."""
    return counts.astype(np.uint16) if counts.max(initial=0) < 2**16 else counts


def _parts(capital: Capital, rise: Rise) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    head, arrays = rise.to_parts()
    head |= {"age": capital.age, "jump_rate": capital.jump_rate}
    return head, arrays | {"amounts": capital.amounts, "exponents": capital.exponents}


def _from_parts(
    head: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]
) -> tuple[Capital, Rise]:
    amounts, exponents = arrays["amounts"], arrays["exponents"]
    capital = Capital(amounts, exponents, head["age"], head["jump_rate"])
    return capital, Rise.from_parts(head, arrays)
