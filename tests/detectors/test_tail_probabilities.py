"""Tail probabilities against scipy."""

import numpy as np
import pytest
from scipy import stats

from sidelight.detectors._tail_probabilities import (
    beta_quantile,
    chi_square_tail,
    kolmogorov_tail,
)


@pytest.mark.parametrize("n", [1, 2, 7, 50, 140, 141, 500, 5000])
def test_kolmogorov_tail_equals_scipy(n: int) -> None:
    # Just above n = 140 the expansion of Pelz and Good is good to 3e-6, elsewhere to 1e-9.
    distances = np.concatenate([np.linspace(0.01, 0.99, 40), np.linspace(0.1, 3, 40) / np.sqrt(n)])

    for distance in distances[distances < 1]:
        expected = float(stats.kstwo.sf(distance, n))
        assert kolmogorov_tail(n, float(distance)) == pytest.approx(expected, abs=5e-6, rel=1e-6)


def test_tails_stay_in_the_half_open_unit_interval() -> None:
    assert 0 < kolmogorov_tail(10_000, 0.9) <= 1e-200
    assert kolmogorov_tail(10, 0.0) == 1
    assert kolmogorov_tail(10, 1.0) > 0
    assert 0 < chi_square_tail(1e6, 3) <= 1e-200
    assert chi_square_tail(0.0, 3) == 1
    assert chi_square_tail(5.0, 0) == 1


def test_chi_square_tail_equals_scipy() -> None:
    assert chi_square_tail(12.3, 9) == pytest.approx(float(stats.chi2.sf(12.3, 9)))


def test_beta_quantile_equals_scipy() -> None:
    assert beta_quantile(5, 496, 0.999) == pytest.approx(float(stats.beta.ppf(0.999, 5, 496)))
