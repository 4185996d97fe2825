"""What data scientists hand to a model, as tensors of the Open Inference Protocol in JSON.

Reference: kserve/open-inference-protocol, specification/protocol/inference_rest.md. Frames of
pandas and polars, tensors of torch and pydantic models are known by what they can do; none of
those libraries is imported.
"""

import base64
import dataclasses
import datetime as dt
import enum
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, Final

import numpy as np
import orjson

OPTIONS: Final = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS
"""For ``orjson.dumps`` of bodies; what is not finite becomes null."""

Tensors = list[dict[str, Any]]

_WORDS: Final = {"i": "INT", "u": "UINT", "f": "FP"}
_FLOAT_BYTES: Final = (2, 4, 8)
_SCALARS: Final = (bool, int, float, str, bytes, np.generic, dt.date, dt.time)
_MAX_RANK: Final = 32
# A frame or a record with more columns is no table of features.
_MAX_COLUMNS: Final = 4096
# The shortest JSON of a value, with its comma.
_MIN_VALUE_BYTES: Final = 2


class Unexpressible(ValueError):  # noqa: N818 - never leaves this package
    """A value is no tensor; ``reason`` is one word for the counter."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


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
        value = _plain(value)
        if isinstance(value, np.ndarray):
            return self._array(name, value)
        if isinstance(value, Mapping):
            return self._mapping(value)
        if isinstance(value, (list, tuple)):
            return self._sequence(name, value)
        if isinstance(value, _SCALARS) or value is None:
            return [_tensor(name, [1], [value])]
        return self._frame(value)

    def _array(self, name: str, array: np.ndarray[Any, Any]) -> Tensors:
        if array.size > self._max_values:
            raise Unexpressible("too_large")
        if array.ndim == 0:
            array = array.reshape(1)
        names = self._names(array.shape)
        if names:
            columns = np.ascontiguousarray(array.reshape(-1, len(names)).T)
            return [_of_array(name, column) for name, column in zip(names, columns, strict=True)]
        return [_of_array(name, array)]

    def _names(self, shape: Sequence[int]) -> Sequence[str]:
        """Return the names of columns, if it has as many: a matrix, or one row of it."""
        names = self._column_names
        return names if names and len(shape) in {1, 2} and shape[-1] == len(names) else ()

    def _mapping(self, value: Mapping[Any, Any]) -> Tensors:
        if len(value) > _MAX_COLUMNS:
            raise Unexpressible("too_large")
        columns = {_text(key): _plain(column) for key, column in value.items()}
        if not columns:
            raise Unexpressible("unsupported")
        if all(isinstance(one, _SCALARS) or one is None for one in columns.values()):
            return [_tensor(name, [1], [one]) for name, one in columns.items()]
        if any(isinstance(one, Mapping) for one in columns.values()):
            raise Unexpressible("unsupported")
        return list(
            chain.from_iterable(TensorWriter.tensors(self, *one) for one in columns.items())
        )

    def _sequence(self, name: str, value: Sequence[Any]) -> Tensors:
        if len(value) > self._max_values:
            raise Unexpressible("too_large")
        kinds = set(map(type, value))
        if not kinds.isdisjoint(_LEAVES) and not kinds - _LEAVES:
            names = self._names((len(value),))
            if names:
                return [_tensor(one, [1], [item]) for one, item in zip(names, value, strict=True)]
            return [_tensor(name, [len(value)], list(value))]
        items = list(value) if kinds and kinds <= _LISTS else [_plain(item) for item in value]
        if items and all(isinstance(item, Mapping) for item in items):
            return self._records(items)
        if items and all(isinstance(item, np.ndarray) for item in items):
            return self._array(name, _stacked(items))
        rows, shape = _flattened(items, self._max_values)
        if len(shape) != 2:  # noqa: PLR2004 - a matrix
            return [_tensor(name, shape, rows)]
        return self._matrix(name, rows, shape)

    def _matrix(self, name: str, rows: list[Any], shape: list[int]) -> Tensors:
        n_rows, n_columns = shape
        names = self._names(shape)
        if not names:
            try:
                return [_tensor(name, shape, rows)]
            except Unexpressible:
                # Columns of different kinds; together they have no datatype.
                names = [f"{name}_{place}" for place in range(n_columns)]
        columns = (rows[place::n_columns] for place in range(n_columns))
        return [_tensor(one, [n_rows], data) for one, data in zip(names, columns, strict=True)]

    def _records(self, records: list[Mapping[Any, Any]]) -> Tensors:
        keys = dict.fromkeys(chain.from_iterable(records))
        if not keys:
            raise Unexpressible("unsupported")
        if len(keys) > _MAX_COLUMNS or len(keys) * len(records) > self._max_values:
            raise Unexpressible("too_large")
        return [
            _tensor(_text(key), [len(records)], [_leaf(record.get(key)) for record in records])
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


def _plain(value: Any) -> Any:
    """Return arrays of other libraries as NumPy's, and objects with fields as their fields."""
    if isinstance(value, (*_PLAIN, type)):
        return value
    if isinstance(value, uuid.UUID):
        return str(value)
    if dataclasses.is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if hasattr(value, "model_dump"):
        return value.model_dump()
    if hasattr(value, "__array__") and not hasattr(value, "to_numpy"):
        return np.asarray(value)
    return value.value if isinstance(value, enum.Enum) else value


