"""Betting against the rate of outliers that the calibration allows."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sidelight.detectors._capital import Capital
from sidelight.detectors._tail_probabilities import beta_quantile
from sidelight.detectors.errors import ParameterError

# Alternatives, as multiples of the allowed rate, and one that is large by itself.
_MULTIPLES = (2.0, 4.0, 8.0)
_LARGE_RATE = 0.5
N_STRATEGIES = len(_MULTIPLES) + 2


@dataclass(frozen=True, slots=True, kw_only=True)
class OutlierRate:
    """What share of outliers a stream like the reference may have.

    With ``n`` calibration rows a row is an outlier when its conformal p-value is at most
    ``p_value`` (or ``1 / (n + 1)``, the smallest there is, when that is larger). Given the
    calibration, the true share of outliers is Beta(k, n + 1 - k) with
    ``k = floor(p_value * (n + 1))``. ``allowed`` is its upper quantile: a stream whose share is
    higher differs from the reference, but for the probability ``calibration_risk``.

    Parameters
    ----------
    n_calibration : int
        Held-out rows of the reference, at least 1.
    p_value : float, default 0.01
        In (0, 0.5].
    calibration_risk : float, default 0.0005
        In (0, 1).

    Raises
    ------
    ParameterError
        If there are no calibration rows.

    References
    ----------
    V. Vovk, *Conditional validity of inductive conformal predictors*, ACML 2012, for the beta
    distribution of the level.

    """

    n_calibration: int
    p_value: float = 0.01
    calibration_risk: float = 0.0005

    def __post_init__(self) -> None:
        """Reject a calibration without rows."""
        if self.n_calibration < 1:
            raise ParameterError("n_calibration", self.n_calibration, "at least 1")

    @property
    def level(self) -> float:
        """Largest p-value that counts as an outlier."""
        # A p-value is a multiple of 1 / (n + 1): half of one absorbs the rounding.
        unit = 1 / (self.n_calibration + 1)
        return max(self.p_value, unit) + 1e-9 * unit

    @property
    def allowed(self) -> float:
        """Share of outliers that is put down to the calibration."""
        k = max(1, int(self.level * (self.n_calibration + 1)))
        quantile = beta_quantile(k, self.n_calibration + 1 - k, 1 - self.calibration_risk)
        return min(quantile, _LARGE_RATE / 2)

    @staticmethod
    def start() -> Capital:
        """Put the capital of the test at rest."""
        return Capital.start(1, N_STRATEGIES)

    def factors(self, outliers: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Return likelihood ratios of alternatives to the allowed rate, shape (n, strategies, 1).

        Under any smaller rate their means are below one, because every alternative is above it.
        """
        allowed = self.allowed
        rates = np.minimum(np.array([*(m * allowed for m in _MULTIPLES), _LARGE_RATE]), _LARGE_RATE)
        hit = np.concatenate([[1.0], rates / allowed])
        # Bounded so that the capital stays in range; smaller factors keep the guarantee.
        hit = np.minimum(hit, 100.0)
        miss = np.concatenate([[1.0], (1 - rates) / (1 - allowed)])
        table = np.stack([miss, hit])[:, :, np.newaxis]
        return np.asarray(table[outliers.astype(np.int64)], dtype=np.float64)
