"""Kernel SHAP in growing rounds, a valid estimate after each."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sidelight.explainers import _kernel
from sidelight.explainers._coalitions import Masks, Stratum, allotted, strata
from sidelight.explainers._grid import Codes, Grid
from sidelight.explainers._session import Session
from sidelight.explainers._surveying import Estimate
from sidelight.explainers.errors import ModelError

# Fewer pairs say too little about their spread; the first round has at least so many.
_FIRST_PAIRS = 16
# 32 coalitions: the least on which a fidelity is reported (ALGORITHMS: 32 to 64).
_HELD_OUT_PAIRS = 16
_HELD_OUT_SHARE = 0.1
# Composites are laid out before duplicates are known; so many cells in one round at most.
_MAX_CELLS = 48_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a method found for one row.

    Attributes
    ----------
    estimate : Estimate
        Attributions of ``grid.players``.
    converged : bool
        Whether the standard errors are within the tolerance, and nothing cut it short.
    fidelity : float or None
        On coalitions that were not used; None where all were.

    """

    prediction: float
    base: float
    estimate: Estimate
    converged: bool
    fidelity: float | None = None


def composites(grid: Grid, masks: Masks) -> Codes:
    """Rows of coalitions of the players, coalition by coalition over the background.

    Shape (n_coalitions * n_background, n_features).
    """
    absent = np.ones((len(masks), grid.background.shape[1]), dtype=grid.background.dtype)
    absent[:, grid.players] = ~masks
    rows = absent[:, None, :] * grid.background[None, :, :]
    return rows.reshape(-1, grid.background.shape[1])


def is_settled(estimate: Estimate, tolerance: float) -> bool:
    """Whether the largest standard error is small against the range of the attributions.

    ``max_j se_j <= tolerance * (max phi - min phi)``: Covert and Lee 2021, section 3.3. The range
    includes 0, so that features with equal attributions have one.
    """
    spread = float(np.ptp(np.append(estimate.values, 0.0)))
    return float(estimate.errors.max(initial=0.0)) <= tolerance * spread


