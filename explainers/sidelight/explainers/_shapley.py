"""Interventional Shapley values: which way of computing them a row can afford."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sidelight.explainers import _exact
from sidelight.explainers._broker import Broker
from sidelight.explainers._grid import Grid
from sidelight.explainers._permutations import PermutationRounds
from sidelight.explainers._predicting import Predict, Target
from sidelight.explainers._rows import Background, Columns
from sidelight.explainers._sampling import KernelRounds, Outcome
from sidelight.explainers._session import Session
from sidelight.explainers._surveying import Estimate
from sidelight.explainers.errors import BudgetTooSmall, ParameterError, RowError, VersionChanged
from sidelight.payloads import Attribution, Cost, ExplainedRow, Quality

# Composite rows shown to the outlier detector for ``off_manifold``.
_CHECKED_ROWS = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Explained:
    """Explanations of rows, with what they cost and how far they can be trusted.

    Attributes
    ----------
    rows : tuple of ExplainedRow
        In the order of the instances; ``base + sum of attributions = prediction``.
    plans : tuple of str
        How each row was computed: ``by_row``, ``by_coalition`` (both exact), ``kernel`` or
        ``permutation``.
    versions : tuple of str
        Versions that really answered, where the model tells; at most one for each row.

    """

    rows: tuple[ExplainedRow, ...]
    cost: Cost
    quality: Quality
    plans: tuple[str, ...]
    versions: tuple[str, ...]
    method: str = "shapley"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shapley:
    """Interventional Shapley values of a live model's predictions.

    ``v(S)`` is the mean prediction over the background with the features of S taken from the
    instance. Costs are counted before anything is asked; then, in this order:

    1. exactly, where the distinct composites of all background rows fit the budget: for each of
       them only the features in which the instance differs are players;
    2. Kernel SHAP: strata of coalitions by size, whole where the budget covers them, then pairs
       (S, complement) without repeats; no L1 penalty; standard errors;
    3. antithetic permutations, where there are too many features for a first round of 2.

    Every way is cut short by the deadline, or by a model that fails, with the last valid estimate
    and ``converged`` false.

    Parameters
    ----------
    budget_rows : int, default 60000
        Distinct rows that one instance may need, whether or not their answers are known already.
    tolerance : float, default 0.01
        Sampling stops when the largest standard error is below this share of the range of the
        attributions.

    Raises
    ------
    ParameterError
        If the budget is not above zero, or the tolerance not in (0, 1).

    References
    ----------
    S. Lundberg, S.-I. Lee, "A Unified Approach to Interpreting Model Predictions", 2017.
    I. Covert, S.-I. Lee, "Improving KernelSHAP: Practical Shapley Value Estimation", 2021.

    """

    budget_rows: int = 60_000
    tolerance: float = 0.01

    def __post_init__(self) -> None:
        """Reject values that could never give an estimate."""
        if self.budget_rows < 1:
            raise ParameterError("budget_rows", self.budget_rows, "above zero")
        if not 0 < self.tolerance < 1:
            raise ParameterError("tolerance", self.tolerance, "between 0 and 1")

    def explain(  # noqa: PLR0913 - all but two by name
        self,
        instances: Sequence[Sequence[Any]],
        background: Background,
        *,
        broker: Broker,
        model: Predict,
        target: Target,
        deadline_s: float,
        output: int = 0,
        seed: int = 0,
        implausible: Callable[[Columns], float] | None = None,
    ) -> Explained:
        """Explain rows; the same request gives the same answer.

        Parameters
        ----------
        instances : sequence of rows, each of shape (n_features,)
            In payload order; see ``Background.instance``.
        background : Background
            The deployment's fixed sample of its reference.
        deadline_s : float
            Seconds for all rows together; each may use an equal part of what is left.
        output : int, default 0
            Which column of the model's answer.
        seed : int, default 0
            With target and row, of everything random.
        implausible : callable or None
            Takes composite rows by column, returns the share of them, in [0, 1], that an outlier
            detector finds implausible.

        Raises
        ------
        RowError
            If an instance does not fit the background.
        BudgetTooSmall
            If the budget does not pay for a first estimate.
        ModelUnavailable, BadAnswer, DeadlineExceeded
            If there is no valid estimate of every row.

        """
        if not instances:
            raise RowError("instances", expected="at least one row", got="none")
        if not deadline_s > 0:
            raise ParameterError("deadline_s", deadline_s, "above zero")
        started = broker.clock()
        end = started + deadline_s
        rows, outcomes, plans, sessions = [], [], [], []
        for index, given in enumerate(instances):
            instance = background.instance(given)
            now = broker.clock()
            deadline = now + (end - now) / (len(instances) - index)
            grid = Grid.of(instance, background)

            def opened(grid: Grid = grid, deadline: float = deadline) -> Session:
                return broker.session(model, target, grid, deadline=deadline, output=output)

            outcome, plan, session = self._one(opened, _seed(grid, target, seed))
            rows.append(_explained_row(outcome, background.names, grid.players))
            outcomes.append(outcome)
            plans.append(plan)
            sessions.append(session)
        usages = [session.usage for session in sessions]
        cost = Cost(
            model_calls=sum(usage.model_calls for usage in usages),
            model_rows=sum(usage.model_rows for usage in usages),
            unique_rows=sum(usage.unique_rows for usage in usages),
            cache_hits=sum(usage.cache_hits for usage in usages),
            seconds=broker.clock() - started,
        )
        off_manifold = _off_manifold(sessions, implausible, seed) if implausible else None
        versions = tuple(sorted(set().union(*(session.versions for session in sessions))))
        return Explained(
            rows=tuple(rows),
            cost=cost,
            quality=_quality(rows, outcomes, off_manifold),
            plans=tuple(plans),
            versions=versions,
        )

    def _one(
        self, opened: Callable[[], Session], seed: np.random.SeedSequence
    ) -> tuple[Outcome, str, Session]:
        session = opened()
        try:
            return *self._planned(session, seed), session
        except VersionChanged:
            # A new version took over while this one was asked, or since its answers were
            # remembered. From the start there is only the new one, unless traffic is split.
            again = opened()
            again.usage = session.usage
            fresh = np.random.SeedSequence(entropy=seed.entropy)
            return *self._planned(again, fresh), again

    def _planned(self, session: Session, seed: np.random.SeedSequence) -> tuple[Outcome, str]:
        grid = session.grid
        n_background = len(grid.background)
        if self.budget_rows < 1 + n_background:
            raise BudgetTooSmall(needed=1 + n_background, budget=self.budget_rows)
        order, draws = seed.spawn(2)
        layout = _exact.games(grid, budget=self.budget_rows, rng=np.random.default_rng(order))
        if layout is not None:
            return _exact.solve(layout, session), layout.plan
        kernel = KernelRounds(session, budget=self.budget_rows, seed=draws)
        if kernel.is_affordable():
            return kernel.run(self.tolerance), "kernel"
        walks = PermutationRounds(session, budget=self.budget_rows, seed=draws)
        return walks.run(self.tolerance), "permutation"


def _seed(grid: Grid, target: Target, seed: int) -> np.random.SeedSequence:
    instance = np.zeros((1, grid.background.shape[1]), dtype=grid.background.dtype)
    row = grid.row_digests(instance, b"")[0]
    parts = repr((target.deployment, target.version, seed)).encode() + row
    return np.random.SeedSequence(int.from_bytes(blake2b(parts, digest_size=16).digest(), "big"))


def _explained_row(
    outcome: Outcome, names: Sequence[str], players: NDArray[np.intp]
) -> ExplainedRow:
    estimate: Estimate = outcome.estimate
    values, errors = np.zeros(len(names)), np.zeros(len(names))
    values[players], errors[players] = estimate.values, estimate.errors
    return ExplainedRow(
        prediction=outcome.prediction,
        base=outcome.base,
        attributions={
            name: Attribution(value=value, standard_error=error)
            for name, value, error in zip(names, values.tolist(), errors.tolist(), strict=True)
        },
    )


def _quality(
    rows: list[ExplainedRow], outcomes: list[Outcome], off_manifold: float | None
) -> Quality:
    fidelities = [outcome.fidelity for outcome in outcomes if outcome.fidelity is not None]
    return Quality(
        converged=all(outcome.converged for outcome in outcomes),
        local_error=max(map(_local_error, rows)),
        fidelity=min(fidelities, default=None),
        off_manifold=off_manifold,
    )


def _local_error(row: ExplainedRow) -> float:
    attributions = (item.value for item in row.attributions.values())
    return abs(math.fsum([row.base, *attributions, -row.prediction]))


def _off_manifold(
    sessions: list[Session], implausible: Callable[[Columns], float], seed: int
) -> float:
    shares = []
    for session in sessions:
        codes = session.asked()
        if len(codes) > _CHECKED_ROWS:
            chosen = np.random.default_rng(seed).choice(len(codes), _CHECKED_ROWS, replace=False)
            codes = codes[np.sort(chosen)]
        shares.append(float(implausible(session.grid.values(codes))))
    return sum(shares) / len(shares)
