"""Tail probabilities of the null distributions, without ``scipy.stats``.

``scipy.stats`` takes most of a second to import and ``scipy.special`` a seventh of one, so the
former is a test oracle only and the latter is imported by ``load_distributions`` or at the first
look.
"""

import functools
import importlib
import math

import numpy as np
from numpy.typing import NDArray

# Smallest p-value that is reported: p-values live in (0, 1], and float64 underflows below.
SMALLEST_P = 1e-300

# Up to here the exact matrix of Marsaglia, Tsang and Wang is small and does not overflow.
_EXACT_N = 140
# Beyond these values of n * d**2 twice the one-sided tail equals the two-sided one to 1e-6 of it.
_ONE_SIDED_EXACT = 4.0
_ONE_SIDED_LARGE = 2.2
# Below this value of sqrt(n) * d the distribution function is under 1e-12.
_CERTAIN = 0.19


def chi_square_tail(statistic: float, degrees: int) -> float:
    """P(X >= statistic) of a chi-square variable, in (0, 1]."""
    if degrees < 1 or statistic <= 0:
        return 1.0
    from scipy import special  # noqa: PLC0415 - 150 ms of import that not everybody needs

    return max(float(special.chdtrc(degrees, statistic)), SMALLEST_P)


def chi_square_tails(
    statistics: NDArray[np.float64], degrees: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the same for several statistics and degrees of one shape."""
    chosen = (degrees >= 1) & (statistics > 0)
    tails = np.ones(statistics.shape)
    if chosen.any():
        from scipy import special  # noqa: PLC0415 - as above

        found = special.chdtrc(degrees[chosen], statistics[chosen])
        tails[chosen] = np.maximum(found, SMALLEST_P)
    return tails


@functools.lru_cache(maxsize=1024)
def beta_quantile(a: float, b: float, probability: float) -> float:
    """Quantile of the beta distribution, in [0, 1]."""
    from scipy import special  # noqa: PLC0415 - as above

    return float(special.betaincinv(a, b, probability))


def load_distributions() -> None:
    """Import what the first look needs, so that no traffic waits for it."""
    importlib.import_module("scipy.special")


@functools.lru_cache(maxsize=16_384)
def kolmogorov_tail(n: int, distance: float) -> float:
    """P(D_n >= distance) of the two-sided Kolmogorov-Smirnov statistic of n observations.

    References
    ----------
    G. Marsaglia, W. W. Tsang, J. Wang, *Evaluating Kolmogorov's distribution*, J. Stat. Softw. 8
    (2003). W. Pelz, I. J. Good, *Approximating the lower tail-areas of the Kolmogorov-Smirnov
    one-sample statistic*, JRSS B 38 (1976). The choice between them follows R. Simard,
    P. L'Ecuyer, *Computing the two-sided Kolmogorov-Smirnov distribution*, J. Stat. Softw. 39
    (2011).

    """
    if distance <= 0 or n < 1:
        return 1.0
    if distance >= 1:
        return SMALLEST_P
    scaled = n * distance * distance
    if scaled >= (_ONE_SIDED_EXACT if n <= _EXACT_N else _ONE_SIDED_LARGE):
        from scipy import special  # noqa: PLC0415 - as above

        tail = 2 * float(special.smirnov(n, distance))
    elif n <= _EXACT_N:
        tail = 1 - _marsaglia_tsang_wang(n, distance)
    else:
        tail = 1 - _pelz_good(n, distance)
    return min(max(tail, SMALLEST_P), 1.0)


def _marsaglia_tsang_wang(n: int, distance: float) -> float:
    k = math.floor(n * distance) + 1
    m = 2 * k - 1
    h = k - n * distance
    matrix = np.tril(np.ones((m, m)), 1)
    powers = h ** np.arange(1, m + 1)
    matrix[:, 0] -= powers
    matrix[-1, :] -= powers[::-1]
    if h > 0.5:  # noqa: PLR2004 - the corner counts the overlap of the two bounds
        matrix[-1, 0] += (2 * h - 1) ** m
    steps = np.subtract.outer(np.arange(m), np.arange(m)) + 1
    factorials = np.array([math.factorial(i) for i in range(m + 1)], dtype=np.float64)
    matrix /= factorials[np.maximum(steps, 0)]
    power: NDArray[np.float64] = np.linalg.matrix_power(matrix, n)
    log_scale = math.lgamma(n + 1) - n * math.log(n)
    return float(power[k - 1, k - 1]) * math.exp(log_scale)


def _pelz_good(n: int, distance: float) -> float:
    z = math.sqrt(n) * distance
    if z < _CERTAIN:
        return 0.0
    pi2, z2 = math.pi**2, z * z
    # Both theta series are even in k; forty terms are far more than float64 can see for z < 1.5.
    half = (np.arange(40) + 0.5) ** 2
    whole = np.arange(1, 41, dtype=np.float64) ** 2
    odd = np.exp(-pi2 / (2 * z2) * half)
    even = np.exp(-pi2 / (2 * z2) * whole)
    root = math.sqrt(2 * math.pi)
    term0 = root / z * odd.sum()
    term1 = root / (6 * z**4) * ((pi2 * half - z2) * odd).sum()
    poly2 = 6 * z**6 + 2 * z**4 + pi2 * (2 * z**4 - 5 * z2) * half
    poly2 += pi2**2 * (1 - 2 * z2) * half**2
    term2 = root / (72 * z**7) * (poly2 * odd).sum()
    term2 -= root * pi2 / (36 * z**3) * (whole * even).sum()
    poly3 = pi2**3 * (5 - 30 * z2) * half**3 + pi2**2 * (-60 * z2 + 212 * z**4) * half**2
    poly3 += pi2 * (135 * z**4 - 96 * z**6) * half - (30 * z**6 + 90 * z**8)
    term3 = root / (6480 * z**10) * (poly3 * odd).sum()
    term3 += root * pi2 / (216 * z**6) * ((3 * z2 - pi2 * whole) * whole * even).sum()
    return float(term0 + term1 / math.sqrt(n) + term2 / n + term3 / n**1.5)