class KernelRounds:
    """Rounds of pairs of coalitions for one row; see ``run``."""

    def __init__(self, session: Session, *, budget: int, seed: np.random.SeedSequence) -> None:
        self._session = session
        self._grid = session.grid
        self._n_background = len(session.grid.background)
        n_held_out = int(_HELD_OUT_SHARE * budget / (2 * self._n_background))
        self._n_held_out = min(_HELD_OUT_PAIRS, n_held_out)
        self._budget = budget - 2 * self._n_held_out * self._n_background
        self._most = max(1, _MAX_CELLS // (2 * self._grid.background.size))
        order, draws = seed.spawn(2)
        self._rng = np.random.default_rng(order)
        self._strata = strata(len(session.grid.players), draws)
        self._taken = [0] * len(self._strata)
        self._answered: list[list[tuple[Masks, NDArray[np.float64]]]] = [[] for _ in self._strata]
        self._prediction = self._base = np.nan

    def is_affordable(self) -> bool:
        """Whether instance, background, all single players and a first sample can be paid."""
        n_single = len(self._grid.players)
        start = 1 + self._n_background
        n_pairs = n_single + max(_FIRST_PAIRS, len(self._strata))
        return start + 2 * n_pairs * self._n_background <= self._budget

    def run(self, tolerance: float) -> Outcome:
        """Ask round by round until the errors are small, or budget or time are used up.

        Raises
        ------
        ModelError
            If the model failed, or time was over, before the first round was answered.

        """
        first = [self._strata[0].take(self._strata[0].n_pairs)]
        self._taken[0] = len(first[0])
        masks, places = self._next(max(_FIRST_PAIRS, len(self._strata)))
        estimate, cut = self._round(np.concatenate([first[0], masks]), [0] * len(first[0]) + places)
        is_paid = True
        while is_paid and cut is None and not is_settled(estimate, tolerance):
            drawn, places = self._next(min(sum(self._taken), self._most))
            n_pairs = self._affordable(drawn)
            is_paid = 0 < n_pairs == len(drawn)
            if n_pairs:
                estimate, cut = self._round(drawn[:n_pairs], places[:n_pairs])
        converged = cut is None and is_settled(estimate, tolerance)
        held_out = self._held_out(estimate) if cut is None else None
        return Outcome(
            prediction=self._prediction,
            base=self._base,
            estimate=estimate,
            converged=converged,
            fidelity=held_out,
        )

    def _next(self, n_pairs: int) -> tuple[Masks, list[int]]:
        counts = allotted(self._strata, self._taken, n_pairs)
        parts = [layer.take(count) for layer, count in zip(self._strata, counts, strict=True)]
        places = [index for index, part in enumerate(parts) for _ in range(len(part))]
        masks = np.concatenate(parts)
        # Shuffled, so that what was answered before a cut is a fair sample of the round.
        order = self._rng.permutation(len(masks))
        for index, part in enumerate(parts):
            self._taken[index] += len(part)
        return masks[order], [places[index] for index in order.tolist()]

    def _affordable(self, masks: Masks) -> int:
        """Tell how many of the pairs, from the first, the rest of the budget pays for."""
        if not len(masks):
            return 0
        novel = self._session.novel(self._rows(masks)).reshape(len(masks), -1).sum(axis=1)
        left = self._budget - self._session.usage.unique_rows
        return int(np.searchsorted(np.cumsum(novel), left, side="right"))

    def _rows(self, masks: Masks) -> Codes:
        paired = np.stack([masks, ~masks], axis=1).reshape(-1, masks.shape[1])
        return composites(self._grid, paired)

    def _round(self, masks: Masks, places: list[int]) -> tuple[Estimate, ModelError | None]:
        start = np.zeros((1, self._grid.background.shape[1]), dtype=self._grid.background.dtype)
        rows = np.concatenate([start, self._grid.background, self._rows(masks)])
        answers, cut = self._session.ask_until_cut(rows)
        weights = self._grid.weights
        self._prediction = float(answers[0])
        self._base = float(weights @ answers[1 : 1 + self._n_background])
        pairs = answers[1 + self._n_background :].reshape(len(masks), 2, -1) @ weights
        self._absorb(masks, np.asarray(places), pairs)
        estimate = self._estimate()
        if estimate is None:
            raise cut or AssertionError("answered completely, and yet no estimate")
        return estimate, cut

    def _absorb(self, masks: Masks, places: NDArray[np.intp], pairs: NDArray[np.float64]) -> None:
        answered = np.isfinite(pairs).all(axis=1)
        for index in np.unique(places[answered]).tolist():
            chosen = answered & (places == index)
            self._answered[index].append((masks[chosen], pairs[chosen]))

    def _estimate(self) -> Estimate | None:
        layers = [self._layer(index, layer) for index, layer in enumerate(self._strata)]
        n_sampled = sum(len(layer.masks) for layer in layers[1:])
        outer_missing = len(layers[0].masks) < layers[0].n_all
        too_few = n_sampled < min(_FIRST_PAIRS, sum(layer.n_all for layer in layers[1:]))
        if outer_missing or too_few or not np.isfinite(self._prediction - self._base):
            return None
        return _kernel.fit(layers, self._prediction - self._base)

    def _layer(self, index: int, layer: Stratum) -> _kernel.Layer:
        n_players = len(self._grid.players)
        parts = self._answered[index]
        masks = np.concatenate([part[0] for part in parts] or [np.zeros((0, n_players), bool)])
        pairs = np.concatenate([part[1] for part in parts] or [np.zeros((0, 2))]) - self._base
        return _kernel.Layer(
            masks=masks,
            values=pairs[:, 0],
            mirrored=pairs[:, 1],
            n_all=layer.n_pairs,
            weight=layer.weight,
        )

    def _held_out(self, estimate: Estimate) -> float | None:
        masks, _ = self._next(self._n_held_out)
        if not len(masks):
            return None
        answers, cut = self._session.ask_until_cut(self._rows(masks))
        if cut is not None:
            return None
        pairs = answers.reshape(len(masks), 2, -1) @ self._grid.weights - self._base
        fresh = _kernel.Layer(
            masks=masks, values=pairs[:, 0], mirrored=pairs[:, 1], n_all=len(masks), weight=1.0
        )
        return _kernel.fidelity(fresh, estimate.values)
