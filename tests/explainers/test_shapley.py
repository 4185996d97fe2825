"""Shapley values against brute force, their axioms, and the ways of computing them."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sidelight.explainers import (
    Background,
    BadAnswer,
    Broker,
    BudgetTooSmall,
    Explained,
    Limits,
    LocalModel,
    ParameterError,
    RowError,
    Shapley,
    Target,
)
from sidelight.explainers._grid import Grid
from sidelight.explainers._rows import Columns
from sidelight.explainers._sampling import KernelRounds

Function = Callable[[Columns], Any]
TARGET = Target(deployment="test/model", version="1")
FAST = Limits(rows_per_second=1e9)


def names_of(n_features: int) -> tuple[str, ...]:
    return tuple(f"x{index}" for index in range(n_features))


def explained(
    function: Function,
    instance: Sequence[Any],
    background: Background,
    *,
    shapley: Shapley | None = None,
    **options: Any,
) -> Explained:
    with Broker(FAST) as broker:
        return (shapley or Shapley()).explain(
            [instance],
            background,
            broker=broker,
            model=LocalModel(function),
            target=TARGET,
            deadline_s=3600,
            **options,
        )


def values_of(answer: Explained) -> NDArray[np.float64]:
    return np.array([item.value for item in answer.rows[0].attributions.values()])


def errors_of(answer: Explained) -> NDArray[np.float64]:
    return np.array([item.standard_error for item in answer.rows[0].attributions.values()])


def brute_force(
    function: Function, instance: Sequence[Any], background: Background
) -> NDArray[np.float64]:
    """Shapley's formula, permutation by permutation: independent of everything under test."""
    n_features = len(instance)
    weights = background.weights or ()

    def game(members: frozenset[int]) -> float:
        rows = [
            [instance[j] if j in members else row[j] for j in range(n_features)]
            for row in background.rows
        ]
        return float(np.dot(weights, function(tuple(map(list, zip(*rows, strict=True))))))

    table = {
        frozenset(members): game(frozenset(members))
        for size in range(n_features + 1)
        for members in itertools.combinations(range(n_features), size)
    }
    total = np.zeros(n_features)
    for order in itertools.permutations(range(n_features)):
        members: frozenset[int] = frozenset()
        for player in order:
            total[player] += table[members | {player}] - table[members]
            members |= {player}
    return total / math.factorial(n_features)


def random_case(seed: int, *, n_features: int = 5) -> tuple[Function, list[Any], Background]:
    """A model with interactions over numbers, words and flags; the background shares values."""
    rng = np.random.default_rng(seed)
    words = ["red", "green", "blue", None]
    kinds = rng.integers(0, 4, n_features)
    effects = rng.normal(size=(n_features, 4))
    pairs = rng.normal(size=(n_features, n_features))

    def draw(kind: int) -> Any:
        match kind:
            case 0:
                return float(rng.normal())
            case 1:
                return int(rng.integers(0, 3))
            case 2:
                return words[rng.integers(0, 4)]
        return bool(rng.integers(0, 2))

    def number(value: Any, effect: NDArray[np.float64]) -> float:
        if value is None or isinstance(value, str):
            return float(effect[words.index(value)])
        return float(value) * float(effect[0])

    def function(columns: Columns) -> Any:
        table = np.array(
            [[number(value, effects[j]) for value in column] for j, column in enumerate(columns)]
        )
        return np.tanh(table.sum(axis=0)) + np.einsum("in,ij,jn->n", table, pairs, table)

    rows = [tuple(draw(kind) for kind in kinds) for _ in range(8)]
    instance = [draw(kind) for kind in kinds]
    # Duplicates: within the background, with the instance, and in single features.
    rows += [rows[0], tuple(instance), (instance[0], *rows[1][1:])]
    weights = rng.uniform(0, 1, len(rows)) if seed % 2 else None
    names = names_of(n_features)
    return (
        function,
        instance,
        Background(names=names, rows=rows, weights=None if weights is None else weights.tolist()),
    )


