"""One tensor of an array or of a flat list of values, with the datatype that they have."""

import base64
import dataclasses
import datetime as dt
import enum
import uuid
from typing import Any, Final

import numpy as np

Tensor = dict[str, Any]

LEAVES: Final = frozenset({bool, int, float, str, type(None)})
"""Types of values that stand in JSON as they are."""

SCALARS: Final = (bool, int, float, str, bytes, np.generic, dt.date, dt.time)
"""Types of single values."""

_WORDS: Final = {"i": "INT", "u": "UINT", "f": "FP"}
_FLOAT_BYTES: Final = (2, 4, 8)
_PLAIN: Final = (*SCALARS, np.ndarray, list, tuple, dict, type(None))


class Unexpressible(ValueError):  # noqa: N818 - never leaves this package
    """A value is no tensor; ``reason`` is one word for the counter."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def plain(value: Any) -> Any:
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


def leaf(value: Any) -> Any:
    """Return a value that is no list; raise ``Unexpressible`` for anything else."""
    value = plain(value)
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    if value is not None and not isinstance(value, SCALARS):
        raise Unexpressible("unsupported")
    return value


def tensor_of_array(name: str, array: np.ndarray[Any, Any]) -> Tensor:
    """Return an array as a tensor of the same shape."""
    shape, kind = list(array.shape), array.dtype.kind
    if kind not in "biuf" or isinstance(array, np.ma.MaskedArray):
        return tensor_of_values(name, shape, _values(array))
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
            return [leaf(item) for item in flat.tolist()]
        case "b" | "i" | "u" | "f" | "U" | "S":
            values: list[Any] = flat.tolist()
            return values
        case _:
            raise Unexpressible("unsupported")


def tensor_of_values(name: str, shape: list[int], data: list[Any]) -> Tensor:
    """Return a tensor of Python's values with the datatype that they have."""
    kinds = set(map(type, data))
    if not kinds <= LEAVES:
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


def _encoded(name: str, shape: list[int], data: list[Any]) -> Tensor:
    if not all(isinstance(item, bytes) or item is None for item in data):
        raise Unexpressible("unsupported")
    return {
        "name": name,
        "shape": shape,
        "datatype": "BYTES",
        "parameters": {"content_type": "base64"},
        "data": [None if item is None else base64.b64encode(item).decode() for item in data],
    }
