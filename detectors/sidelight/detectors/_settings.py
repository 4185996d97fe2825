"""Parameters of the detection of one deployment."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sidelight.detectors.errors import ParameterError

# The promise covers everything that can raise an alarm of a deployment. The drift of up to 200
# columns is one average; the rate of outliers is a second test, and its level is known only as well
# as the calibration rows allow. Ours: nine tenths, half a tenth, half a tenth.
DRIFT_SHARE = 0.9
OUTLIER_RATE_SHARE = 0.05
OUTLIER_CALIBRATION_SHARE = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectionSettings:
    """What counts as a change, and how sure detection must be of it.

    Parameters
    ----------
    false_alarm_probability : float, default 0.01
        Chance that a deployment without change ever raises an alarm (until one is raised and
        ends: then its tests start afresh), in (0, 0.5]. Nine tenths of it go to drift, one to
        the rate of outliers.
    reference_rows : int, default 1000
        First rows of the deployment that become the reference, at least 50.
    window_rows : int, default 1000
        Rows over which effect sizes are measured; a multiple of ``look_rows``.
    look_rows : int, default 250
        Rows from one look to the next, at least 10.
    drift_threshold : float, default 0.1
        Effect from which on a column counts as drifted, on the scale of Kolmogorov-Smirnov
        (numeric) or total variation (categorical), in (0, 1). A tenth of the probability mass has
        moved; for a normal feature that is a shift of a quarter of its standard deviation. It is
        also the smallest effect whose evidence the sequential test surely gathers (a shift of
        0.15 deviations), and three times what a window of 1,000 rows shows by chance.
    stability_threshold : float, default 0.1
        The population stability index from which on its verdict is drift, in nats. The customary
        bands are 0.1 and 0.25.
    n_bins : int, default 10
        Quantile bins of the population stability index (of categories, the rarest share the
        last one), from 2 to 100.
    n_categories : int, default 30
        Categories that are told apart; all other values, those that the reference never had
        included, count as one.
    max_features : int, default 200
        Columns that are monitored; those beyond it are listed as skipped.
    outlier_p_value : float, default 0.01
        A row is an outlier when its conformal p-value is at most this, in (0, 0.5].
    outlier_rate_effect : float, default 0.02
        By how much the share of outliers in the window must exceed the rate that the calibration
        rows allow, in (0, 1).
    end_fraction : float, default 0.7
        An alarm ends when every effect stayed below this fraction of its threshold for a whole
        window, in (0, 1].

    Raises
    ------
    ParameterError
        If a parameter is outside its range.

    """

    false_alarm_probability: float = 0.01
    reference_rows: int = 1000
    window_rows: int = 1000
    look_rows: int = 250
    drift_threshold: float = 0.1
    stability_threshold: float = 0.1
    n_bins: int = 10
    n_categories: int = 30
    max_features: int = 200
    outlier_p_value: float = 0.01
    outlier_rate_effect: float = 0.02
    end_fraction: float = 0.7

    def __post_init__(self) -> None:
        """Reject values that could never give a meaningful answer."""
        self._at_least("reference_rows", 50)
        self._at_least("look_rows", 10)
        self._at_least("n_bins", 2)
        self._at_least("n_categories", 2)
        self._at_least("max_features", 1)
        if self.n_bins > 100 or self.n_categories > 1000:  # noqa: PLR2004 - bounds of memory
            name = "n_bins" if self.n_bins > 100 else "n_categories"  # noqa: PLR2004
            raise ParameterError(name, getattr(self, name), "at most 100 bins, 1,000 categories")
        if self.window_rows < self.look_rows or self.window_rows % self.look_rows:
            raise ParameterError(
                "window_rows", self.window_rows, f"a multiple of look_rows ({self.look_rows})"
            )
        for name in ("false_alarm_probability", "outlier_p_value"):
            self._within(name, 0.5)
        for name in ("drift_threshold", "outlier_rate_effect", "end_fraction"):
            self._within(name, 1.0)
        self._within("stability_threshold", 100.0)

    def _at_least(self, name: str, smallest: int) -> None:
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < smallest:
            raise ParameterError(name, value, f"a whole number of at least {smallest}")

    def _within(self, name: str, largest: float) -> None:
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ParameterError(name, value, "a number")
        if not 0 < value <= largest:
            raise ParameterError(name, value, f"above 0 and at most {largest}")

    def to_json(self) -> dict[str, Any]:
        """Return the parameters by name."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "DetectionSettings":
        """Read parameters by name; raise ``ParameterError`` for a name that there is not."""
        names = {field.name for field in dataclasses.fields(cls)}
        for name in value:
            if name not in names:
                raise ParameterError(name, value[name], f"one of {', '.join(sorted(names))}")
        return cls(**value)