_PLAIN: Final = (*_SCALARS, np.ndarray, list, tuple, dict, type(None))
_LEAVES: Final = frozenset({bool, int, float, str, type(None)})
_LISTS: Final = frozenset({list, tuple})


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
        if kinds <= _LEAVES:
            return items, shape
        if not kinds <= _LISTS:
            items = [_listed(item) for item in items]
            kinds = set(map(type, items))
            if kinds.isdisjoint(_LISTS):
                return [_leaf(item) for item in items], shape
        lengths = set(map(len, items)) if kinds <= _LISTS else set()
        if len(lengths) != 1:
            raise Unexpressible("unsupported")
        shape.append(lengths.pop())
        if len(items) * shape[-1] > max_values:
            raise Unexpressible("too_large")
        items = list(chain.from_iterable(items))
    raise Unexpressible("unsupported")


def _listed(value: Any) -> Any:
    value = _plain(value)
    return value.tolist() if isinstance(value, np.ndarray) else value


def _leaf(value: Any) -> Any:
    value = _plain(value)
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    if value is not None and not isinstance(value, _SCALARS):
        raise Unexpressible("unsupported")
    return value


def _of_array(name: str, array: np.ndarray[Any, Any]) -> dict[str, Any]:
    shape, kind = list(array.shape), array.dtype.kind
    if kind not in "biuf" or isinstance(array, np.ma.MaskedArray):
        return _tensor(name, shape, _values(array))
    if kind == "f" and array.dtype.itemsize not in _FLOAT_BYTES:
        array = array.astype(np.float64)
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    datatype = "BOOL" if kind == "b" else f"{_WORDS[kind]}{8 * array.dtype.itemsize}"
    # A view of the caller's memory, which is written out before anybody can change it.
    data = np.ascontiguousarray(array).reshape(-1)
    return {"name": name, "shape": shape, "datatype": datatype, "data": data}


def _values(array: np.ndarray[Any, Any]) -> list[Any]:
    """Return the values of an array that is not of plain numbers."""
    flat = array.ravel()
    match array.dtype.kind:
        case "M":
            texts = np.datetime_as_string(flat).tolist()
            return [None if text == "NaT" else text for text in texts]
        case "O":
            return [_leaf(item) for item in flat.tolist()]
        case "b" | "i" | "u" | "f" | "U" | "S":
            values: list[Any] = flat.tolist()
            return values
        case _:
            raise Unexpressible("unsupported")


def _tensor(name: str, shape: list[int], data: list[Any]) -> dict[str, Any]:
    """Return a tensor of Python's values with the datatype that they have."""
    kinds = set(map(type, data))
    if not kinds <= _LEAVES:
        if any(isinstance(item, bytes) for item in data):
            return _encoded(name, shape, data)
        data = [_value(item) for item in data]
        kinds = set(map(type, data))
    kinds.discard(type(None))
    datatype = _DATATYPES.get(frozenset(kinds))
    if datatype is None:
        raise Unexpressible("unsupported")
    if datatype == "INT64":
        datatype = _integer_datatype([item for item in data if item is not None])
    return {"name": name, "shape": shape, "datatype": datatype, "data": data}


_DATATYPES: Final = {
    frozenset({bool}): "BOOL",
    frozenset({int}): "INT64",
    frozenset({bool, int}): "INT64",
    frozenset({float}): "FP64",
    frozenset({int, float}): "FP64",
    frozenset({str}): "BYTES",
    # Nothing at all, or nothing that is known.
    frozenset(): "FP64",
}


def _integer_datatype(data: list[int]) -> str:
    if min(data) >= -(1 << 63):
        if max(data) < 1 << 63:
            return "INT64"
        if max(data) < 1 << 64 and min(data) >= 0:
            return "UINT64"
    raise Unexpressible("unsupported")


def _value(item: Any) -> Any:
    if isinstance(item, np.datetime64):
        return None if np.isnat(item) else str(item)
    if isinstance(item, np.generic):
        item = item.item()
    if isinstance(item, (dt.date, dt.time)):
        return item.isoformat()
    for kind in (bool, int, float, str):
        if isinstance(item, kind):  # as an enumeration of numbers is
            return kind(item)
    if item is None:
        return None
    raise Unexpressible("unsupported")


def _encoded(name: str, shape: list[int], data: list[Any]) -> dict[str, Any]:
    if not all(isinstance(item, bytes) or item is None for item in data):
        raise Unexpressible("unsupported")
    return {
        "name": name,
        "shape": shape,
        "datatype": "BYTES",
        "parameters": {"content_type": "base64"},
        "data": [None if item is None else base64.b64encode(item).decode() for item in data],
    }


def _text(key: Any) -> str:
    if isinstance(key, tuple):  # pandas: several levels of columns
        return "_".join(map(str, key))
    return str(key)


def rows_of(tensors: Iterable[Mapping[str, Any]]) -> int:
    """Return how many rows tensors have that share their first dimension; 1 otherwise."""
    leading = {tensor["shape"][0] for tensor in tensors if tensor["shape"]}
    return leading.pop() if len(leading) == 1 else 1
