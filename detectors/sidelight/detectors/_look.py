"""What is said at one look: verdicts of every detector about every column."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sidelight.detectors._chi_square import ChiSquare
from sidelight.detectors._comparison import Comparison
from sidelight.detectors._evidence import Evidence
from sidelight.detectors._kolmogorov_smirnov import KolmogorovSmirnov
from sidelight.detectors._numeric_reference import NumericReference
from sidelight.detectors._population_stability import PopulationStability
from sidelight.detectors._reference import ColumnReference
from sidelight.detectors._settings import DRIFT_SHARE, DetectionSettings
from sidelight.payloads import FeatureShare, Verdict

State = Literal["ok", "drift", "insufficient"]

STABILITY = "population_stability"
KOLMOGOROV_SMIRNOV = "kolmogorov_smirnov"
CHI_SQUARE = "chi_square"
SIMPLE_JUMPER = "simple_jumper"
AVERAGE_EVIDENCE = "average_evidence"
MAHALANOBIS = "mahalanobis"


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """Where and when a look was taken."""

    deployment: str
    version: str | None
    time: str
    rows: int

    def verdict(
        self,
        detector: str,
        feature: str | None,
        *,
        state: State,
        distance: float | None,
        threshold: float,
        p_value: float | None = None,
        log10_evidence: float | None = None,
        reason: str = "",
    ) -> Verdict:
        """Build one verdict of this look."""
        return Verdict(
            deployment=self.deployment,
            version=self.version,
            detector=detector,
            feature=feature,
            time=self.time,
            rows=self.rows,
            state=state,
            distance=distance,
            p_value=p_value,
            log10_evidence=log10_evidence,
            threshold=threshold,
            reason=reason,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Effects:
    """Comparisons of one window, by column."""

    stability: Mapping[str, Comparison]
    shift: Mapping[str, Comparison]

    @property
    def sufficient(self) -> bool:
        """Whether there were enough rows to say anything of any column."""
        return any(item.sufficient for item in self.shift.values())

    def distances(self) -> NDArray[np.float64]:
        """Shift of each column, 0 where there are too few rows; shape (n_columns,)."""
        return np.array([item.distance or 0.0 for item in self.shift.values()])


def compare_window(
    columns: Mapping[str, ColumnReference],
    window: NDArray[np.uint16],
    settings: DetectionSettings,
) -> Effects:
    """Compare cells of the rows of a window, shape (n_rows, n_columns), with the reference."""
    stability = PopulationStability(threshold=settings.stability_threshold)
    kolmogorov_smirnov = KolmogorovSmirnov(threshold=settings.drift_threshold)
    chi_square = ChiSquare(threshold=settings.drift_threshold)
    bins: dict[str, Comparison] = {}
    shift: dict[str, Comparison] = {}
    for index, (name, column) in enumerate(columns.items()):
        counts = np.bincount(window[:, index], minlength=column.n_cells)
        bins[name] = stability.compare(column.bin_counts, add_up(column.bins, counts))
        test = kolmogorov_smirnov if isinstance(column, NumericReference) else chi_square
        shift[name] = test.compare(column.counts, counts)
    return Effects(stability=bins, shift=shift)


def add_up(groups: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sum the counts of cells by the number of their group."""
    # Float sums of counts are exact far beyond any window.
    return np.bincount(groups, weights=counts).astype(np.int64)


def needed_log10(settings: DetectionSettings) -> float:
    """Decimal logarithm of the e-value from which on evidence for drift counts."""
    return -math.log10(settings.false_alarm_probability * DRIFT_SHARE)


def drifted_columns(
    evidence: Evidence, distances: NDArray[np.float64], settings: DetectionSettings
) -> NDArray[np.bool_]:
    """Which columns show both a large effect and, taken alone, evidence enough."""
    return (distances >= settings.drift_threshold) & (evidence.rise.peaks >= needed_log10(settings))


def shares_of(
    names: Sequence[str],
    evidence: Evidence,
    distances: NDArray[np.float64],
    drifted: NDArray[np.bool_],
) -> tuple[FeatureShare, ...]:
    """Columns behind an alarm, by their share of the log evidence, largest first."""
    weights = np.where(drifted, np.maximum(evidence.rise.peaks, 0.0), 0.0)
    weights /= max(float(weights.sum()), 1e-300)
    order = sorted(
        np.flatnonzero(drifted).tolist(), key=lambda i: (-weights[i], -distances[i], names[i])
    )
    return tuple(
        FeatureShare(name=names[i], distance=float(distances[i]), share=float(weights[i]))
        for i in order
    )


def column_verdicts(
    look: Look,
    columns: Mapping[str, ColumnReference],
    effects: Effects,
    evidence: Evidence,
    settings: DetectionSettings,
) -> list[Verdict]:
    """Return the verdicts of the three detectors of each column."""
    verdicts = []
    drifted = drifted_columns(evidence, effects.distances(), settings)
    # One look at many columns: Bonferroni. Repeated looks are what the martingale is for.
    alpha = settings.false_alarm_probability / max(len(columns), 1)
    for index, (name, column) in enumerate(columns.items()):
        shift = effects.shift[name]
        test = KOLMOGOROV_SMIRNOV if isinstance(column, NumericReference) else CHI_SQUARE
        for detector, comparison, threshold in (
            (STABILITY, effects.stability[name], settings.stability_threshold),
            (test, shift, settings.drift_threshold),
        ):
            verdicts.append(
                look.verdict(
                    detector,
                    name,
                    state=_state(comparison, threshold, alpha),
                    distance=comparison.distance,
                    threshold=threshold,
                    p_value=comparison.p_value,
                    reason=comparison.reason,
                )
            )
        verdicts.append(_sequential(look, name, shift, evidence, index, drifted, settings))
    return verdicts


def _sequential(
    look: Look,
    name: str,
    shift: Comparison,
    evidence: Evidence,
    index: int,
    drifted: NDArray[np.bool_],
    settings: DetectionSettings,
) -> Verdict:
    state: State = "drift" if drifted[index] else "ok"
    reason = shift.reason
    if not shift.sufficient:
        state = "insufficient"
    elif state == "drift":
        reason = f"changed since {evidence.rise.since[index]}"
    elif evidence.rise.peaks[index] >= needed_log10(settings):
        reason = "evidence of a change, but the effect in this window is below the threshold"
    return look.verdict(
        SIMPLE_JUMPER,
        name,
        state=state,
        distance=shift.distance,
        threshold=settings.drift_threshold,
        log10_evidence=float(evidence.rise.peaks[index]) if shift.sufficient else None,
        reason=reason,
    )


def _state(comparison: Comparison, threshold: float, alpha: float) -> State:
    if comparison.distance is None or comparison.p_value is None:
        return "insufficient"
    return "drift" if comparison.distance >= threshold and comparison.p_value <= alpha else "ok"
