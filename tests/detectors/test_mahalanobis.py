"""Outliers: known answers, calibration, robustness."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.covariance import ledoit_wolf

from sidelight.detectors import Mahalanobis, OutlierRate, ParameterError, SampleError
from sidelight.detectors._capital import Capital
from sidelight.detectors._mahalanobis import FittedMahalanobis, _shrunk_covariance

Matrix = np.ndarray[tuple[int, int], np.dtype[np.float64]]


def correlated(n: int, seed: int = 0) -> Matrix:
    mixing = np.array([[1, 0, 0], [0.8, 0.6, 0], [0, 0, 100]])
    sample: Matrix = np.random.default_rng(seed).normal(size=(n, 3)) @ mixing.T
    sample += np.array([5, -3, 1000])
    return sample


def test_shrunk_covariance_equals_scikit_learn() -> None:
    sample = correlated(60)
    z = (sample - sample.mean(axis=0)) / sample.std(axis=0)

    covariance = _shrunk_covariance(z, np.ones(3, dtype=bool))

    assert covariance == pytest.approx(ledoit_wolf(z)[0], abs=1e-8)


def test_scores_of_a_normal_reference_follow_chi_square() -> None:
    detector = Mahalanobis().fit(correlated(20_000))

    scores, _ = detector.score(correlated(5000, seed=1))

    assert stats.kstest(scores, stats.chi2(3).cdf).pvalue > 0.001


def test_score_does_not_depend_on_the_unit_of_a_feature() -> None:
    sample = correlated(500)
    units = np.array([1e-9, 1.0, 1e12])

    first, _ = Mahalanobis().fit(sample).score(sample)
    second, _ = Mahalanobis().fit(sample * units).score(sample * units)

    assert first == pytest.approx(second, rel=1e-6)


@settings(max_examples=30)
@given(st.lists(st.integers(1, 20), max_size=5), st.integers(2, 40))
def test_scores_do_not_depend_on_how_rows_are_batched(cuts: list[int], n_columns: int) -> None:
    rng = np.random.default_rng(n_columns)
    detector = Mahalanobis().fit(rng.normal(size=(200, n_columns)))
    rows = rng.normal(size=(60, n_columns))

    parts = [detector.score(part)[0] for part in np.split(rows, np.cumsum(cuts))]

    assert (np.concatenate(parts) == detector.score(rows)[0]).all()


def plain_score(fitted: FittedMahalanobis, row: list[float]) -> float:
    """The score by its definition, with plain numbers, added up in the order of the columns."""
    parts = zip(row, fitted.mean.tolist(), fitted.scale.tolist(), strict=True)
    z = [0.0 if s == 0 or math.isnan(x) else x / s - m / s for x, m, s in parts]
    score = 0.0
    for place, factors in enumerate(fitted.factor.tolist()):
        white = 0.0
        for factor, value in zip(factors[: place + 1], z[: place + 1], strict=True):
            white += factor * value
        score += white * white
    return score


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 24), st.integers(1, 200), st.integers(0, 2**32))
def test_scores_of_few_and_of_many_rows_are_those_of_plain_numbers(
    n_columns: int, n_rows: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    sample = rng.normal(size=(60 + n_rows, n_columns)) * 10.0 ** rng.integers(-3, 4, n_columns)
    sample[rng.random(sample.shape) < 0.1] = np.nan
    sample[:, rng.random(n_columns) < 0.2] = 3.0
    fitted, stream = Mahalanobis().fit(sample[:60]), sample[60:]

    scores, _ = fitted.score(stream)

    for row in {0, n_rows // 2, n_rows - 1}:
        (alone,), _ = fitted.score(stream[row : row + 1])
        assert scores[row] == alone == plain_score(fitted, stream[row].tolist())


def test_p_value_counts_held_out_scores() -> None:
    detector = Mahalanobis().fit(correlated(101))

    scores, p_values = detector.score(correlated(20, seed=3))

    for score, p in zip(scores, p_values, strict=True):
        assert p == pytest.approx((1 + (detector.held_out >= score).sum()) / 51)


def test_missing_values_are_the_mean_and_constant_columns_say_nothing() -> None:
    sample = np.column_stack([correlated(300), np.full(300, 7.0)])
    sample[::3, 0] = np.nan
    detector = Mahalanobis().fit(sample)

    scores, p_values = detector.score(
        [[np.nan, np.nan, np.nan, np.nan], [*detector.mean[:3], 1e300]]
    )

    assert scores.tolist() == pytest.approx([0, 0], abs=1e-9)
    assert p_values.tolist() == [1, 1]


@pytest.mark.parametrize(
    "sample",
    [
        pytest.param(np.full((100, 2), 3.0), id="constant"),
        pytest.param(np.full((100, 2), np.nan), id="all-missing"),
        pytest.param(np.repeat(np.arange(100.0)[:, np.newaxis], 30, axis=1), id="repeated"),
        pytest.param(np.random.default_rng(0).normal(size=(100, 2)) * 1e307, id="huge"),
        pytest.param(np.random.default_rng(0).normal(size=(60, 150)), id="more-columns-than-rows"),
    ],
)
def test_awkward_references_give_finite_scores(sample: Matrix) -> None:
    detector = Mahalanobis().fit(sample)

    scores, p_values = detector.score(np.vstack([sample, np.full(sample.shape[1], 1e308)]))

    assert np.isfinite(scores).all()
    assert ((p_values > 0) & (p_values <= 1)).all()


def test_input_is_not_changed() -> None:
    sample = correlated(100)
    sample[0, 0] = np.nan
    before = sample.copy()

    Mahalanobis().fit(sample).score(sample)

    assert np.array_equal(sample, before, equal_nan=True)


@pytest.mark.slow
def test_share_of_outliers_is_the_level_on_average_over_references() -> None:
    shares = []
    for seed in range(200):
        detector = Mahalanobis().fit(correlated(1000, seed=seed))
        _, p_values = detector.score(correlated(1000, seed=10_000 + seed))
        rate = OutlierRate(n_calibration=detector.held_out.size)
        shares.append(float((p_values <= rate.level).mean()))

    # 5 / 501, with a standard error of 0.0004 over the references.
    assert np.mean(shares) == pytest.approx(5 / 501, abs=0.0015)
    assert max(shares) < rate.allowed + 0.02


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param(np.zeros(3), id="one-dimensional"),
        pytest.param(np.zeros((2, 4)), id="too-wide"),
        pytest.param([[np.inf, 0, 0]], id="infinite"),
    ],
)
def test_unusable_rows_are_refused(rows: Matrix) -> None:
    detector = Mahalanobis().fit(correlated(50))

    with pytest.raises(SampleError):
        detector.score(rows)


def test_reference_of_three_rows_is_refused() -> None:
    with pytest.raises(SampleError) as caught:
        Mahalanobis().fit(np.zeros((3, 2)))

    assert caught.value.got == 3


# The rate of outliers.


def test_few_calibration_rows_use_the_smallest_p_value_there_is() -> None:
    assert OutlierRate(n_calibration=24).level == pytest.approx(1 / 25)
    assert OutlierRate(n_calibration=500).level == pytest.approx(0.01)


def test_allowed_rate_is_the_quantile_of_the_level() -> None:
    rate = OutlierRate(n_calibration=500, calibration_risk=0.001)

    assert rate.allowed == pytest.approx(stats.beta.ppf(0.999, 5, 496))


@pytest.mark.parametrize("n_calibration", [1, 10, 100, 500, 100_000])
def test_bets_do_not_gain_at_the_allowed_rate_or_below(n_calibration: int) -> None:
    rate = OutlierRate(n_calibration=n_calibration)
    miss, hit = rate.factors(np.array([False, True]))

    for share in (0.0, rate.allowed / 2, rate.allowed):
        assert (share * hit + (1 - share) * miss <= 1 + 1e-12).all()
    assert (hit > 1)[1:].all()


def test_a_tenth_of_outliers_is_evidence_and_a_hundredth_is_none() -> None:
    rate = OutlierRate(n_calibration=500)
    rng = np.random.default_rng(0)
    start = Capital.start(1, 5)

    few = OutlierRate.start().update(rate.factors(rng.random(5000) < 0.01))
    many = start.update(rate.factors(rng.random(1000) < 0.1))

    assert few.max() < 1
    assert many.max() > 4


def test_calibration_without_rows_is_refused() -> None:
    with pytest.raises(ParameterError) as caught:
        OutlierRate(n_calibration=0)

    assert caught.value.name == "n_calibration"