@pytest.mark.parametrize("seed", range(12))
def test_values_equal_brute_force(seed: int) -> None:
    function, instance, background = random_case(seed)

    answer = explained(function, instance, background)

    assert values_of(answer) == pytest.approx(
        brute_force(function, instance, background), abs=1e-10
    )
    assert answer.rows[0].prediction == function(tuple([value] for value in instance))[0]
    assert answer.quality.local_error < 1e-9
    assert answer.quality.converged
    assert answer.quality.fidelity is None
    assert not errors_of(answer).any()


@pytest.mark.parametrize("seed", range(6))
def test_kernel_with_all_coalitions_equals_exact(seed: int) -> None:
    function, instance, background = random_case(seed)
    grid = Grid.of(instance, background)
    with Broker(FAST) as broker:
        session = broker.session(LocalModel(function), TARGET, grid, deadline=math.inf)
        rounds = KernelRounds(session, budget=60_000, seed=np.random.SeedSequence(0))

        # A tolerance that sampling cannot reach: it ends when all coalitions were asked.
        outcome = rounds.run(1e-15)

    exact = brute_force(function, instance, background)
    assert outcome.estimate.values == pytest.approx(exact[grid.players], abs=1e-10)
    assert outcome.estimate.errors == pytest.approx(0, abs=1e-12)
    assert outcome.converged
    assert outcome.fidelity is None


def continuous(n_features: int, n_rows: int, seed: int = 0) -> tuple[list[float], Background]:
    rng = np.random.default_rng(seed)
    rows = [tuple(row) for row in rng.normal(size=(n_rows, n_features)).tolist()]
    return rng.normal(size=n_features).tolist(), Background(names=names_of(n_features), rows=rows)


def smooth(columns: Columns) -> Any:
    table: Any = np.array(columns)
    slopes = np.linspace(-1, 1, len(table))[:, None]
    return 1 / (1 + np.exp(-(slopes * table).sum(axis=0) - table[0] * table[-1]))


@pytest.mark.parametrize(
    ("n_features", "budget", "plan"),
    [
        pytest.param(6, 60_000, "by_coalition", id="few-features"),
        pytest.param(14, 20_000, "kernel", id="kernel"),
        pytest.param(60, 3_000, "permutation", id="permutation"),
    ],
)
def test_plan_follows_what_the_budget_allows(n_features: int, budget: int, plan: str) -> None:
    instance, background = continuous(n_features, 20)

    answer = explained(smooth, instance, background, shapley=Shapley(budget_rows=budget))

    assert answer.plans == (plan,)
    assert answer.cost.unique_rows <= budget
    assert answer.quality.local_error < 1e-9


def test_shared_values_make_the_plan_by_row() -> None:
    background = Background(names=("a", "b"), rows=[(1.0, 2.0), (3.0, 4.0)])

    assert explained(smooth, (1.0, 5.0), background).plans == ("by_row",)


@pytest.mark.parametrize("n_features", [12, 60])
def test_sampled_values_are_near_exact_ones(n_features: int) -> None:
    # Additive but for one product, so that the exact values are known: half of the product's
    # interaction to each side.
    instance, background = continuous(n_features, 10)
    table, x = np.array(background.rows), np.array(instance)

    def function(columns: Columns) -> Any:
        values: Any = np.array(columns)
        return values.sum(axis=0) + values[0] * values[1]

    exact = x - table.mean(axis=0)
    for one, other in ((0, 1), (1, 0)):
        gain = (x[one] - table[:, one]) * (x[other] + table[:, other]) / 2
        exact[one] += gain.mean()

    answer = explained(function, instance, background, shapley=Shapley(budget_rows=6_000))

    # Four standard errors; where they are 0, rounding.
    assert (abs(values_of(answer) - exact) <= 4 * errors_of(answer) + 1e-9).all()
    assert values_of(answer) == pytest.approx(exact, abs=0.2)


