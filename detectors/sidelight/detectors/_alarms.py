"""When an alarm is raised, and when it ends."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sidelight.detectors._evidence import Evidence, RateEvidence
from sidelight.detectors._latch import Latch, alarm_id
from sidelight.detectors._look import AVERAGE_EVIDENCE, MAHALANOBIS, needed_log10, shares_of
from sidelight.detectors._settings import OUTLIER_RATE_SHARE, DetectionSettings
from sidelight.payloads import Alarm


class Place(NamedTuple):
    """Where a look is taken.

    ``rows`` counts the rows of the deployment, ``row`` those since the reference.
    """

    deployment: str
    version: str | None
    time: str
    rows: int
    row: int
    window_is_full: bool


def drift_alarm(
    at: Place,
    latch: Latch,
    evidence: Evidence,
    effects: tuple[NDArray[np.float64], NDArray[np.bool_]],
    names: Sequence[str],
    settings: DetectionSettings,
) -> list[Alarm]:
    """Return the alarm of drift that a look raises or ends, if any.

    Parameters
    ----------
    effects : (distances, drifted)
        Of each column: its effect, and whether effect and evidence are large enough.

    """
    distances, drifted = effects
    if latch.is_open:
        quiet = bool((distances < settings.end_fraction * settings.drift_threshold).all())
        return _ended(at, latch, quiet=quiet)
    enough = evidence.average_peak >= needed_log10(settings)
    if not (at.window_is_full and enough and drifted.any()):
        return []
    shares = shares_of(names, evidence, distances, drifted)
    since = evidence.rise.since(names.index(shares[0].name))
    alarm = _alarm(at, "drift", AVERAGE_EVIDENCE, since, evidence.average_peak)
    return [latch.open(replace(alarm, features=shares))]


def rate_alarm(
    at: Place,
    latch: Latch,
    evidence: RateEvidence,
    effect: tuple[float, float],
    settings: DetectionSettings,
) -> list[Alarm]:
    """Return the alarm of the rate of outliers that a look raises or ends, if any.

    Parameters
    ----------
    effect : (excess, threshold)
        By how much the share of outliers exceeds the level, and from which on it counts.

    """
    excess, threshold = effect
    if latch.is_open:
        return _ended(at, latch, quiet=excess < settings.end_fraction * threshold)
    needed = -math.log10(settings.false_alarm_probability * OUTLIER_RATE_SHARE)
    if not at.window_is_full or evidence.peak < needed or excess < threshold:
        return []
    alarm = _alarm(at, "outlier_rate", MAHALANOBIS, evidence.rise.since(0), evidence.peak)
    return [latch.open(alarm)]


def _ended(at: Place, latch: Latch, *, quiet: bool) -> list[Alarm]:
    ended = latch.look(quiet=quiet, row=at.row, time=at.time)
    return [] if ended is None else [ended]


def _alarm(
    at: Place,
    kind: Literal["drift", "outlier_rate"],
    detector: str,
    since: str,
    log10_evidence: float,
) -> Alarm:
    return Alarm(
        id=alarm_id(at.deployment, detector, at.rows),
        deployment=at.deployment,
        version=at.version,
        kind=kind,
        detector=detector,
        state="open",
        since=since,
        raised_at=at.time,
        raised_at_row=at.rows,
        ended_at=None,
        features=(),
        log10_evidence=log10_evidence,
    )
