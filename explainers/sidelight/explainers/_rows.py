"""Rows of mixed features, and the background that instances are compared with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sidelight.explainers.errors import ParameterError, RowError

# int, float, str, bool, bytes, None, or a tuple of these where one feature is a vector.
Columns = tuple[list[Any], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Background:
    """The rows that stand for "feature not known": one fixed sample of a reference.

    Parameters
    ----------
    names : sequence of str, length n_features
        Features in the order of the payload.
    rows : sequence of tuples, length n_rows
        Values are int, float, str, bool, bytes, None (missing), or lists of these.
    weights : sequence of float or None, length n_rows
        Not negative, not all zero; scaled to sum to 1. Equal by default.

    Raises
    ------
    RowError
        If there is no row or no feature, or a row has another number of values.
    ParameterError
        If the weights cannot be weights.

    Examples
    --------
    >>> background = Background(names=("age", "sex"), rows=[(31, "f"), (50, "m")])
    >>> background.instance({"sex": "m", "age": 44})
    (44, 'm')

    """

    names: Sequence[str]
    rows: Sequence[tuple[Any, ...]]
    weights: Sequence[float] | None = None

    def __post_init__(self) -> None:
        """Check the shape once, and hold immutable copies."""
        object.__setattr__(self, "names", tuple(self.names))
        object.__setattr__(self, "rows", tuple(tuple(map(_plain, row)) for row in self.rows))
        if not self.names or not self.rows:
            got = f"{len(self.rows)} rows of {len(self.names)} features"
            raise RowError("background", expected="at least one row and one feature", got=got)
        for row in self.rows:
            if len(row) != len(self.names):
                raise RowError(
                    "background row", expected=f"{len(self.names)} values", got=str(len(row))
                )
        object.__setattr__(self, "weights", _shares(self.weights, len(self.rows)))

    @classmethod
    def sample(
        cls, columns: Mapping[str, Sequence[Any]], *, n_rows: int = 100, seed: int = 0
    ) -> "Background":
        """Draw rows without replacement; the same columns and seed give the same background.

        Parameters
        ----------
        columns : mapping of str to sequence, all of one length
            Values of each feature in payload order.
        n_rows : int, default 100
            All rows are taken where there are no more.
        seed : int, default 0
            Of the draw.

        """
        total = min((len(values) for values in columns.values()), default=0)
        chosen = np.arange(total)
        if total > n_rows:
            chosen = np.sort(np.random.default_rng(seed).choice(total, n_rows, replace=False))
        picked = [[values[index] for index in chosen.tolist()] for values in columns.values()]
        return cls(names=tuple(columns), rows=list(zip(*picked, strict=True)))

    def instance(self, value: Mapping[str, Any] | Sequence[Any]) -> tuple[Any, ...]:
        """Return an instance as a row: an object by feature name, or a list in payload order.

        Raises
        ------
        RowError
            If a feature is missing, unknown, or the list has another length.

        """
        if isinstance(value, Mapping):
            missing = [name for name in self.names if name not in value]
            unknown = [str(name) for name in value if name not in self.names]
            if missing or unknown:
                got = f"missing {missing[:5]}, unknown {unknown[:5]}"
                raise RowError("instance", expected=f"the {len(self.names)} features", got=got)
            return tuple(_plain(value[name]) for name in self.names)
        if isinstance(value, str | bytes) or len(value) != len(self.names):
            got = f"{len(value)} values"
            raise RowError("instance", expected=f"{len(self.names)} values", got=got)
        return tuple(map(_plain, value))


def _shares(weights: Sequence[float] | None, n_rows: int) -> tuple[float, ...]:
    if weights is None:
        return (1.0 / n_rows,) * n_rows
    given = np.asarray(weights, dtype=np.float64)
    if given.shape != (n_rows,) or not np.isfinite(given).all() or (given < 0).any():
        raise ParameterError("weights", f"{given.shape}", f"{n_rows} numbers, zero or more")
    if given.sum() == 0:
        raise ParameterError("weights", 0.0, "above zero in sum")
    return tuple((given / given.sum()).tolist())


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, np.ndarray):
        value = value.tolist()
    return tuple(map(_plain, value)) if isinstance(value, list | tuple) else value
