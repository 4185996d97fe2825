"""What data scientists hand to a model, as tensors of the Open Inference Protocol in JSON.

Reference: kserve/open-inference-protocol, specification/protocol/inference_rest.md. Frames of
pandas and polars, tensors of torch and pydantic models are known by what they can do; none of
those libraries is imported.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, Final

import numpy as np
import orjson

from sidelight.logger._tensor_values import (
    LEAVES,
    SCALARS,
    Tensor,
    Unexpressible,
    leaf,
    plain,
    tensor_of_array,
    tensor_of_values,
)

OPTIONS: Final = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS
"""For ``orjson.dumps`` of bodies; what is not finite becomes null."""

Tensors = list[Tensor]

_LISTS: Final = frozenset({list, tuple})
_MAX_RANK: Final = 32
# A frame or a record with more columns is no table of features.
_MAX_COLUMNS: Final = 4096
# The shortest JSON of a value, with its comma.
_MIN_VALUE_BYTES: Final = 2


class TensorWriter:
    """Write values as tensors.

    Parameters
    ----------
    column_names : sequence of str
        Names of the columns of a matrix with as many columns.
    max_bytes : int
        What would certainly be longer is not written.

    Examples
    --------
    >>> TensorWriter().tensors("x", [[1, 2.5], [3, 4.5]])
    [{'name': 'x', 'shape': [2, 2], 'datatype': 'FP64', 'data': [1, 2.5, 3, 4.5]}]

    """

    def __init__(self, *, column_names: Sequence[str] = (), max_bytes: int = 1 << 40) -> None:
        self._column_names = tuple(column_names)
        self._max_values = max_bytes // _MIN_VALUE_BYTES

    def tensors(self, name: str, value: Any) -> Tensors:
        """Return the tensors of one argument or result.

        Parameters
        ----------
        name : str
            Of the tensor; columns that have names keep theirs.
        value : object
            Array, frame, series, list of rows, of records or of values, dict of columns or of
            values, or one value. It is read, and not kept where it could change later.

        Raises
        ------
        Unexpressible
            When it is nothing of these.

        """
        value = plain(value)
        if isinstance(value, np.ndarray):
            return self._array(name, value)
        if isinstance(value, Mapping):
            return self._mapping(value)
        if isinstance(value, (list, tuple)):
            return self._sequence(name, value)
        if isinstance(value, SCALARS) or value is None:
            return [tensor_of_values(name, [1], [value])]
        return self._frame(value)

    def _array(self, name: str, array: np.ndarray[Any, Any]) -> Tensors:
        if array.size > self._max_values:
            raise Unexpressible("too_large")
        if array.ndim == 0:
            array = array.reshape(1)
        names = self._names(array.shape)
        if names:
            columns = np.ascontiguousarray(array.reshape(-1, len(names)).T)
            return [
                tensor_of_array(name, column) for name, column in zip(names, columns, strict=True)
            ]
        return [tensor_of_array(name, array)]

    def _names(self, shape: Sequence[int]) -> Sequence[str]:
        """Return the names of columns, if it has as many: a matrix, or one row of it."""
        names = self._column_names
        return names if names and len(shape) in {1, 2} and shape[-1] == len(names) else ()

    def _mapping(self, value: Mapping[Any, Any]) -> Tensors:
        if len(value) > _MAX_COLUMNS:
            raise Unexpressible("too_large")
        columns = {_text(key): plain(column) for key, column in value.items()}
        if not columns:
            raise Unexpressible("unsupported")
        if all(isinstance(one, SCALARS) or one is None for one in columns.values()):
            return [tensor_of_values(name, [1], [one]) for name, one in columns.items()]
        if any(isinstance(one, Mapping) for one in columns.values()):
            raise Unexpressible("unsupported")
        return list(
            chain.from_iterable(TensorWriter.tensors(self, *one) for one in columns.items())
        )

    def _sequence(self, name: str, value: Sequence[Any]) -> Tensors:
        if len(value) > self._max_values:
            raise Unexpressible("too_large")
        kinds = set(map(type, value))
        if not kinds.isdisjoint(LEAVES) and not kinds - LEAVES:
            names = self._names((len(value),))
            if names:
                return [
                    tensor_of_values(one, [1], [item])
                    for one, item in zip(names, value, strict=True)
                ]
            return [tensor_of_values(name, [len(value)], list(value))]
        items = list(value) if kinds and kinds <= _LISTS else [plain(item) for item in value]
        if items and all(isinstance(item, Mapping) for item in items):
            return self._records(items)
        if items and all(isinstance(item, np.ndarray) for item in items):
            return self._array(name, _stacked(items))
        rows, shape = _flattened(items, self._max_values)
        if len(shape) != 2:  # noqa: PLR2004 - a matrix
            return [tensor_of_values(name, shape, rows)]
        return self._matrix(name, rows, shape)

    def _matrix(self, name: str, rows: list[Any], shape: list[int]) -> Tensors:
        n_rows, n_columns = shape
        names = self._names(shape)
        if not names:
            try:
                return [tensor_of_values(name, shape, rows)]
            except Unexpressible:
                # Columns of different kinds; together they have no datatype.
                names = [f"{name}_{place}" for place in range(n_columns)]
        columns = (rows[place::n_columns] for place in range(n_columns))
        return [
            tensor_of_values(one, [n_rows], data) for one, data in zip(names, columns, strict=True)
        ]

    def _records(self, records: list[Mapping[Any, Any]]) -> Tensors:
        keys = dict.fromkeys(chain.from_iterable(records))
        if not keys:
            raise Unexpressible("unsupported")
        if len(keys) > _MAX_COLUMNS or len(keys) * len(records) > self._max_values:
            raise Unexpressible("too_large")
        return [
            tensor_of_values(
                _text(key), [len(records)], [leaf(record.get(key)) for record in records]
            )
            for key in keys
        ]

    def _frame(self, value: Any) -> Tensors:
        if hasattr(value, "columns") and hasattr(value, "dtypes"):
            labels = list(value.columns)
            if not 0 < len(labels) <= _MAX_COLUMNS:
                raise Unexpressible("too_large" if labels else "unsupported")
            # By place where it is possible: names of pandas may come twice.
            column: Callable[[int], Any] = (
                (lambda place: value.iloc[:, place])
                if hasattr(value, "iloc")
                else (lambda place: value[labels[place]])
            )
            return [
                one
                for place, label in enumerate(labels)
                for one in self._array(_text(label), _column(column(place)))
            ]
        if hasattr(value, "to_numpy"):
            return self._array(_text(getattr(value, "name", None) or "x"), _column(value))
        raise Unexpressible("unsupported")


def _column(series: Any) -> np.ndarray[Any, Any]:
    if hasattr(series, "isna") and not isinstance(series.dtype, np.dtype):
        # Of pandas' own types; whole numbers among which some are missing would become floats.
        series = series.astype(object)
    array: np.ndarray[Any, Any] = series.to_numpy()
    if array.ndim != 1:
        raise Unexpressible("unsupported")
    if array.dtype.kind == "O":
        # What is missing in a nullable column compares with nothing.
        missing = np.asarray(series.isna() if hasattr(series, "isna") else series.is_null())
        if missing.any():
            array = array.copy()
            array[missing] = None
    return array


def _stacked(items: list[np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    if len({(item.shape, item.dtype) for item in items}) > 1:
        raise Unexpressible("unsupported")
    return np.stack(items)


def _flattened(items: list[Any], max_values: int) -> tuple[list[Any], list[int]]:
    """Return nested lists as one, with their shape."""
    shape = [len(items)]
    for _ in range(_MAX_RANK):
        kinds = set(map(type, items))
        if kinds <= LEAVES:
            return items, shape
        if not kinds <= _LISTS:
            items = [_listed(item) for item in items]
            kinds = set(map(type, items))
            if kinds.isdisjoint(_LISTS):
                return [leaf(item) for item in items], shape
        lengths = set(map(len, items)) if kinds <= _LISTS else set()
        if len(lengths) != 1:
            raise Unexpressible("unsupported")
        shape.append(lengths.pop())
        if len(items) * shape[-1] > max_values:
            raise Unexpressible("too_large")
        items = list(chain.from_iterable(items))
    raise Unexpressible("unsupported")


def _listed(value: Any) -> Any:
    value = plain(value)
    return value.tolist() if isinstance(value, np.ndarray) else value


def _text(key: Any) -> str:
    if isinstance(key, tuple):  # pandas: several levels of columns
        return "_".join(map(str, key))
    return str(key)


def rows_of(tensors: Iterable[Mapping[str, Any]]) -> int:
    """Return how many rows tensors have that share their first dimension; 1 otherwise."""
    leading = {tensor["shape"][0] for tensor in tensors if tensor["shape"]}
    return leading.pop() if len(leading) == 1 else 1
