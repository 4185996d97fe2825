"""Where values lie among the points of many columns at once."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

# Equal parts of the span of a column's points; 4 kB a column.
_N_PARTS = 2048
# Halvings within a part. Columns whose points crowd more than that are searched one by one.
_MOST_HALVINGS = 4


class Locating:
    """How many points of a column are below a value, for all columns together.

    A table says how many points lie in the parts of the span before the value's own; halving finds
    how many of its own part are below it. Parts are told by the same arithmetic for points
    and for values, which keeps their order, so the answer is exactly that of a binary search. A
    search of a thousand points for a value of a stream costs three times as much: its branches
    cannot be foreseen.

    Parameters
    ----------
    columns : sequence of ndarray of float, each of shape (n_points,)
        Distinct and ascending, at least one of each column, finite.

    """

    def __init__(self, columns: Sequence[NDArray[np.float64]]) -> None:
        self._columns = list(columns)
        parts = [_parts(points) for points in columns]
        crowded = [found is None or _halvings(found) > _MOST_HALVINGS for found in parts]
        self._searched = np.flatnonzero(crowded)
        self._told = np.flatnonzero(np.logical_not(crowded))
        told = [found for found, is_crowded in zip(parts, crowded, strict=True) if not is_crowded]
        placed = [found for found in told if found is not None]
        self._halvings = max((_halvings(found) for found in placed), default=0)
        spans = [_span(self._columns[index]) for index in self._told.tolist()]
        self._low = np.array([low for low, _ in spans]).reshape(-1, 1)
        self._scale = np.array([scale for _, scale in spans]).reshape(-1, 1)
        bounds = np.arange(_N_PARTS + 1)
        tables = [np.searchsorted(found, bounds).astype(np.uint16) for found in placed]
        self._before = np.concatenate([np.zeros(0, dtype=np.uint16), *tables])
        self._table_starts = (np.arange(len(placed)) * bounds.size).reshape(-1, 1)
        # Behind the last point there is room for every step of a halving to look.
        room = np.full(2**self._halvings, np.inf)
        self._points = np.concatenate([np.zeros(0), *(p for each in columns for p in (each, room))])
        sizes = np.array([each.size + room.size for each in columns], dtype=np.int64)
        self._starts = (np.cumsum(sizes) - sizes).reshape(-1, 1)

    def below(self, numbers: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Locate values of shape (n_columns, n_rows), finite or NaN.

        Returns
        -------
        below : ndarray of int, shape (n_columns, n_rows)
            Points below each value; any number for NaN.
        equal : ndarray of bool, shape (n_columns, n_rows)
            Whether a point equals it.

        """
        if self._searched.size == 0:
            places = self._halved(numbers)
        else:
            places = np.empty(numbers.shape, dtype=np.int64)
            places[self._told] = self._halved(numbers[self._told])
            for index in self._searched.tolist():
                found = self._columns[index].searchsorted(numbers[index])
                places[index] = found + self._starts[index]
        equal = self._points.take(places) == numbers
        places -= self._starts
        return places, equal

    def _halved(self, numbers: NDArray[np.float64]) -> NDArray[np.int64]:
        with np.errstate(over="ignore"):
            parts = _part(numbers, self._low, self._scale).astype(np.int64)
        parts += self._table_starts
        places = self._before.take(parts).astype(np.int64)
        places += self._starts[self._told]
        for halving in reversed(range(self._halvings)):
            width = 1 << halving
            is_below = self._points[width - 1 :].take(places) < numbers
            places += is_below if width == 1 else np.multiply(is_below, width, dtype=np.int64)
        return places


def _part(
    numbers: NDArray[np.float64],
    low: NDArray[np.float64] | float,
    scale: NDArray[np.float64] | float,
) -> NDArray[np.float64]:
    part = numbers - low
    part *= scale
    # Of NaN the first part: an integer must come out.
    np.fmax(part, 0.0, out=part)
    np.fmin(part, float(_N_PARTS), out=part)
    return part


def _span(points: NDArray[np.float64]) -> tuple[float, float]:
    """Return the lowest point, and parts per unit; 0 where there is no telling."""
    low = float(points[0])
    width = float(points[-1]) - low
    scale = _N_PARTS / width if width > 0 else 0.0
    return low, scale if 0 < scale < np.inf else 0.0


def _parts(points: NDArray[np.float64]) -> NDArray[np.int64] | None:
    low, scale = _span(points)
    return _part(points, low, scale).astype(np.int64) if scale else None


def _halvings(parts: NDArray[np.int64]) -> int:
    return int(np.bincount(parts).max()).bit_length()
