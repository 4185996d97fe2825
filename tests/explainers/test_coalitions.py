"""Strata of coalitions, the regression on them, and the estimate from a part of the units."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidelight.explainers._coalitions import Stratum, allotted, strata
from sidelight.explainers._games import coalitions, shapley_values
from sidelight.explainers._kernel import Layer, fidelity, fit
from sidelight.explainers._surveying import mean_of_units


@given(st.integers(2, 8), st.integers(0, 100))
def test_strata_hand_out_every_coalition_once(n_players: int, seed: int) -> None:
    seen = []
    for layer in strata(n_players, np.random.SeedSequence(seed)):
        while layer.n_left:
            for mask in layer.take(3):
                seen += [tuple(mask), tuple(~mask)]

    assert len(seen) == len(set(seen)) == 2**n_players - 2


def test_drawn_pairs_of_a_large_stratum_do_not_repeat() -> None:
    layer = Stratum(n_players=30, size=15, rng=np.random.default_rng(0))

    masks = np.concatenate([layer.take(500), layer.take(500)])

    assert layer.n_pairs == math.comb(30, 15) // 2
    assert (masks.sum(axis=1) == 15).all()
    assert len({mask.tobytes() for mask in masks} | {(~mask).tobytes() for mask in masks}) == 2_000


def test_weights_are_those_of_the_shapley_kernel() -> None:
    n_players = 7
    layers = strata(n_players, np.random.SeedSequence(0))

    for layer in layers:
        one = (n_players - 1) / (
            math.comb(n_players, layer.size) * layer.size * (n_players - layer.size)
        )
        assert layer.weight / (2 * layer.n_pairs) == pytest.approx(one)


@given(st.integers(2, 40), st.lists(st.integers(1, 200), min_size=1, max_size=5))
def test_pairs_are_allotted_to_the_last_one(n_players: int, rounds: list[int]) -> None:
    layers = strata(n_players, np.random.SeedSequence(0))
    taken = [0] * len(layers)
    for n_pairs in rounds:
        left = sum(layer.n_left for layer in layers)
        counts = allotted(layers, taken, n_pairs)
        assert all(0 <= count <= layer.n_left for count, layer in zip(counts, layers, strict=True))
        assert sum(counts) <= min(n_pairs, left)
        # Rounding may leave a few for the next round where strata are nearly used up.
        assert sum(counts) >= min(n_pairs, left) - len(layers)
        for index, (layer, count) in enumerate(zip(layers, counts, strict=True)):
            layer.take(count)
            taken[index] += count


def test_small_strata_are_taken_whole_first() -> None:
    layers = strata(20, np.random.SeedSequence(0))

    counts = allotted(layers, [0] * len(layers), 1_000)

    assert counts[0] == layers[0].n_pairs == 20
    assert counts[1] == layers[1].n_pairs == 190
    assert sum(counts) == 1_000


@pytest.mark.parametrize("n_players", [1, 2, 3, 6])
def test_shapley_values_follow_the_definition(n_players: int) -> None:
    rng = np.random.default_rng(n_players)
    values = rng.normal(size=(3, 2**n_players))

    expected = np.zeros((3, n_players))
    for order in itertools.permutations(range(n_players)):
        place = 0
        for player in order:
            expected[:, player] += values[:, place | 1 << player] - values[:, place]
            place |= 1 << player

    assert shapley_values(values, n_players) == pytest.approx(
        expected / math.factorial(n_players), abs=1e-12
    )


@pytest.mark.parametrize("n_players", [2, 3, 6, 7])
def test_regression_on_all_coalitions_gives_shapley_values(n_players: int) -> None:
    rng = np.random.default_rng(n_players)
    game = rng.normal(size=2**n_players)
    places = 1 << np.arange(n_players)
    layers = []
    for layer in strata(n_players, np.random.SeedSequence(0)):
        masks = layer.take(layer.n_pairs)
        layers.append(
            Layer(
                masks=masks,
                values=game[masks @ places] - game[0],
                mirrored=game[~masks @ places] - game[0],
                n_all=layer.n_pairs,
                weight=layer.weight,
            )
        )

    estimate = fit(layers, float(game[-1] - game[0]))

    assert estimate.values == pytest.approx(shapley_values(game[None, :], n_players)[0], abs=1e-10)
    assert not estimate.errors.any()


def test_coalitions_are_in_the_order_of_their_bits() -> None:
    assert coalitions(2).astype(int).tolist() == [[0, 0], [1, 0], [0, 1], [1, 1]]


def test_fidelity_of_one_point_is_unknown_and_of_a_constant_one_or_unknown() -> None:
    masks = np.array([[True, False]])
    empty = Layer(masks=masks[:0], values=np.zeros(0), mirrored=np.zeros(0), n_all=1, weight=1.0)
    flat = Layer(masks=masks, values=np.zeros(1), mirrored=np.zeros(1), n_all=1, weight=1.0)

    assert fidelity(empty, np.zeros(2)) is None
    assert fidelity(flat, np.zeros(2)) == 1
    assert fidelity(flat, np.ones(2)) is None


def test_mean_of_a_part_sums_to_the_total_and_covers_the_mean_of_all() -> None:
    rng = np.random.default_rng(0)
    units = rng.normal(size=(60, 4)) * [1, 2, 3, 0.1] + [1, 0, -1, 0]
    total = float(units.mean(axis=0).sum())
    hits = 0
    for _ in range(200):
        chosen = rng.permutation(60)[:20]
        estimate = mean_of_units(units[chosen], np.ones(20), total=total, n_all=60)
        assert estimate is not None
        assert estimate.values.sum() == pytest.approx(total)
        hits += int((abs(estimate.values - units.mean(axis=0)) <= 2 * estimate.errors).sum())

    # 95 % of 800, with room for 20 units only and for dependence within a draw.
    assert 0.90 <= hits / 800 <= 0.99


def test_all_units_leave_no_error() -> None:
    units = np.array([[1.0, 2.0], [3.0, 5.0]])

    estimate = mean_of_units(units, np.array([1.0, 3.0]), total=6.75, n_all=2)

    assert estimate is not None
    assert estimate.values == pytest.approx([2.5, 4.25])
    assert not estimate.errors.any()


def test_two_of_many_units_say_nothing() -> None:
    assert mean_of_units(np.ones((2, 3)), np.ones(2), total=3.0, n_all=9) is None
