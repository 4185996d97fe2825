"""KServe V1 and TF-Serving REST: rows under ``instances`` and ``predictions``, columns under
``inputs`` and ``outputs``.

Reference: tensorflow/serving, g3doc/api_rest.md. JSON declares no datatypes here, so values are
classed by what they are; ``NaN`` and ``Infinity`` are legal.
"""  # noqa: D205 - one sentence over two lines

import json
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any, Final

from sidelight.adapters.dialects._half import (
    BOOLEAN,
    DOCUMENT,
    ENCODED,
    MAX_COLUMNS,
    MAX_TABLE_COLUMNS,
    NOTHING,
    NUMBER,
    TEXT,
    Half,
    Layout,
    Side,
    Tensor,
    Undecodable,
)
from sidelight.adapters.dialects._tables import MAX_RANK, RawTensor, flattened, table

_ROWS: Final[dict[Side, str]] = {"request": "instances", "response": "predictions"}
_COLUMNS: Final[dict[Side, str]] = {"request": "inputs", "response": "outputs"}
_SIGNATURE: Final = "signature_name"
_B64: Final = "b64"
_CLASSES: Final = {
    frozenset({int}): NUMBER,
    frozenset({float}): NUMBER,
    frozenset({int, float}): NUMBER,
    frozenset({bool}): BOOLEAN,
    frozenset({str}): TEXT,
    frozenset[type](): NOTHING,
}
_NESTED: Final = frozenset({list, dict})
# Integers beyond what a double holds exactly; as a type of its own, so that no neighbour with a
# fraction, in its payload or in another, rounds them.
_LONG: Final = "INT64"
_EXACT: Final = 1 << 53
_LONGEST: Final = 1 << 63

Column = tuple[Tensor, list[Any]]


class Version1:
    """V1 requests and responses, row by row or column by column."""

    def claims(self, body: dict[str, Any], side: Side) -> bool:
        """Whether the object has one of the four keys."""
        return _ROWS[side] in body or _COLUMNS[side] in body

    def decode(self, body: dict[str, Any], side: Side) -> Half:
        """Read rows or columns."""
        signature = body.get(_SIGNATURE)
        extra = ((_SIGNATURE, signature),) if isinstance(signature, str) else ()
        key = _ROWS[side]
        if key not in body:
            return table("v1-columnar", _columnar(body[_COLUMNS[side]]), {}, extra)
        items = body[key]
        if type(items) is not list:
            raise Undecodable("shape")
        form, columns = _by_form(items)
        layout = _layout(form, tuple([tensor for tensor, _ in columns]), extra)
        if not items:
            return Half(layout, 1, ([None],), {"empty": True})
        return Half(layout, len(items), tuple([values for _, values in columns]), {})


def _by_form(items: list[Any]) -> tuple[str, list[Column]]:
    kinds = set(map(type, items))
    if kinds == {list}:
        return "list", _lists(items)
    if kinds == {dict} and not all(_is_encoded(item) for item in items):
        names = list(dict.fromkeys(chain.from_iterable(items)))
        if len(names) > MAX_COLUMNS:
            raise Undecodable("columns")
        return "object", [_column(name, [item.get(name) for item in items]) for name in names]
    return "scalar", [_column(None, items)]


def _lists(rows: list[list[Any]]) -> list[Column]:
    """Return rows that are lists: a table when they are flat and of one length."""
    widths = set(map(len, rows))
    flat = list(chain.from_iterable(rows))
    kinds = set(map(type, flat))
    width = widths.pop()
    if widths or kinds & _NESTED or width > MAX_TABLE_COLUMNS:
        return [_column(None, rows)]
    datatype = _class(kinds)
    if datatype and not (datatype == NUMBER and _is_long(flat)):
        tensor = Tensor(name=None, datatype=datatype, shape=(width,), n_columns=width)
        return [(tensor, flat)]
    return [_column(None, flat[place::width]) for place in range(width)]


