"""Exact interventional Shapley values, background row by background row."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sidelight.explainers._games import coalitions, shapley_values
from sidelight.explainers._grid import Codes, Grid, distinct
from sidelight.explainers._sampling import Outcome
from sidelight.explainers._session import Session
from sidelight.explainers._surveying import mean_of_units

# Composites are laid out before duplicates are known; so many cells at most.
_MAX_CELLS = 48_000_000
_MAX_RAW_OF_BUDGET = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Games:
    """One game for each background row, between the features in which the instance differs.

    The mean of their Shapley values is the interventional Shapley value, because
    ``v(S) = mean_b f(x_S, b)`` is linear in the games, and a feature in which x and b agree is
    a dummy of the game of b.

    Attributes
    ----------
    codes : integer array, shape (n_composites, n_features)
        Instance and background rows first, then all composites, game by game in ``order``.
    n_unique : int
        Distinct composites: the rows that the model is asked.
    order : integer array, shape (n_background,)
        In which the games are asked; random, so that any beginning is a fair sample.

    """

    grid: Grid
    codes: Codes
    n_unique: int
    order: NDArray[np.intp]
    players: tuple[NDArray[np.intp], ...]

    @property
    def plan(self) -> str:
        """``by_coalition`` when every game has all the players, else ``by_row``.

        Both ask the same distinct rows; it is only the number of games that differs.
        """
        n_players = len(self.grid.players)
        full = all(len(members) == n_players for members in self.players)
        return "by_coalition" if full else "by_row"


def games(grid: Grid, *, budget: int, rng: np.random.Generator) -> Games | None:
    """Lay out all games, or return None when their distinct rows exceed the budget."""
    differs = grid.background != 0
    n_players = differs.sum(axis=1)
    if int(n_players.max()) > np.log2(_MAX_CELLS):
        return None
    n_raw = int((1 << n_players.astype(np.int64)).sum())
    if n_raw > _MAX_RAW_OF_BUDGET * budget or n_raw * differs.shape[1] > _MAX_CELLS:
        return None
    order = rng.permutation(len(grid.background))
    players = tuple(np.flatnonzero(differs[index]) for index in order)
    blocks = [_composites(grid.background[i], who) for i, who in zip(order, players, strict=True)]
    start = np.zeros((1, differs.shape[1]), dtype=grid.background.dtype)
    codes = np.concatenate([start, grid.background, *blocks])
    n_unique = len(distinct(codes)[0])
    if n_unique > budget:
        return None
    return Games(grid=grid, codes=codes, n_unique=n_unique, order=order, players=players)


def solve(layout: Games, session: Session) -> Outcome:
    """Ask everything at once, and average the games; those answered, if it was cut short.

    Raises
    ------
    ModelError
        If instance and background were not answered, or fewer than three games.

    """
    answers, cut = session.ask_until_cut(layout.codes)
    grid = layout.grid
    n_background = len(grid.background)
    prediction = float(answers[0])
    base = float(grid.weights @ answers[1 : 1 + n_background])
    units, weights = _units(layout, answers[1 + n_background :])
    total = prediction - base
    estimate = None
    if np.isfinite(total):
        estimate = mean_of_units(units, weights, total=total, n_all=n_background)
    if estimate is None:
        raise cut or AssertionError("answered completely, and yet no estimate")
    return Outcome(prediction=prediction, base=base, estimate=estimate, converged=cut is None)


def _composites(row: Codes, players: NDArray[np.intp]) -> Codes:
    masks = coalitions(len(players))
    block = np.repeat(row[None, :], len(masks), axis=0)
    block[:, players] = np.where(masks, 0, row[players])
    return block


def _units(
    layout: Games, answers: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Attributions of the games that were answered completely, with their weights."""
    n_features = layout.codes.shape[1]
    everybody = layout.grid.players
    units, weights = [], []
    start = 0
    for index, players in zip(layout.order, layout.players, strict=True):
        end = start + (1 << len(players))
        values = answers[start:end]
        start = end
        if np.isfinite(values).all():
            unit = np.zeros(n_features)
            if len(players):
                unit[players] = shapley_values(values[None, :], len(players))[0]
            units.append(unit[everybody])
            weights.append(layout.grid.weights[index])
    return np.array(units).reshape(len(units), len(everybody)), np.array(weights)
