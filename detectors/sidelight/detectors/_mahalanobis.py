"""Mahalanobis distance with conformal p-values, frozen on a reference."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sidelight.detectors.errors import SampleError

_MIN_ROWS = 4
# Standardised values are cut here, so that squares stay finite whatever the stream brings.
_LARGEST = 1e6
# Rows that are scored at once, so that their arrays stay in the cache.
_BLOCK_ROWS = 1024
# Few rows are multiplied with the whole factor at once: then the calls are what a row costs.
_MOST_PRODUCTS = 1 << 16
# A spread below this share of the column's largest value is rounding, not spread.
_ROUNDING = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class Mahalanobis:
    """Squared Mahalanobis distance from the mean of a reference.

    The even rows of the reference give mean and covariance, with the shrinkage of Ledoit and
    Wolf on standardised columns; the odd rows are held out, and their distances calibrate:
    ``p = (1 + #{held out >= score}) / (n + 1)``, exact for rows like the reference. Missing values
    are replaced by the mean; columns that were constant in the reference are left out.
    Frozen: what a score is depends on no other row of the stream.

    References
    ----------
    O. Ledoit, M. Wolf, *A well-conditioned estimator for large-dimensional covariance matrices*,
    J. Multivariate Analysis 88 (2004). S. Bates et al., *Testing for outliers with
    conformal p-values*, Annals of Statistics 51 (2023).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> detector = Mahalanobis().fit(rng.normal(size=(1000, 3)))
    >>> scores, p = detector.score([[0.0, 0.0, 0.0], [9.0, 0.0, 0.0]])
    >>> bool(p[0] > 0.5), bool(p[1] < 0.01)
    (True, True)

    """

    def fit(self, reference: ArrayLike) -> "FittedMahalanobis":
        """Learn from rows of shape (n, d), NaN where missing.

        Raises ``SampleError`` for another shape, fewer than four rows or infinite values.
        """
        # One layout: sums add up in the order of memory, and equal rows must give equal references.
        sample = np.ascontiguousarray(_as_matrix(reference, None))
        if len(sample) < _MIN_ROWS:
            raise SampleError("reference", expected=f"at least {_MIN_ROWS} rows", got=len(sample))
        train, held_out = sample[0::2], sample[1::2]
        mean, scale = _location(train)
        z = np.ascontiguousarray(_Scaling(mean, scale).apply(train.T).T)
        factor = np.linalg.inv(np.linalg.cholesky(_shrunk_covariance(z, scale > 0)))
        factor[:, scale == 0] = 0.0
        fitted = FittedMahalanobis(mean=mean, scale=scale, factor=factor, held_out=np.empty(0))
        scores, _ = fitted.score(held_out)
        return FittedMahalanobis(mean=mean, scale=scale, factor=factor, held_out=np.sort(scores))


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedMahalanobis:
    """Mean, whitening and calibration scores of a reference; see :class:`Mahalanobis`.

    Attributes
    ----------
    mean, scale : ndarray of float, shape (d,)
        Of the columns; the scale of constant columns is 0.
    factor : ndarray of float, shape (d, d)
        Lower triangular; the score is the squared length of ``factor @ z``.
    held_out : ndarray of float, shape (n_calibration,)
        Scores of held-out reference rows, ascending.

    """

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    factor: NDArray[np.float64]
    held_out: NDArray[np.float64]
    _scaling: "_Scaling" = field(init=False, repr=False, compare=False)
    _used: list[int] = field(init=False, repr=False, compare=False)
    # Column after column of the factor, shape (d, d, 1).
    _lower: NDArray[np.float64] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Prepare what every call needs."""
        lower = np.ascontiguousarray(np.tril(self.factor).T)[:, :, np.newaxis]
        object.__setattr__(self, "_lower", lower)
        object.__setattr__(self, "_used", np.flatnonzero(self.scale > 0).tolist())
        object.__setattr__(self, "_scaling", _Scaling(self.mean, self.scale))

    def score(self, rows: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Score rows of shape (n, d).

        Returns
        -------
        scores, p_values : ndarray of float, shape (n,)
            Squared distances, and their conformal p-values in (0, 1].

        Raises
        ------
        SampleError
            For another number of columns.

        """
        sample = _as_matrix(rows, self.mean.size)
        scores = np.empty(len(sample))
        for first in range(0, len(sample), _BLOCK_ROWS):
            block = slice(first, first + _BLOCK_ROWS)
            scores[block] = self._distances(sample[block])
        at_least = self.held_out.size - np.searchsorted(self.held_out, scores, side="left")
        p_values = (1.0 + at_least) / (self.held_out.size + 1.0)
        return scores, np.asarray(p_values, dtype=np.float64)

    def _distances(self, sample: NDArray[np.float64]) -> NDArray[np.float64]:
        z = self._scaling.apply(sample.T)
        # One column after the other, element by element: a matrix product would round differently
        # for another number of rows, and scores must not depend on how rows are batched.
        if z.size * len(z) <= _MOST_PRODUCTS:
            # A sum over the first axis adds one after the other, too; the second axis keeps it
            # from being the last one when there is one row.
            white = np.add.reduce(self._lower * z[:, np.newaxis], axis=0)
        else:
            white, product = np.zeros_like(z), np.empty_like(z)
            for column in self._used:
                below, part = white[column:], product[column:]
                np.multiply(self._lower[column, column:], z[column], part)
                np.add(below, part, below)
        np.multiply(white, white, out=white)
        scores = np.zeros(len(sample))
        for squares in white:
            scores += squares
        return scores


def _as_matrix(rows: ArrayLike, n_columns: int | None) -> NDArray[np.float64]:
    sample = np.asarray(rows, dtype=np.float64)
    if sample.ndim != 2 or sample.shape[1] == 0 or n_columns not in (None, sample.shape[1]):  # noqa: PLR2004
        raise SampleError("rows", expected=f"shape (n, {n_columns or 'd'})", got=sample.shape)
    if np.isinf(sample).any():
        raise SampleError("rows", expected="finite values or NaN", got="infinite ones")
    return sample


def _location(train: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    present = ~np.isnan(train)
    count = np.maximum(present.sum(axis=0), 1)
    filled = np.where(present, train, 0.0)
    largest = np.abs(filled).max(axis=0)
    # In units of the largest value nothing overflows.
    unit = np.where(largest > 0, largest, 1.0)
    scaled = filled / unit
    mean = scaled.sum(axis=0) / count
    square = np.where(present, scaled - mean, 0.0) ** 2
    deviation = np.sqrt(square.sum(axis=0) / count)
    deviation[deviation < _ROUNDING] = 0.0
    return mean * unit, deviation * unit


class _Scaling:
    """Standardises columns; 0 where a value is missing or its column constant."""

    def __init__(self, mean: NDArray[np.float64], scale: NDArray[np.float64]) -> None:
        self._unit = np.where(scale > 0, scale, 1.0)[:, np.newaxis]
        self._shift = mean[:, np.newaxis] / self._unit
        self._constant = np.flatnonzero(scale == 0)

    def apply(self, columns: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return columns of shape (d, n) anew."""
        z = np.empty(columns.shape)
        # Dividing first: the difference of two huge values would overflow.
        with np.errstate(over="ignore"):
            np.divide(columns, self._unit, out=z)
            z -= self._shift
        np.minimum(np.maximum(z, -_LARGEST, out=z), _LARGEST, out=z)
        np.copyto(z, 0.0, where=np.isnan(z))
        if self._constant.size:
            z[self._constant] = 0.0
        return z


def _shrunk_covariance(z: NDArray[np.float64], used: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Ledoit-Wolf estimate of standardised columns; identity where a column is not used."""
    covariance = np.eye(used.size)
    inner = z[:, used]
    n, d = inner.shape
    if d == 0:
        return covariance
    sample = inner.T @ inner / n
    target = float(np.trace(sample)) / d
    distance = float(((sample - target * np.eye(d)) ** 2).sum())
    square = inner * inner
    noise = (float((square.T @ square).sum()) / n - float((sample**2).sum())) / n
    shrinkage = min(max(noise, 0.0), distance) / distance if distance > 0 else 1.0
    covariance[np.ix_(used, used)] = (1 - shrinkage) * sample + shrinkage * target * np.eye(d)
    # Columns that repeat each other in a small reference leave nothing to invert.
    return covariance + 1e-9 * np.eye(used.size)