def test_additive_model_is_exact_by_sampling_with_error_zero() -> None:
    instance, background = continuous(30, 20)

    answer = explained(lambda columns: np.array(columns).sum(axis=0), instance, background, seed=1)

    exact = np.array(instance) - np.array(background.rows).mean(axis=0)
    # shap's default leaves out all but ten features here (ALGORITHMS 0.8).
    assert values_of(answer) == pytest.approx(exact, abs=1e-10)
    assert errors_of(answer) == pytest.approx(0, abs=1e-10)
    assert answer.quality.converged
    assert answer.quality.fidelity == pytest.approx(1)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 6))
def test_attributions_and_base_sum_to_the_prediction(seed: int, n_features: int) -> None:
    function, instance, background = random_case(seed, n_features=n_features)

    row = explained(function, instance, background).rows[0]

    total = row.base + sum(item.value for item in row.attributions.values())
    assert total == pytest.approx(row.prediction, abs=1e-9)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_feature_without_effect_gets_nothing(seed: int) -> None:
    function, instance, background = random_case(seed, n_features=4)

    def blind(columns: Columns) -> Any:
        return function((*columns[:2], [0.5] * len(columns[2]), columns[3]))

    kind = [isinstance(value, str) or value is None for value in instance]
    values = values_of(explained(blind if not kind[2] else function, instance, background))

    assert kind[2] or values[2] == pytest.approx(0, abs=1e-10)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-10, 10), min_size=3, max_size=3), st.integers(0, 100))
