"""The mean of attributions over all background rows, from those that were finished."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_FEWEST = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Attributions of the players with standard errors, each of shape (n_players,)."""

    values: NDArray[np.float64]
    errors: NDArray[np.float64]


def mean_of_units(
    units: NDArray[np.float64],
    weights: NDArray[np.float64],
    *,
    total: float,
    n_all: int | None,
) -> Estimate | None:
    """Estimate mean attributions whose sum is known, from a random part of the units.

    The regression estimator of survey sampling: each unit's attributions sum to its own total
    ``T``, and the mean of ``T`` over all units is known, so that
    ``phi = mean(phi_u) + beta * (total - mean(T_u))`` with the slopes ``beta = cov(phi_u, T_u) /
    var(T_u)``, which sum to 1. The result sums to ``total`` exactly.

    Parameters
    ----------
    units : NDArray of float64, shape (n_units, n_players)
        Attributions by unit; units were drawn at random without replacement.
    weights : NDArray of float64, shape (n_units,)
        Positive shares of the units, of any sum.
    total : float
        What the attributions must sum to.
    n_all : int or None
        Units there are in all; None when they are without number.

    Returns
    -------
    Estimate or None
        None when fewer than three units tell nothing about their spread.

    References
    ----------
    W. G. Cochran, *Sampling Techniques*, 3rd ed. 1977, chapter 7; weights by linearisation.

    """
    n_units, n_players = units.shape
    complete = n_all is not None and n_units >= n_all
    if n_units < _FEWEST and not complete:
        return None
    shares = weights / weights.sum()
    mean = shares @ units
    centred = units - mean
    totals = centred.sum(axis=1)
    spread = float(shares @ totals**2)
    slopes = np.full(n_players, 1.0 / max(n_players, 1))
    if spread > 0:
        slopes = (shares * totals) @ centred / spread
    values = mean + slopes * (total - mean.sum())
    if complete:
        return Estimate(values=values, errors=np.zeros(n_players))
    left = 1.0 if n_all is None else 1.0 - n_units / n_all
    residuals = centred - totals[:, None] * slopes
    # Mean and slope were fitted: two degrees of freedom.
    variance = left * n_units / (n_units - 2) * (shares**2 @ residuals**2)
    return Estimate(values=values, errors=np.sqrt(variance))
