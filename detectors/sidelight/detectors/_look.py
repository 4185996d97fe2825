"""What is said at one look: answers of every detector about every column."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sidelight.detectors._comparison import Comparison
from sidelight.detectors._evidence import Evidence
from sidelight.detectors._numeric_reference import NumericReference
from sidelight.detectors._reference import ColumnReference
from sidelight.detectors._settings import DRIFT_SHARE, DetectionSettings
from sidelight.detectors._window_tests import Effects
from sidelight.payloads import FeatureShare, Verdict

State = Literal["ok", "drift", "insufficient"]

STABILITY = "population_stability"
KOLMOGOROV_SMIRNOV = "kolmogorov_smirnov"
CHI_SQUARE = "chi_square"
SIMPLE_JUMPER = "simple_jumper"
AVERAGE_EVIDENCE = "average_evidence"
MAHALANOBIS = "mahalanobis"


class Answer(NamedTuple):
    """What one detector says of one column; the fields are those of ``Verdict``."""

    detector: str
    feature: str | None
    state: State
    distance: float | None
    p_value: float | None
    log10_evidence: float | None
    threshold: float
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One look: where and when it was taken, and all that was said.

    Attributes
    ----------
    time : str
        Occurrence time of the last row of the look, RFC 3339.
    rows : int
        Rows of the deployment seen when it was taken, with those of its reference.
    answers : tuple of Answer
        Of every detector about every column.

    """

    deployment: str
    version: str | None
    time: str
    rows: int
    answers: tuple[Answer, ...]

    def verdicts(self) -> list[Verdict]:
        """Return the answers as verdicts."""
        return [
            Verdict(
                deployment=self.deployment,
                version=self.version,
                time=self.time,
                rows=self.rows,
                **answer._asdict(),
            )
            for answer in self.answers
        ]


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


def column_answers(
    columns: Mapping[str, ColumnReference],
    effects: Effects,
    evidence: Evidence,
    drifted: NDArray[np.bool_],
    settings: DetectionSettings,
) -> list[Answer]:
    """Return the answers of the three detectors of each column."""
    answers = []
    # One look at many columns: Bonferroni. Repeated looks are what the martingale is for.
    alpha = settings.false_alarm_probability / max(len(columns), 1)
    needed = needed_log10(settings)
    for place, ((name, column), stability, shift, peak, has_drifted) in enumerate(
        zip(
            columns.items(),
            effects.stability,
            effects.shift,
            evidence.rise.peaks.tolist(),
            drifted.tolist(),
            strict=True,
        )
    ):
        test = KOLMOGOROV_SMIRNOV if isinstance(column, NumericReference) else CHI_SQUARE
        answers.append(_tested(STABILITY, name, stability, settings.stability_threshold, alpha))
        answers.append(_tested(test, name, shift, settings.drift_threshold, alpha))
        state: State = "drift" if has_drifted else "ok"
        reason = shift.reason
        if not shift.sufficient:
            state = "insufficient"
        elif has_drifted:
            reason = f"changed since {evidence.rise.since(place)}"
        elif peak >= needed:
            reason = "evidence of a change, but the effect in this window is below the threshold"
        answers.append(
            Answer(
                SIMPLE_JUMPER,
                name,
                state,
                shift.distance,
                None,
                peak if shift.sufficient else None,
                settings.drift_threshold,
                reason,
            )
        )
    return answers


def average_answer(
    effects: Effects,
    distances: NDArray[np.float64],
    average_peak: float,
    threshold: float,
    *,
    is_open: bool,
) -> Answer:
    """Return what is said of all columns together."""
    if not effects.sufficient:
        reason = effects.shift[0].reason
        return Answer(AVERAGE_EVIDENCE, None, "insufficient", None, None, None, threshold, reason)
    state: State = "drift" if is_open else "ok"
    distance = float(distances.max())
    return Answer(AVERAGE_EVIDENCE, None, state, distance, None, average_peak, threshold, "")


def _tested(
    detector: str, name: str, comparison: Comparison, threshold: float, alpha: float
) -> Answer:
    distance, p_value = comparison.distance, comparison.p_value
    state: State = "ok"
    if distance is None or p_value is None:
        state = "insufficient"
    elif distance >= threshold and p_value <= alpha:
        state = "drift"
    return Answer(detector, name, state, distance, p_value, None, threshold, comparison.reason)
