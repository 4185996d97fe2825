"""Exact Shapley values of small games."""

from functools import lru_cache
from math import comb

import numpy as np
from numpy.typing import NDArray


@lru_cache(maxsize=64)
def coalitions(n_players: int) -> NDArray[np.bool_]:
    """All coalitions, shape (2**n_players, n_players); bit j of the place tells of player j."""
    places = np.arange(1 << n_players, dtype=np.uint32)
    masks = (places[:, None] >> np.arange(n_players, dtype=np.uint32)) & 1
    table = masks.astype(np.bool_)
    table.setflags(write=False)
    return table


def shapley_values(values: NDArray[np.float64], n_players: int) -> NDArray[np.float64]:
    """Shapley values of games by their full tables of coalition values.

    ``phi_j = sum over S without j of |S|! (k - |S| - 1)! / k! * (v(S + j) - v(S))``

    Parameters
    ----------
    values : NDArray of float64, shape (n_games, 2**n_players)
        ``v(S)`` in the order of ``coalitions``.
    n_players : int
        k, at least 1.

    Returns
    -------
    NDArray of float64, shape (n_games, n_players)

    References
    ----------
    L. S. Shapley, "A Value for n-Person Games", 1953, eq. 13.

    Examples
    --------
    >>> shapley_values(np.array([[0.0, 1.0, 2.0, 5.0]]), 2).tolist()
    [[2.0, 3.0]]

    """
    n_games = len(values)
    table = values.reshape((n_games,) + (2,) * n_players)
    sizes = coalitions(n_players).sum(axis=1) if n_players else np.zeros(1, dtype=int)
    # Joining a coalition of size s weighs 1 / (k * C(k - 1, s)).
    weights = np.array([1 / (n_players * comb(n_players - 1, s)) for s in range(n_players)] + [0.0])
    spread = weights[sizes].reshape((2,) * n_players)
    result = np.empty((n_games, n_players))
    for player in range(n_players):
        # Bit j of a place is axis k - 1 - j of the table, after the axis of games.
        axis = n_players - 1 - player
        joined = np.take(table, 1, axis=axis + 1) - np.take(table, 0, axis=axis + 1)
        weight = np.take(spread, 0, axis=axis)
        result[:, player] = (joined * weight).reshape(n_games, -1).sum(axis=1)
    return result