def test_features_with_equal_roles_get_equal_shares(values: list[float], seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = [(value, value, float(rng.normal())) for value in rng.normal(size=6).tolist()]
    background = Background(names=("a", "b", "c"), rows=rows)

    def function(columns: Columns) -> Any:
        a, b, c = map(np.array, columns)
        return a * b + np.sin(a) + np.sin(b) + c * (a + b)

    shares = values_of(explained(function, (values[0], values[0], values[1]), background))

    assert shares[0] == pytest.approx(shares[1], abs=1e-9)


def test_order_of_features_moves_with_their_attributions() -> None:
    function, instance, background = random_case(3)
    turned = Background(
        names=background.names[::-1],
        rows=[row[::-1] for row in background.rows],
        weights=background.weights,
    )

    straight = values_of(explained(function, instance, background))
    back = values_of(explained(lambda columns: function(columns[::-1]), instance[::-1], turned))

    assert back[::-1] == pytest.approx(straight, abs=1e-12)


def test_instance_that_is_the_whole_background_gets_nothing() -> None:
    background = Background(names=("a",), rows=[(2.0,), (2.0,)])

    answer = explained(lambda columns: np.array(columns[0]), (2.0,), background)

    assert values_of(answer) == [0]
    assert answer.cost.unique_rows == 1


def test_whole_number_meets_equal_float_of_the_background() -> None:
    background = Background(names=("a", "b"), rows=[(2.0, True), (3.0, False)])

    grid = Grid.of((2, 1), background)

    # 2 is 2.0 for a number; the flag True is not the number 1.
    assert grid.background[:, 0].tolist() == [0, 1]
    assert (grid.background[:, 1] != 0).all()


@pytest.mark.parametrize("budget", [60_000, 5_000])
def test_same_request_has_the_same_answer(budget: int) -> None:
    instance, background = continuous(12, 25)
    shapley = Shapley(budget_rows=budget)

    first, second = (explained(smooth, instance, background, shapley=shapley) for _ in range(2))

    assert first.rows == second.rows
    assert first.quality == second.quality


@pytest.mark.parametrize("budget", [200_000, 5_000])
def test_warm_cache_changes_the_cost_and_nothing_else(budget: int) -> None:
    instance, background = continuous(12, 25)
    with Broker(FAST) as broker:
        first, second = (
            Shapley(budget_rows=budget).explain(
                [instance],
                background,
                broker=broker,
                model=LocalModel(smooth),
                target=TARGET,
                deadline_s=3600,
            )
            for _ in range(2)
        )

    assert first.rows == second.rows
    assert first.quality == second.quality
    if budget == 5_000:
        assert second.cost.model_rows == 0
        assert second.cost.cache_hits == second.cost.unique_rows == first.cost.model_rows


def test_other_seed_draws_other_coalitions() -> None:
    instance, background = continuous(14, 25)
    shapley = Shapley(budget_rows=5_000)

    one = explained(smooth, instance, background, shapley=shapley, seed=1)
    two = explained(smooth, instance, background, shapley=shapley, seed=2)

    assert one.rows != two.rows


def test_chunks_and_concurrency_do_not_change_the_answer() -> None:
    function, instance, background = random_case(5)
    answers = []
    for limits in (FAST, Limits(calls_in_flight=3, rows_per_call=7, rows_per_second=1e9)):
        with Broker(limits) as broker:
            answers.append(
                Shapley().explain(
                    [instance],
                    background,
                    broker=broker,
                    model=LocalModel(function),
                    target=TARGET,
                    deadline_s=3600,
                )
            )

    assert answers[0].rows == pytest.approx(answers[1].rows) or answers[0].rows == answers[1].rows
    assert answers[1].cost.model_calls > answers[0].cost.model_calls


def test_several_rows_share_the_background() -> None:
    _, background = continuous(4, 10)
    rows = [(0.1, 0.2, 0.3, 0.4), (0.1, 0.2, 0.3, 0.5)]
    with Broker(FAST) as broker:
        answer = Shapley().explain(
            rows,
            background,
            broker=broker,
            model=LocalModel(smooth),
            target=TARGET,
            deadline_s=3600,
        )

    assert len(answer.rows) == 2
    assert answer.cost.cache_hits >= 10
    assert answer.rows[0].base == answer.rows[1].base


def test_share_of_implausible_rows_is_reported() -> None:
    instance, background = continuous(4, 10)
    seen = []

    def implausible(columns: Columns) -> float:
        seen.append(len(columns[0]))
        return 0.25

    answer = explained(smooth, instance, background, implausible=implausible)

    assert answer.quality.off_manifold == 0.25
    assert seen == [answer.cost.unique_rows]


def test_implausible_rows_are_looked_for_among_a_thousand() -> None:
    instance, background = continuous(8, 10)
    seen = []

    def implausible(columns: Columns) -> float:
        seen.append(len(columns[0]))
        return 0.0

    answer = explained(smooth, instance, background, implausible=implausible)

    assert answer.cost.unique_rows > 1_000
    assert seen == [1_000]


def test_budget_below_the_background_is_refused() -> None:
    instance, background = continuous(3, 10)

    with pytest.raises(BudgetTooSmall):
        explained(smooth, instance, background, shapley=Shapley(budget_rows=5))


def test_no_time_is_refused() -> None:
    instance, background = continuous(3, 10)
    with Broker(FAST) as broker, pytest.raises(ParameterError):
        Shapley().explain(
            [instance],
            background,
            broker=broker,
            model=LocalModel(smooth),
            target=TARGET,
            deadline_s=0,
        )


def test_held_out_fidelity_tells_additive_from_interacting() -> None:
    instance, background = continuous(16, 10)
    shapley = Shapley(budget_rows=10_000)

    def bent(columns: Columns) -> Any:
        return np.tanh(np.array(columns).mean(axis=0))

    def parity(columns: Columns) -> Any:
        return np.sign(np.array(columns)[:12]).prod(axis=0)

    smooth_one = explained(bent, instance, background, shapley=shapley)
    rough_one = explained(parity, instance, background, shapley=shapley)

    assert smooth_one.quality.fidelity is not None
    assert rough_one.quality.fidelity is not None
    assert smooth_one.quality.fidelity > 0.9
    assert rough_one.quality.fidelity < 0.3
    assert not rough_one.quality.converged


@pytest.mark.parametrize(
    ("parameters", "name"),
    [
        pytest.param({"budget_rows": 0}, "budget_rows", id="no-budget"),
        pytest.param({"tolerance": 0.0}, "tolerance", id="no-tolerance"),
        pytest.param({"tolerance": math.nan}, "tolerance", id="nan"),
    ],
)
def test_impossible_parameter_is_named(parameters: dict[str, Any], name: str) -> None:
    with pytest.raises(ParameterError) as caught:
        Shapley(**parameters)

    assert caught.value.name == name


def test_budget_below_the_first_estimate_is_refused_before_any_call() -> None:
    instance, background = continuous(30, 10)
    asked = []

    def function(columns: Columns) -> Any:
        asked.append(len(columns[0]))
        return smooth(columns)

    with pytest.raises(BudgetTooSmall) as caught:
        explained(function, instance, background, shapley=Shapley(budget_rows=50))

    assert caught.value.needed == 11 + 2 * 30 * 3
    assert asked == []


@pytest.mark.parametrize(
    "instance",
    [
        pytest.param((1.0,), id="short"),
        pytest.param((1.0, 2.0, 3.0), id="long"),
        pytest.param({"a": 1.0}, id="missing"),
        pytest.param({"a": 1.0, "b": 1.0, "c": 1.0}, id="unknown"),
        pytest.param("ab", id="text"),
        pytest.param((1.0, {"a": 1}), id="object-in-a-feature"),
    ],
)
def test_instance_that_does_not_fit_is_refused(instance: Any) -> None:
    background = Background(names=("a", "b"), rows=[(1.0, 2.0)])

    with pytest.raises(RowError):
        explained(smooth, instance, background)


@pytest.mark.parametrize(
    ("rows", "weights"),
    [
        pytest.param([], None, id="empty"),
        pytest.param([(1.0,)], None, id="narrow"),
        pytest.param([(1.0, 2.0)], [0.0], id="no-weight"),
        pytest.param([(1.0, 2.0)], [1.0, 1.0], id="too-many-weights"),
        pytest.param([(1.0, 2.0)], [-1.0], id="negative-weight"),
    ],
)
def test_unusable_background_is_refused(rows: list[Any], weights: list[float] | None) -> None:
    with pytest.raises((RowError, ParameterError)):
        Background(names=("a", "b"), rows=rows, weights=weights)


def test_nothing_to_explain_is_refused() -> None:
    _, background = continuous(3, 3)
    with Broker(FAST) as broker, pytest.raises(RowError):
        Shapley().explain(
            [], background, broker=broker, model=LocalModel(smooth), target=TARGET, deadline_s=1
        )


def test_background_sample_is_the_same_for_the_same_columns() -> None:
    columns: dict[str, list[Any]] = {
        "a": list(range(1_000)),
        "b": [str(value) for value in range(1_000)],
    }

    first, second = (Background.sample(columns, n_rows=50) for _ in range(2))

    assert first.rows == second.rows
    assert len(first.rows) == 50
    assert all(str(a) == b for a, b in first.rows)


@pytest.mark.slow
def test_confidence_intervals_cover_the_exact_values() -> None:
    # 12 features x 10 rows: exact by enumeration; 40 seeded samples of about 10 % of it.
    instance, background = continuous(12, 10, seed=4)

    def rough(columns: Columns) -> Any:
        table: Any = np.array(columns)
        return smooth(columns) + 0.5 * np.sign(table[1] * table[2] + table[3] * table[4])

    exact = values_of(explained(rough, instance, background, shapley=Shapley(budget_rows=10**6)))
    hits, total = 0, 0
    for seed in range(40):
        answer = explained(
            rough,
            instance,
            background,
            shapley=Shapley(budget_rows=4_000, tolerance=1e-9),
            seed=seed,
        )
        errors = errors_of(answer)
        hits += int((abs(values_of(answer) - exact) <= 1.96 * errors).sum())
        total += errors.size

    print(f"coverage of 95 % intervals: {hits / total:.3f}")
    # The share of 95 % intervals; features of one sample move together, hence the room.
    assert 0.90 <= hits / total <= 0.99


def test_predictions_whose_sums_overflow_are_no_explanation() -> None:
    background = Background(names=("a", "b"), rows=[(0.0, 0.0), (1.0, 1.0)])

    with pytest.raises(BadAnswer, match="finite"):
        explained(lambda columns: np.where(columns[0], 1.7e308, -1.7e308), (3.0, 0.5), background)
