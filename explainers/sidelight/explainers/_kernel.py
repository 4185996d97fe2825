"""Kernel SHAP: the weighted regression whose coefficients are Shapley values."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sidelight.explainers._surveying import Estimate

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """Answered pairs of one stratum.

    Attributes
    ----------
    masks : bool array, shape (n_pairs, n_players)
        One coalition of each pair.
    values, mirrored : float arrays, shape (n_pairs,)
        ``v(S) - base`` of the coalitions, and of their complements.
    n_all : int
        Pairs of the stratum in all.
    weight : float
        Kernel weight of the whole stratum.

    """

    masks: NDArray[np.bool_]
    values: Floats
    mirrored: Floats
    n_all: int
    weight: float


def fit(layers: list[Layer], total: float) -> Estimate:
    """Solve the regression under the constraint that the attributions sum to ``total``.

    ``min sum_S w(S) (v(S) - base - sum of phi_j in S)**2``, without any penalty. Every pair of
    a stratum stands for an equal part of the stratum's kernel weight.

    The standard errors are a sandwich with a pair as the cluster, by stratum; a stratum taken
    whole contributes nothing, one without repeats only its part not seen (``1 - n / N``).

    References
    ----------
    S. Lundberg, S.-I. Lee, "A Unified Approach to Interpreting Model Predictions", 2017, theorem 2.
    I. Covert, S.-I. Lee, "Improving KernelSHAP", 2021, section 3: pairs and the constraint.

    """
    used = _reweighted(layers)
    n_players = used[0].masks.shape[1]
    matrix = np.zeros((n_players, n_players))
    target = np.zeros(n_players)
    for layer in used:
        weight = layer.weight / (2 * len(layer.masks))
        member = layer.masks.astype(np.float64)
        absent = 1.0 - member
        matrix += weight * (member.T @ member + absent.T @ absent)
        target += weight * (member.T @ layer.values + absent.T @ layer.mirrored)
    inverse = np.linalg.inv(matrix)
    ones = inverse.sum(axis=1)
    # Lagrange: the projection H = A^-1 - A^-1 1 1' A^-1 / (1' A^-1 1) keeps the sum.
    projection = inverse - np.outer(ones, ones) / ones.sum()
    values = projection @ target + ones * (total / ones.sum())
    values += (total - values.sum()) / n_players
    return Estimate(values=values, errors=_errors(used, values, projection))


def _reweighted(layers: list[Layer]) -> list[Layer]:
    # Strata without any pair yet lend their weight to those sampled, which they resemble more
    # than the outer ones that were taken whole.
    used = [layer for layer in layers if len(layer.masks)]
    sampled = sum(layer.weight for layer in used if len(layer.masks) < layer.n_all)
    lent = sum(layer.weight for layer in layers) - sum(layer.weight for layer in used)
    if lent == 0 or sampled == 0:
        return used
    return [
        replace(layer, weight=layer.weight * (1 + lent / sampled))
        if len(layer.masks) < layer.n_all
        else layer
        for layer in used
    ]


def _errors(used: list[Layer], values: Floats, projection: Floats) -> Floats:
    n_players = len(values)
    variance = np.zeros(n_players)
    sampled = [layer for layer in used if len(layer.masks) < layer.n_all]
    n_sampled = sum(len(layer.masks) for layer in sampled)
    for layer in sampled:
        n_pairs = len(layer.masks)
        member = layer.masks.astype(np.float64)
        residuals = layer.values - member @ values
        mirrored = layer.mirrored - (1.0 - member) @ values
        scores = member * residuals[:, None] + (1.0 - member) * mirrored[:, None]
        influence = (layer.weight / (2 * n_pairs)) * scores @ projection
        if n_pairs > 1:
            influence = influence - influence.mean(axis=0)
            influence *= np.sqrt(n_pairs / (n_pairs - 1))
        variance += (1.0 - n_pairs / layer.n_all) * (influence**2).sum(axis=0)
    # The coefficients were fitted to the sample too: one degree of freedom each.
    freedom = max(n_sampled - n_players, 1)
    return np.sqrt(variance * (n_sampled / freedom if n_sampled else 1.0))


def fidelity(layer: Layer, values: Floats) -> float | None:
    """R squared of ``base + sum of phi_j in S`` on coalitions that the fit never saw."""
    member = layer.masks.astype(np.float64)
    predicted = np.concatenate([member @ values, (1.0 - member) @ values])
    observed = np.concatenate([layer.values, layer.mirrored])
    if observed.size < 2:  # noqa: PLR2004 - one point has no spread
        return None
    residual = float(((observed - predicted) ** 2).sum())
    spread = float(((observed - observed.mean()) ** 2).sum())
    if spread == 0:
        return 1.0 if residual == 0 else None
    return 1.0 - residual / spread