def _column(name: str | None, values: list[Any]) -> Column:
    """Return one value a row, whatever it is."""
    kinds = set(map(type, values)) - {type(None)}
    if (datatype := _class(kinds)) is not None:
        if kinds == {int} and _is_long(values):
            datatype = _LONG
        return Tensor(name=name, datatype=datatype), values
    if kinds == {list}:
        return _list_column(name, values)
    if kinds == {dict} and all(item is None or _is_encoded(item) for item in values):
        texts = [item and item[_B64] for item in values]
        return Tensor(name=name, datatype=ENCODED), texts
    return Tensor(name=name, datatype=DOCUMENT), [_document(value) for value in values]


def _list_column(name: str | None, values: list[Any]) -> Column:
    try:
        flat = [None if value is None else flattened(value)[0] for value in values]
        leaves = [value for row in flat if row is not None for value in row]
        leaves, datatype = _leaves(leaves)
    except Undecodable:
        return Tensor(name=name, datatype=DOCUMENT), [_document(value) for value in values]
    if datatype == ENCODED:
        flat = [None if row is None else [item and item[_B64] for item in row] for row in flat]
    shapes = {_shape(value) for value in values if value is not None}
    shape = shapes.pop() if len(shapes) == 1 else None
    if shape == (1,) and name is not None:
        # A named input of shape [1] a row: the value, not a list of one.
        single = [row and row[0] for row in flat]
        return Tensor(name=name, datatype=datatype, shape=shape), single
    return Tensor(name=name, datatype=datatype, shape=shape, is_list=True, is_nested=True), flat


def _columnar(value: Any) -> list[RawTensor]:
    if type(value) is not dict or _is_encoded(value):
        return [_raw(None, value)]
    if not value or len(value) > MAX_COLUMNS:
        raise Undecodable("columns")
    return [_raw(name, item) for name, item in value.items()]


def _raw(name: str | None, value: Any) -> RawTensor:
    if type(value) is not list:
        leaves, datatype = _leaves([value])
        return RawTensor(name, datatype, (), leaves, nested=False)
    shape = _shape(value)
    if shape is not None:
        leaves, datatype = _leaves(flattened(value)[0])
        return RawTensor(name, datatype, shape, leaves, nested=True)
    rows = [flattened(item)[0] if type(item) is list else [item] for item in value]
    leaves, datatype = _leaves(list(chain.from_iterable(rows)))
    if datatype == ENCODED:
        raise Undecodable("shape")
    return RawTensor(name, datatype, None, rows, nested=True)


def _leaves(values: list[Any]) -> tuple[list[Any], str]:
    """Return values and their one class; raise ``Undecodable`` when they have several."""
    kinds = set(map(type, values)) - {type(None)}
    if (datatype := _class(kinds)) is not None:
        return values, datatype
    if kinds == {dict} and all(item is None or _is_encoded(item) for item in values):
        return [item and item[_B64] for item in values], ENCODED
    raise Undecodable("values")


def _shape(value: Sequence[Any]) -> tuple[int, ...] | None:
    """Return the shape of nested lists, None when they are ragged."""
    shape: list[int] = []
    level: Sequence[Any] = [value]
    for _ in range(MAX_RANK + 1):
        if not level or not any(type(item) is list for item in level):
            return tuple(shape)
        if not all(type(item) is list for item in level):
            return None
        widths = set(map(len, level))
        if len(widths) > 1:
            return None
        shape.append(widths.pop())
        level = list(chain.from_iterable(level))
    raise Undecodable("shape")


def _class(kinds: Iterable[type]) -> str | None:
    return _CLASSES.get(frozenset(kinds) - {type(None)})


def _is_long(values: Iterable[Any]) -> bool:
    """Whether an integer needs more than a double, and all fit into 64 bits."""
    whole = [value for value in values if type(value) is int]
    if not whole:
        return False
    low, high = min(whole), max(whole)
    return (high > _EXACT or low < -_EXACT) and low >= -_LONGEST and high < _LONGEST


def _is_encoded(value: Any) -> bool:
    return type(value) is dict and len(value) == 1 and type(value.get(_B64)) is str


def _document(value: Any) -> str | None:
    if value is None or type(value) is str:
        return value
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


@lru_cache(maxsize=1024)
def _layout(form: str, tensors: tuple[Tensor, ...], extra: tuple[tuple[str, str], ...]) -> Layout:
    return Layout("v1-row", form, tensors, extra)
