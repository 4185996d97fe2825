"""Permutation sampling, for rows with more players than Kernel SHAP can begin with."""

import numpy as np
from numpy.typing import NDArray

from sidelight.explainers._grid import Codes
from sidelight.explainers._sampling import Outcome, is_settled
from sidelight.explainers._session import Session
from sidelight.explainers._surveying import Estimate, mean_of_units
from sidelight.explainers.errors import BudgetTooSmall, ModelError

# Three units are the fewest with a spread; a first round of more tells it better.
_FEWEST_UNITS = 3
_FIRST_UNITS = 12


class PermutationRounds:
    """Walks from a background row to the instance and back, feature by feature.

    A unit is one background row with one random order of the features, walked forward and
    backward (antithetic): the mean of the two marginal contributions of each feature. Units
    cycle through the background in random order. Costs about ``2 * n_players`` rows a unit.

    References
    ----------
    R. Mitchell et al., "Sampling Permutations for Shapley Value Estimation", 2022, section 3.

    """

    def __init__(self, session: Session, *, budget: int, seed: np.random.SeedSequence) -> None:
        self._session = session
        self._grid = session.grid
        self._budget = budget
        self._rng = np.random.default_rng(seed)
        self._queue: list[int] = []
        self._units: list[NDArray[np.float64]] = []
        self._weights: list[float] = []
        self._prediction = self._base = np.nan

    def run(self, tolerance: float) -> Outcome:
        """Ask round by round until the errors are small, or budget or time are used up.

        Raises
        ------
        BudgetTooSmall
            If not even three units can be paid.
        ModelError
            If the model failed, or time was over, before three units were answered.

        """
        n_players = len(self._grid.players)
        start = 1 + len(self._grid.background)
        most = (self._budget - start) // (2 * n_players)
        if most < _FEWEST_UNITS:
            raise BudgetTooSmall(needed=start + 2 * n_players * _FEWEST_UNITS, budget=self._budget)
        estimate, cut = self._round(min(_FIRST_UNITS, most))
        while cut is None and not is_settled(estimate, tolerance):
            n_units = min(len(self._units), most - len(self._units))
            if n_units <= 0:
                break
            estimate, cut = self._round(n_units)
        return Outcome(
            prediction=self._prediction,
            base=self._base,
            estimate=estimate,
            converged=cut is None and is_settled(estimate, tolerance),
        )

    def _round(self, n_units: int) -> tuple[Estimate, ModelError | None]:
        chosen = [self._draw() for _ in range(n_units)]
        orders = [self._rng.permutation(self._grid.players) for _ in chosen]
        walks = [self._walk(index, order) for index, order in zip(chosen, orders, strict=True)]
        start = np.zeros((1, self._grid.background.shape[1]), dtype=self._grid.background.dtype)
        answers, cut = self._session.ask_until_cut(
            np.concatenate([start, self._grid.background, *walks])
        )
        n_background = len(self._grid.background)
        self._prediction = float(answers[0])
        self._base = float(self._grid.weights @ answers[1 : 1 + n_background])
        paths = answers[1 + n_background :].reshape(n_units, 2, -1)
        for index, order, path in zip(chosen, orders, paths, strict=True):
            self._absorb(index, order, path)
        total = self._prediction - self._base
        estimate = None
        if np.isfinite(total) and self._units:
            estimate = mean_of_units(
                np.array(self._units), np.array(self._weights), total=total, n_all=None
            )
        if estimate is None:
            raise cut or AssertionError("answered completely, and yet no estimate")
        return estimate, cut

    def _draw(self) -> int:
        if not self._queue:
            self._queue = self._rng.permutation(len(self._grid.background)).tolist()
        return self._queue.pop()

    def _walk(self, index: int, order: NDArray[np.intp]) -> Codes:
        row = self._grid.background[index]
        steps = np.arange(len(order) + 1)
        walks = []
        for direction in (order, order[::-1]):
            joined_at = np.full(len(row), len(row) + 1)
            joined_at[direction] = np.arange(len(order))
            walks.append(np.where(joined_at[None, :] < steps[:, None], 0, row[None, :]))
        return np.concatenate(walks).astype(row.dtype)

    def _absorb(self, index: int, order: NDArray[np.intp], path: NDArray[np.float64]) -> None:
        if not np.isfinite(path).all():
            return
        gains = np.diff(path, axis=1)
        unit = np.zeros(self._grid.background.shape[1])
        unit[order] = (gains[0] + gains[1][::-1]) / 2
        self._units.append(unit[self._grid.players])
        self._weights.append(float(self._grid.weights[index]))
