"""Raw rows of a deployment until there are enough for a reference."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sidelight.detectors._values import Values, bounded, is_monitorable, values_of

# More columns than this are not kept while collecting: a bound of memory, not of statistics.
_MAX_COLUMNS = 2000


@dataclass(slots=True)
class Collection:
    """The first rows of a deployment, by column, in order.

    Parameters
    ----------
    capacity : int
        Rows that are collected.

    """

    capacity: int
    rows: int = 0
    columns: dict[str, Values] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    def add(self, columns: Mapping[str, NDArray[Any]], n_rows: int) -> None:
        """Take ``n_rows`` more rows; no more than there is room for."""
        for name, array in columns.items():
            if not is_monitorable(array):
                self.skipped.setdefault(name, "not one value a row")
            elif name in self.columns or len(self.columns) < _MAX_COLUMNS:
                self._add_column(name, values_of(array))
            else:
                self.skipped.setdefault(name, f"more than {_MAX_COLUMNS} columns")
        self.rows += n_rows

    def _add_column(self, name: str, values: Values) -> None:
        if name not in self.columns:
            self.columns[name] = Values(np.full(self.capacity, np.nan), {})
        column = self.columns[name]
        column.numbers[self.rows : self.rows + values.numbers.size] = values.numbers
        for row, word in values.words.items():
            column.words[self.rows + row] = word

    def to_parts(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Return what a snapshot keeps: the order of the columns, and their values."""
        head = {
            "capacity": self.capacity,
            "rows": self.rows,
            "columns": list(self.columns),
            "words": [sorted(column.words.items()) for column in self.columns.values()],
            "skipped": self.skipped,
        }
        numbers = [column.numbers[: self.rows] for column in self.columns.values()]
        return head, {"numbers": np.array(numbers, dtype=np.float64)}

    @classmethod
    def from_parts(
        cls, head: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]
    ) -> "Collection":
        """Read what ``to_parts`` returned."""
        collection = cls(head["capacity"], head["rows"], skipped=dict(head["skipped"]))
        for index, name in enumerate(head["columns"]):
            numbers = np.full(collection.capacity, np.nan)
            numbers[: collection.rows] = arrays["numbers"][index]
            words = {int(row): bounded(str(word)) for row, word in head["words"][index]}
            collection.columns[name] = Values(numbers, words)
        return collection
