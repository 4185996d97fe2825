"""Seldon Core 1: ``SeldonMessage`` as JSON.

Reference: SeldonIO/seldon-core, docs "Prediction API".
"""

from math import prod
from typing import Any, Final

from sidelight.adapters.dialects._failures import failed
from sidelight.adapters.dialects._half import ENCODED, TEXT, Half, Side, Tensor, Undecodable
from sidelight.adapters.dialects._messages import TensorProto
from sidelight.adapters.dialects._tables import MAX_RANK, RawTensor, flattened, table
from sidelight.adapters.dialects._tensor_proto import of_json, of_message
from sidelight.adapters.dialects._values import (
    Column,
    column,
    of_columns,
    of_items,
    of_named_lists,
)

_TABLES: Final = ("ndarray", "tensor", "tftensor")
_VALUES: Final = ("strData", "binData", "jsonData", "customData")
_META: Final = (("puid", "id"), ("tags", "tags"), ("routing", "routing"), ("metrics", "metrics"))
_FAILED: Final = ("FAILURE", 1)
_NOT_FINITE: Final = frozenset({"NaN", "Infinity", "-Infinity"})
_MATRIX: Final = 2


class SeldonCore:
    """Requests and responses of Seldon Core 1; both have the same form."""

    def claims(self, body: dict[str, Any], side: Side) -> bool:
        """Whether the object holds one of the kinds of data, or says that there is none."""
        data = body.get("data")
        if type(data) is dict:
            return any(key in data for key in _TABLES)
        if any(key in body for key in _VALUES):
            return True
        return side == "response" and _failure(body) is not None

    def decode(self, body: dict[str, Any], side: Side) -> Half:  # noqa: ARG002 - the interface
        """Read the data, and what ``meta`` says beside it."""
        return seldon_message(body)


def seldon_message(body: dict[str, Any], protocol: str = "seldon") -> Half:
    """Read a message.

    Parameters
    ----------
    body : dict
        In its JSON form; ``tftensor`` may be a message.
    protocol : str, default "seldon"
        Of the layout.

    Raises
    ------
    Undecodable
        When it contradicts itself.

    """
    facts = _facts(body)
    data = body.get("data")
    if type(data) is dict:
        for form, read in (("ndarray", _ndarray), ("tensor", _tensor), ("tftensor", _tftensor)):
            if data.get(form) is not None:
                return read(data[form], _names(data), protocol, facts)
    for form in _VALUES:
        if form in body:
            columns, rows = _value(form, body[form])
            return of_columns(protocol, form, columns, rows=rows, facts=facts)
    if (said := _failure(body)) is not None:
        return failed(said, facts)
    raise Undecodable("seldon")


def _facts(body: dict[str, Any]) -> dict[str, Any]:
    meta = body.get("meta")
    if type(meta) is not dict:
        return {}
    return {fact: meta[key] for key, fact in _META if meta.get(key)}


def _failure(body: dict[str, Any]) -> str | None:
    status = body.get("status")
    if type(status) is not dict or status.get("status") not in _FAILED:
        return None
    said = [str(status[key]) for key in ("code", "reason", "info") if status.get(key)]
    return ": ".join(said) or "failure"


def _names(data: dict[str, Any]) -> list[str]:
    names = data.get("names")
    return list(map(str, names)) if type(names) is list else []


def _ndarray(rows: Any, names: list[str], protocol: str, facts: dict[str, Any]) -> Half:
    if type(rows) is not list:
        raise Undecodable("shape")
    columns: list[Column] | None = None
    if names and rows and type(rows[0]) is list:
        columns = of_named_lists(rows, names)
    if columns is None:
        _, columns = of_items(rows)
        columns = _named(columns, names)
    return of_columns(protocol, "ndarray", columns, rows=len(rows), facts=facts)


def _named(columns: list[Column], names: list[str]) -> list[Column]:
    """Name the only column, which holds a text, an image or a sequence a row."""
    if len(names) != 1 or len(columns) != 1 or columns[0][0].n_columns != 1:
        return columns
    tensor, values = columns[0]
    return [(_renamed(tensor, names[0]), values)]


def _renamed(tensor: Tensor, name: str) -> Tensor:
    return Tensor(
        name=name,
        datatype=tensor.datatype,
        shape=tensor.shape,
        n_columns=tensor.n_columns,
        is_list=tensor.is_list,
        is_nested=tensor.is_nested,
    )


def _tensor(tensor: Any, names: list[str], protocol: str, facts: dict[str, Any]) -> Half:
    if type(tensor) is not dict:
        raise Undecodable("shape")
    shape, values = tensor.get("shape", []), tensor.get("values", [])
    if type(shape) is not list or type(values) is not list or len(shape) > MAX_RANK:
        raise Undecodable("shape")
    if any(type(size) is not int or size < 0 for size in shape):
        raise Undecodable("shape")
    values = [_finite_or_not(value) for value in flattened(values)[0]]
    return _of_raw(
        RawTensor(None, "FP64", tuple(shape), values, nested=False), names, protocol, facts
    )


def _finite_or_not(value: Any) -> Any:
    # Protobuf's JSON writes these three as text.
    return float(value) if type(value) is str and value in _NOT_FINITE else value


def _tftensor(tensor: Any, names: list[str], protocol: str, facts: dict[str, Any]) -> Half:
    raw = of_message(None, tensor) if isinstance(tensor, TensorProto) else of_json(None, tensor)
    return _of_raw(raw, names, protocol, facts)


def _of_raw(raw: RawTensor, names: list[str], protocol: str, facts: dict[str, Any]) -> Half:
    shape = raw.shape or ()
    if len(raw.data) != prod(shape):
        raise Undecodable("shape")
    if names and len(shape) == _MATRIX and len(names) == shape[1]:
        width = shape[1]
        parts = [
            raw._replace(name=name, shape=shape[:1], data=raw.data[place::width])
            for place, name in enumerate(names)
        ]
        return table(protocol, parts, facts)
    if len(names) == 1 and len(shape) != _MATRIX:
        raw = raw._replace(name=names[0])
    return table(protocol, [raw], facts)


def _value(form: str, value: Any) -> tuple[list[Column], int]:
    if form == "strData":
        return [(Tensor(name=None, datatype=TEXT), [_text(value)])], 1
    if form == "binData":
        return [(Tensor(name=None, datatype=ENCODED), [_text(value)])], 1
    items = value if form == "jsonData" and type(value) is list and value else [value]
    return [column(None, items)], len(items)


def _text(value: Any) -> str:
    if type(value) is not str:
        raise Undecodable("values")
    return value
