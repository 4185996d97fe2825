"""The one numeric output of a model's answer that is explained."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sidelight.adapters._decoding_columns import column_names
from sidelight.adapters.dialects import Dialect, Half, Tensor, Undecodable
from sidelight.explainers import BadAnswer, OutputUnknown

# Fractions say more than the labels made from them, so they are looked for first.
_PREFERENCE = {
    **dict.fromkeys(["FP16", "FP32", "FP64", "BF16", "NUMBER"], 0),
    **dict.fromkeys(["INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"], 1),
    "BOOL": 2,
}
# A missing prediction is refused with those that are not finite.
_NUMBERS = {"int", "float", "bool", "NoneType"}


class _Column(NamedTuple):
    name: str
    tensor: Tensor
    values: list[Any]
    place: int

    @property
    def is_numeric(self) -> bool:
        return self.tensor.datatype in _PREFERENCE and not self.tensor.is_list


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputChoice:
    """Which output of an answer is explained.

    Parameters
    ----------
    output : str, int or None
        Name or number (from 0, among all columns) of an output column, as stored with the
        deployment's inferences. None: the first with fractions, else the first integer, else the
        first flag.
    registered : tuple of str
        Output names of a registered schema; they name columns that the answer does not.

    """

    output: str | int | None = None
    registered: tuple[str, ...] = ()

    def read(
        self, dialect: Dialect, body: dict[str, Any], n_rows: int
    ) -> tuple[str, NDArray[np.float64], str | None]:
        """Return name and values, shape (n_rows, 1), of the output, and the version that answered.

        Raises
        ------
        BadAnswer
            If the body is no answer in this dialect, or not one for each row.
        OutputUnknown
            If there is no such numeric output; names those there are.

        """
        half = _decoded(dialect, body)
        if half.rows != n_rows or half.layout.whole or half.facts.get("empty"):
            got = f"{half.rows}" if not half.facts.get("empty") else "0"
            raise BadAnswer("rows of the model's answer", expected=f"{n_rows}", got=got)
        column = self._chosen(_columns(half, self.registered))
        raw = column.values[column.place :: column.tensor.n_columns]
        what = f"values of output {column.name!r}"
        # NumPy reads "1.5" as a number, which a tensor of numbers must not hold.
        others = {type(value).__name__ for value in raw} - _NUMBERS
        if others:
            raise BadAnswer(what, expected="numbers", got=", ".join(sorted(others)))
        try:
            values = np.array(raw, dtype=np.float64)
        except OverflowError as error:
            raise BadAnswer(what, expected="numbers", got="larger ones than any double") from error
        version = half.facts.get("version")
        return column.name, values[:, None], version if isinstance(version, str) else None

    def _chosen(self, columns: list[_Column]) -> _Column:
        numeric = [column for column in columns if column.is_numeric]
        wanted = numeric
        if isinstance(self.output, int):
            wanted = [column for column in columns[self.output :][:1] if column.is_numeric]
        elif self.output is not None:
            wanted = [column for column in numeric if column.name == self.output]
        if not wanted:
            raise OutputUnknown(
                None if self.output is None else str(self.output),
                numeric=[column.name for column in numeric],
                other=[column.name for column in columns if not column.is_numeric],
            )
        return min(wanted, key=lambda column: _PREFERENCE[column.tensor.datatype])


def _decoded(dialect: Dialect, body: dict[str, Any]) -> Half:
    try:
        if dialect.claims(body, "response"):
            return dialect.decode(body, "response")
    except Undecodable as error:
        got = f"outputs that contradict themselves ({error.reason})"
        raise BadAnswer("the model's answer", expected="outputs of rows", got=got) from error
    keys = sorted(map(str, body))[:5]
    raise BadAnswer("the model's answer", expected="outputs", got=f"an object with keys {keys}")


def _columns(half: Half, registered: tuple[str, ...]) -> list[_Column]:
    names = iter(column_names(half.layout, "y", registered))
    return [
        _Column(next(names), tensor, values, place)
        for tensor, values in zip(half.layout.tensors, half.values, strict=True)
        for place in range(tensor.n_columns)
    ]
