"""Martingales: algebra, invariance, level and power."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidelight.detectors import (
    ConformalRanks,
    NumericReference,
    ParameterError,
    SampleError,
    SimpleJumper,
    average_log10,
    values_of,
)
from sidelight.detectors._capital import Capital, play_together
from sidelight.detectors._simple_jumper import bets_on
from sidelight.detectors._uniforms import seed_of, uniforms

Matrix = np.ndarray[tuple[int, int], np.dtype[np.float64]]


def brute_force(p_values: list[float]) -> list[float]:
    """Log10 capital after each row, by the definition, with plain numbers."""
    amounts = [1.0, 0.0, 0.0, 0.0, 0.0]
    logs = []
    for row, p in enumerate(p_values):
        resting = [1 / (1 + math.log(1 + age / 100)) for age in (row, row + 1)]
        leak = amounts[0] * (1 - resting[1] / resting[0])
        pool = 0.01 * sum(amounts[1:])
        moved = [amounts[0] - leak, *(0.99 * amount + leak / 4 for amount in amounts[1:])]
        bets = [0.0, p - 0.5, 0.5 - p, abs(2 * p - 1) - 0.5, 0.5 - abs(2 * p - 1)]
        amounts = [(m + pool / 5) * (1 + b) for m, b in zip(moved, bets, strict=True)]
        logs.append(math.log10(sum(amounts)))
    return logs


def stream_of_p_values(sample: Matrix, n_reference: int, *, seed: int) -> Matrix:
    """Conformal p-values of the rows after the reference, every column a stream of its own."""
    rng = np.random.default_rng(seed)
    bags, ranks = [], []
    for column in sample.T:
        reference = NumericReference.fit(values_of(column[:n_reference]), n_bins=10)
        rank = reference.ranks(64)
        bags.append(np.bincount(rank, weights=reference.counts, minlength=65).astype(np.int64))
        ranks.append(rank[reference.cells(values_of(column[n_reference:]))])
    table = np.stack(ranks, axis=1)
    return ConformalRanks(np.stack(bags)).update(table, rng.random(table.shape))


def test_capital_follows_the_definition() -> None:
    p_values = np.random.default_rng(0).random(300)

    evidence = SimpleJumper(1).update(p_values[:, np.newaxis])

    assert evidence[:, 0] == pytest.approx(brute_force(p_values.tolist()), abs=1e-10)


def test_mean_capital_is_one_without_change() -> None:
    # The factors of one row have mean one, so the mean over many streams stays near one.
    p_values = np.random.default_rng(0).random((20, 200_000))

    evidence = SimpleJumper(200_000).update(p_values)

    assert (10 ** evidence[-1]).mean() == pytest.approx(1, abs=0.01)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 90), max_size=6), st.integers(0, 1000))
def test_evidence_does_not_depend_on_how_rows_are_cut(cuts: list[int], seed: int) -> None:
    p_values = np.random.default_rng(seed).beta(2, 1, size=(200, 3))
    whole = SimpleJumper(3).update(p_values)
    jumper = SimpleJumper(3)

    parts = [jumper.update(part) for part in np.split(p_values, np.cumsum(cuts))]

    assert (np.concatenate(parts) == whole).all()


def test_evidence_beyond_the_range_of_floats_keeps_growing() -> None:
    jumper = SimpleJumper(1)

    evidence = jumper.update(np.full((20_000, 1), 0.999))

    assert np.isfinite(evidence).all()
    assert evidence[-1, 0] > 1000
    assert jumper.log10_evidence[0] == pytest.approx(evidence[-1, 0])


def test_a_change_after_a_long_quiet_time_is_still_found_soon() -> None:
    rng = np.random.default_rng(0)
    quiet, changed = rng.random((200_000, 1)), rng.beta(1.6, 1, size=(400, 1))

    evidence = SimpleJumper(1).update(np.concatenate([quiet, changed]))

    assert evidence[:200_000].max() < 2
    assert evidence[-1, 0] > 2


@pytest.mark.parametrize(
    ("a", "b"), [pytest.param(1, 2, id="larger"), pytest.param(0.5, 0.5, id="more-extreme")]
)
def test_changes_of_place_and_of_spread_are_seen(a: float, b: float) -> None:
    p_values = np.random.default_rng(0).beta(a, b, size=(500, 1))

    assert SimpleJumper(1).update(p_values)[-1, 0] > 2


def test_average_is_that_of_the_values_and_not_of_their_logarithms() -> None:
    assert average_log10(np.array([[0.0, 2.0]]))[0] == pytest.approx(math.log10(50.5))
    assert average_log10(np.array([[0.0, 5000.0]]))[0] == pytest.approx(5000 - math.log10(2))


# Conformal p-values.


def test_p_values_follow_the_definition() -> None:
    rng = np.random.default_rng(0)
    reference, stream = rng.integers(0, 5, 40), rng.integers(0, 5, 60)
    u = rng.random(60)
    ranks = ConformalRanks(np.bincount(reference, minlength=5)[np.newaxis])

    p_values = ranks.update(stream[:, np.newaxis], u[:, np.newaxis])[:, 0]

    seen = reference.tolist()
    for value, chance, p in zip(stream.tolist(), u.tolist(), p_values.tolist(), strict=True):
        seen.append(value)
        greater, equal = sum(s > value for s in seen), sum(s == value for s in seen)
        assert p == pytest.approx((greater + chance * equal) / len(seen), abs=1e-14)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 50), max_size=5), st.integers(0, 1000))
def test_p_values_do_not_depend_on_how_rows_are_cut(cuts: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    stream, u = rng.integers(0, 7, (100, 2)), rng.random((100, 2))
    start = rng.integers(0, 30, (2, 7))
    whole, parts = ConformalRanks(start.copy()), ConformalRanks(start.copy())
    places = np.cumsum(cuts)

    pieces = [
        parts.update(ranks, chance)
        for ranks, chance in zip(np.split(stream, places), np.split(u, places), strict=True)
    ]

    assert (np.concatenate(pieces) == whole.update(stream, u)).all()
    assert (whole.counts == parts.counts).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 120), st.integers(1, 4), st.sampled_from([2, 65, 300]), st.integers(0, 2**32))
def test_p_values_of_long_blocks_are_those_of_single_rows(
    n_rows: int, n_columns: int, n_ranks: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    ranks, u = rng.integers(0, n_ranks, (n_rows, n_columns)), rng.random((n_rows, n_columns))
    start = rng.integers(0, 30, (n_columns, n_ranks))
    block, single = ConformalRanks(start.copy()), ConformalRanks(start.copy())

    p_values = block.update(ranks, u)

    for row in range(n_rows):
        assert (single.update(ranks[row : row + 1], u[row : row + 1]) == p_values[row]).all()
    assert (block.counts == single.counts).all()


# Two capitals in one loop.


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 90), max_size=5), st.sampled_from([0, 30]), st.integers(0, 1000))
def test_capitals_played_together_are_the_same_however_rows_are_cut(
    cuts: list[int], ahead: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    p_values, others = rng.beta(2, 1, size=(200, 3)), rng.random((200, 1))

    def play(places: list[int]) -> tuple[Matrix, Matrix]:
        first, second = Capital.start(3, 5), Capital.start(1, 5)
        second.update(bets_on(np.full((ahead, 1), 0.5)))
        pieces = [
            play_together(first, second, bets_on(np.concatenate([p, q], axis=1)))
            for p, q in zip(np.split(p_values, places), np.split(others, places), strict=True)
        ]
        one, two = zip(*pieces, strict=True)
        assert first.age == second.age - ahead == 200
        return np.concatenate(one), np.concatenate(two)

    whole, parts = play([]), play(np.cumsum(cuts).clip(max=200).tolist())

    assert (whole[0] == parts[0]).all()
    assert (whole[1] == parts[1]).all()
    assert whole[0] == pytest.approx(SimpleJumper(3).update(p_values), abs=1e-12)
    alone = SimpleJumper(1)
    alone.update(np.full((ahead, 1), 0.5))
    assert whole[1] == pytest.approx(alone.update(others), abs=1e-12)


def test_uniform_numbers_depend_on_name_and_row_alone() -> None:
    seeds = np.array([seed_of("a/b", "x"), seed_of("a/b", "y")], dtype=np.uint64)

    whole = uniforms(seeds, 0, 5000)
    parts = np.concatenate([uniforms(seeds, 0, 7), uniforms(seeds, 7, 4993)])

    assert (whole == parts).all()
    assert whole.mean(axis=0) == pytest.approx([0.5, 0.5], abs=0.02)
    centred = whole - whole.mean(axis=0)
    between_names = (centred[:, 0] * centred[:, 1]).mean() * 12
    between_rows = (centred[1:, 0] * centred[:-1, 0]).mean() * 12
    assert [between_names, between_rows] == pytest.approx([0, 0], abs=0.05)


# Level and power.


@pytest.mark.slow
def test_false_alarms_in_ten_thousand_rows_are_at_most_two_percent() -> None:
    false = 0
    for seed in range(4):
        sample = np.random.default_rng(seed).normal(size=(15_000, 50))
        p_values = stream_of_p_values(sample, 5000, seed=seed)
        false += int((SimpleJumper(50).update(p_values).max(axis=0) >= 2).sum())

    assert false <= 4


@pytest.mark.slow
@pytest.mark.parametrize("changed_at", [0, 1000, 5000])
def test_half_a_deviation_is_found_within_two_hundred_rows(changed_at: int) -> None:
    sample = np.random.default_rng(changed_at).normal(size=(5000 + changed_at + 1000, 100))
    sample[5000 + changed_at :] += 0.5

    evidence = SimpleJumper(100).update(stream_of_p_values(sample, 5000, seed=1))

    found = evidence[changed_at:] >= 2
    assert found.any(axis=0).all()
    assert np.median(found.argmax(axis=0) + 1) <= 200


# Errors.


@pytest.mark.parametrize(
    ("n_features", "jump_rate", "name"),
    [
        pytest.param(-1, 0.01, "n_features", id="negative"),
        pytest.param(1, 0.0, "jump_rate", id="never-jumps"),
        pytest.param(1, 1.0, "jump_rate", id="always-jumps"),
    ],
)
def test_impossible_parameter_is_named(n_features: int, jump_rate: float, name: str) -> None:
    with pytest.raises(ParameterError) as caught:
        SimpleJumper(n_features, jump_rate=jump_rate)

    assert caught.value.name == name


@pytest.mark.parametrize(
    "p_values",
    [
        pytest.param(np.zeros((3, 2)), id="wrong-width"),
        pytest.param(np.zeros(3), id="one-dimensional"),
        pytest.param(np.array([[1.5]]), id="above-one"),
        pytest.param(np.array([[np.nan]]), id="nan"),
    ],
)
def test_unusable_p_values_are_refused(p_values: Matrix) -> None:
    with pytest.raises(SampleError):
        SimpleJumper(1).update(p_values)


def test_ranks_that_there_are_not_are_refused() -> None:
    bag = ConformalRanks(np.ones((1, 3), dtype=np.int64))

    with pytest.raises(SampleError):
        bag.update(np.array([[3]]), np.array([[0.5]]))
    with pytest.raises(SampleError):
        bag.update(np.array([[0, 1]]), np.array([[0.5, 0.5]]))


def test_state_of_a_jumper_is_its_capital() -> None:
    jumper = SimpleJumper(2)
    jumper.update(np.random.default_rng(0).random((10, 2)))
    state = jumper.capital

    resumed = SimpleJumper.resume(
        Capital(state.amounts.copy(), state.exponents.copy(), state.age, state.jump_rate)
    )

    rest = np.random.default_rng(1).random((100, 2))
    assert (resumed.update(rest) == jumper.update(rest)).all()
