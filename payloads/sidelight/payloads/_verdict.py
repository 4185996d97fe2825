"""What a detector says at one look, and the alarm that a change becomes."""

from dataclasses import dataclass
from typing import Any, Literal

VerdictState = Literal["ok", "drift", "insufficient"]
AlarmKind = Literal["drift", "outlier_rate", "performance", "quality"]
AlarmState = Literal["open", "acknowledged", "ended"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The answer of one detector at one look: an effect size and the evidence for it.

    Parameters
    ----------
    rows : int
        Rows of the deployment seen when the look was taken; looks count rows, not seconds.
    time : str
        Occurrence time of the last row of the look, RFC 3339.
    distance : float or None
        Effect size in the detector's own unit, bias-corrected, not negative; None when
        insufficient.
    p_value : float or None
        Of this look alone, in (0, 1]; None for sequential tests.
    log10_evidence : float or None
        Decimal logarithm of the e-value, valid at any time; None for tests of one look.
    threshold : float
        The distance from which on the effect counts as large enough for an alarm.
    reason : str
        One sentence for a person; why it is insufficient, or what moved.

    """

    deployment: str
    version: str | None
    detector: str
    feature: str | None
    time: str
    rows: int
    state: VerdictState
    distance: float | None
    p_value: float | None
    log10_evidence: float | None
    threshold: float
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the form of the API."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureShare:
    """How much one feature moved, and its share of the evidence behind an alarm, in [0, 1]."""

    name: str
    distance: float
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """A latched change, with a beginning and an end.

    Parameters
    ----------
    id : str
        Derived from (deployment, detector, row), so that work done again writes the same alarm.
    since : str
        Time of the row where the change is estimated to have begun, RFC 3339.
    raised_at, ended_at : str or None
        Times of the rows at which the alarm was raised and ended.
    raised_at_row : int
        Rows of the deployment seen when it was raised.
    features : tuple of FeatureShare
        Largest share first.

    """

    id: str
    deployment: str
    version: str | None
    kind: AlarmKind
    detector: str
    state: AlarmState
    since: str
    raised_at: str
    raised_at_row: int
    ended_at: str | None
    features: tuple[FeatureShare, ...]
    log10_evidence: float

    def to_json(self) -> dict[str, Any]:
        """Return the form of the API."""
        value = {name: getattr(self, name) for name in self.__slots__}
        value["features"] = [
            {"name": item.name, "distance": item.distance, "share": item.share}
            for item in self.features
        ]
        return value
