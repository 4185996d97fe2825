"""Cells of the rows of a stream, all numeric columns at once."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sidelight.detectors._categorical_reference import CategoricalReference
from sidelight.detectors._locating import Locating
from sidelight.detectors._numeric_reference import MISSING, NumericReference
from sidelight.detectors._reference import Reference
from sidelight.detectors._values import is_monitorable, values_of


class Encoding:
    """What telling the cells of rows apart needs of a reference, made once.

    The same as ``cells`` of each column of the reference: a search for each column, and the rest
    of the arithmetic for all of them together.

    Parameters
    ----------
    reference : Reference
        Its columns give the order.

    """

    def __init__(self, reference: Reference) -> None:
        self._n_columns = len(reference.columns)
        self._numeric: dict[str, NumericReference] = {}
        self._categorical: dict[str, tuple[int, CategoricalReference]] = {}
        places = []
        for index, (name, column) in enumerate(reference.columns.items()):
            if isinstance(column, NumericReference):
                self._numeric[name] = column
                places.append(index)
            else:
                self._categorical[name] = index, column
        self._places = np.array(places, dtype=np.intp)
        self._locating = Locating([column.points for column in self._numeric.values()])
        rows = {name: row for row, name in enumerate(self._numeric)}
        seen = reference.outlier_columns
        self._n_seen = len(seen)
        numeric = [(row, rows[name]) for row, name in enumerate(seen) if name in rows]
        self._seen_rows = np.array(numeric, dtype=np.intp).reshape(-1, 2).T
        self._seen_words = {row: name for row, name in enumerate(seen) if name not in rows}

    def encode(
        self, columns: Mapping[str, NDArray[Any]], part: slice
    ) -> tuple[NDArray[np.uint16], NDArray[np.float64]]:
        """Encode some of the rows of columns.

        Returns
        -------
        cells : ndarray of int, shape (n_rows, n_columns)
            In the order of the reference; a column that is absent is missing.
        matrix : ndarray of float, shape (n_rows, n_outlier_columns)
            What the outlier detector sees; NaN where a column is absent.

        """
        n_rows = part.stop - part.start
        numbers = self._numbers(columns, part)
        cells = np.zeros((n_rows, self._n_columns), dtype=np.uint16)
        cells[:, self._places] = self._numeric_cells(numbers).T
        present = set()
        for name, (index, column) in self._categorical.items():
            if name in columns and is_monitorable(columns[name]):
                cells[:, index] = column.cells(values_of(columns[name][part]))
                present.add(name)
        return cells, self._matrix(numbers, cells, present)

    def _matrix(
        self, numbers: NDArray[np.float64], cells: NDArray[np.uint16], present: set[str]
    ) -> NDArray[np.float64]:
        # Written and scored column after column.
        to, of = self._seen_rows
        matrix = np.empty((self._n_seen, len(cells)))
        matrix[to] = numbers[of]
        for row, name in self._seen_words.items():
            index, column = self._categorical[name]
            matrix[row] = column.surprises[cells[:, index]] if name in present else np.nan
        return matrix.T

    def _numbers(self, columns: Mapping[str, NDArray[Any]], part: slice) -> NDArray[np.float64]:
        numbers = np.full((len(self._numeric), part.stop - part.start), np.nan)
        # Numbers beyond float64 (of long doubles) become infinite, which is missing, not an error.
        with np.errstate(over="ignore"):
            for row, name in enumerate(self._numeric):
                array = columns.get(name)
                if array is None or not is_monitorable(array):
                    continue
                is_number = array.dtype.kind in "fiu"
                numbers[row] = array[part] if is_number else values_of(array[part]).numbers
        infinite = np.isinf(numbers)
        if infinite.any():
            numbers[infinite] = np.nan
        return numbers

    def _numeric_cells(self, numbers: NDArray[np.float64]) -> NDArray[np.int64]:
        # As in `NumericReference`: two cells for each point below, one more for an equal one.
        cells, equal = self._locating.below(numbers)
        cells *= 2
        cells += equal
        cells += 1
        missing = np.isnan(numbers)
        if missing.any():
            cells[missing] = MISSING
        return cells
