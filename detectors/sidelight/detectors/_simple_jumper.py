"""Simple Jumper: a martingale against exchangeability of a stream."""

import numpy as np
from numpy.typing import NDArray

from sidelight.detectors._capital import Capital
from sidelight.detectors.errors import ParameterError, SampleError

# At rest, two bets on the place of the values, two on their spread.
N_STRATEGIES = 5


class SimpleJumper:
    """Conformal test martingales of several features.

    Bets that p-values are not uniform. Strategy ``e`` multiplies its capital by
    ``1 + e * (p - 1/2)`` for ``e`` in -1, 0, 1: values have become larger or smaller. Two
    more bet in the same way on ``|2p - 1|``, which is uniform as well: values have become more
    or less extreme. Without change the capital exceeds ``1 / a`` with probability at most ``a``,
    ever (Ville), so its logarithm may be read after every row.

    Departures from the paper: the two bets on spread, and the resting strategy (see
    ``Capital``), which keeps the test awake in long streams without weakening the guarantee.

    Parameters
    ----------
    n_features : int
        Features that are tested side by side.
    jump_rate : float, default 0.01
        Share of its capital that a strategy gives away each row, in (0, 1).

    Raises
    ------
    ParameterError
        If a parameter is outside its range.

    References
    ----------
    V. Vovk et al., *Retrain or not retrain: conformal test martingales for change-point
    detection*, COPA 2021, algorithm 1.

    Examples
    --------
    >>> jumper = SimpleJumper(1)
    >>> evidence = jumper.update(np.full((200, 1), 0.9))
    >>> bool(evidence[-1, 0] > 2)
    True

    """

    def __init__(self, n_features: int, *, jump_rate: float = 0.01) -> None:
        if n_features < 0:
            raise ParameterError("n_features", n_features, "at least 0")
        if not 0 < jump_rate < 1:
            raise ParameterError("jump_rate", jump_rate, "above 0 and below 1")
        self._capital = Capital.start(n_features, N_STRATEGIES, jump_rate=jump_rate)

    @property
    def n_features(self) -> int:
        """Features that are tested side by side."""
        return self._capital.exponents.size

    @property
    def log10_evidence(self) -> NDArray[np.float64]:
        """Decimal logarithm of each feature's capital, shape (n_features,)."""
        return self._capital.log10()

    @property
    def capital(self) -> Capital:
        """The state: what a snapshot keeps."""
        return self._capital

    @classmethod
    def resume(cls, capital: Capital) -> "SimpleJumper":
        """Continue from a state."""
        jumper = cls(capital.exponents.size, jump_rate=capital.jump_rate)
        jumper._capital = capital
        return jumper

    def update(self, p_values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Take p-values of shape (n_rows, n_features); return log10 evidence after each row.

        Raises ``SampleError`` for another shape, and for values outside [0, 1].
        """
        if p_values.ndim != 2 or p_values.shape[1] != self.n_features:  # noqa: PLR2004
            raise SampleError("p_values", expected=f"(n, {self.n_features})", got=p_values.shape)
        if not bool(((p_values >= 0) & (p_values <= 1)).all()):
            raise SampleError("p_values", expected="values in [0, 1]", got="others")
        return self._capital.update(bets_on(p_values))


def average_log10(log10_evidence: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return log10 of the mean e-value over the last axis; valid under any dependence."""
    largest = log10_evidence.max(axis=-1, keepdims=True)
    mean = np.power(10.0, log10_evidence - largest).mean(axis=-1)
    return np.asarray(np.log10(mean) + largest[..., 0], dtype=np.float64)


def bets_on(p_values: NDArray[np.float64], *, beside: int = 0) -> NDArray[np.float64]:
    """Return the factors of the strategies, shape (n_rows, N_STRATEGIES, n_features + beside).

    The last ``beside`` features are left to be filled.
    """
    n_rows, n_features = p_values.shape
    place = p_values - 0.5
    spread = np.abs(2 * place)
    spread -= 0.5
    whole = np.empty((n_rows, N_STRATEGIES, n_features + beside))
    factors = whole[:, :, :n_features]
    factors[:, 0] = 1.0
    np.add(1.0, place, out=factors[:, 1])
    np.subtract(1.0, place, out=factors[:, 2])
    np.add(1.0, spread, out=factors[:, 3])
    np.subtract(1.0, spread, out=factors[:, 4])
    return whole
