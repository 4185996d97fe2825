"""What looks to come will judge, found for several of them at once.

The calls for the rows of one look cost as much as the work; those for sixteen looks cost the same.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sidelight.detectors._evidence import Evidence, Played, RateEvidence
from sidelight.detectors._outlier_rate import OutlierRate
from sidelight.detectors._reference import Reference
from sidelight.detectors._rise import Risen
from sidelight.detectors._settings import OUTLIER_CALIBRATION_SHARE, DetectionSettings
from sidelight.detectors._uniforms import seed_of, uniforms
from sidelight.detectors._window_tests import Effects, WindowTests

# Ranks of the bag; a Jumper's bets are smooth, so finer ranks add nothing but state.
N_RANKS = 64


class Stretch(NamedTuple):
    """Rows since a look, behind those that are in the window of the next one as well.

    Attributes
    ----------
    begin : int
        Rows that were taken before the first one since the look.
    n_before : int
        How many of ``places`` and ``outliers`` stand before it.
    places : ndarray of int, shape (n_rows, n_columns)
        Cells, with the offsets of ``WindowTests``.

    """

    begin: int
    n_before: int
    places: NDArray[np.int64]
    outliers: NDArray[np.bool_]

    def first(self, n_rows: int) -> "Stretch":
        """Return the first rows since the look."""
        end = self.n_before + n_rows
        return self._replace(places=self.places[:end], outliers=self.outliers[:end])


class Found(NamedTuple):
    """What one look judges; the rate of outliers is not watched where there is none."""

    effects: Effects
    evidence: Played
    rate_evidence: Risen | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Game:
    """What playing rows and comparing windows need of a reference with columns, made once.

    Attributes
    ----------
    ranks : ndarray of int, shape (n_cells,)
        Coarse rank of each cell of each column.
    reference_ranks : ndarray of int, shape (n_columns, n_ranks)
        Rows of the reference by rank.
    seeds : ndarray of int, shape (n_columns,)
        Of the uniform numbers of each column.
    rate : OutlierRate or None
        None where outliers are not watched.

    """

    settings: DetectionSettings
    tests: WindowTests
    ranks: NDArray[np.uint8]
    reference_ranks: NDArray[np.int64]
    seeds: NDArray[np.uint64]
    rate: OutlierRate | None

    @classmethod
    def of(cls, deployment: str, reference: Reference, settings: DetectionSettings) -> "Game":
        """Read a reference."""
        columns = reference.columns
        tests = WindowTests(columns, settings)
        flat = np.zeros(tests.n_cells, dtype=np.uint8)
        ranks = np.zeros((len(columns), N_RANKS + 1), dtype=np.int64)
        for index, column in enumerate(columns.values()):
            own, offset = column.ranks(N_RANKS), int(tests.offsets[index])
            flat[offset : offset + own.size] = own
            # Float sums of counts are exact far beyond any window.
            sums = np.bincount(own, weights=column.counts).astype(np.int64)
            ranks[index, : sums.size] = sums
        return cls(
            settings=settings,
            tests=tests,
            ranks=flat,
            reference_ranks=ranks,
            seeds=np.array([seed_of(deployment, name) for name in columns], dtype=np.uint64),
            rate=_rate(reference, settings),
        )

    def compare(self, stretch: Stretch) -> list[Effects]:
        """Compare the windows of all looks of a stretch."""
        look_rows, window_rows = self.settings.look_rows, self.settings.window_rows
        ends = range(stretch.n_before + look_rows, len(stretch.places) + 1, look_rows)
        windows = [slice(max(0, end - window_rows), end) for end in ends]
        return self.tests.compare_each(stretch.places, windows)

    def play(
        self, stretch: Stretch, evidence: Evidence, rate_evidence: RateEvidence
    ) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
        """Play the rows since the look; return the evidence after each, and that of the rate."""
        ranks = self.ranks.take(stretch.places[stretch.n_before :])
        u = uniforms(self.seeds, stretch.begin, len(ranks))
        if self.rate is None:
            return evidence.play(ranks, u), None
        factors = self.rate.factors(stretch.outliers[stretch.n_before :])
        return evidence.play_beside(ranks, u, rate_evidence.capital, factors)


class Ahead:
    """The looks of a stretch.

    Parameters
    ----------
    evidence, rate_evidence : Evidence, RateEvidence
        As they are before it. They are played to its end; their ``rise`` is left to the looks.

    """

    def __init__(
        self, game: Game, stretch: Stretch, evidence: Evidence, rate_evidence: RateEvidence
    ) -> None:
        self._game = game
        self._stretch = stretch
        self._n_looks = (len(stretch.places) - stretch.n_before) // game.settings.look_rows
        self._played = evidence, rate_evidence
        # Behind the last look there is nothing to come back from.
        self._former = (evidence.copy(), rate_evidence.copy()) if self._n_looks > 1 else None

    def looks(self) -> list[Found]:
        """Return what the looks judge, in order, as long as they go on."""
        evidence, rate_evidence = self._played
        effects = self._game.compare(self._stretch)
        own, other = self._game.play(self._stretch, evidence, rate_evidence)
        played = evidence.after_each(own, self._n_looks)
        if other is None:
            return [Found(*found, None) for found in zip(effects, played, strict=True)]
        return list(
            map(Found, effects, played, rate_evidence.rise.after_each(other, self._n_looks))
        )

    def goes_on(self, n_looks: int, evidence: Evidence, rate_evidence: RateEvidence) -> bool:
        """Whether the looks behind so many of them hold.

        They do not when one evidence has begun anew. Then the other is brought back to where
        it was at the last one of these.
        """
        kept = evidence is self._played[0], rate_evidence is self._played[1]
        if all(kept) or self._former is None or n_looks == self._n_looks:
            return True
        former, former_rate = self._former
        stretch = self._stretch.first(n_looks * self._game.settings.look_rows)
        self._game.play(stretch, former, former_rate)
        if kept[0]:
            evidence.bag, evidence.jumper = former.bag, former.jumper
        if kept[1]:
            rate_evidence.capital = former_rate.capital
        return False


def _rate(reference: Reference, settings: DetectionSettings) -> OutlierRate | None:
    if reference.outlier is None:
        return None
    return OutlierRate(
        n_calibration=reference.outlier.held_out.size,
        p_value=settings.outlier_p_value,
        calibration_risk=settings.false_alarm_probability * OUTLIER_CALIBRATION_SHARE,
    )
