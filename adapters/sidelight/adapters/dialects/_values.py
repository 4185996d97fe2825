"""Values whose datatype nobody declares: JSON's and CSV's are classed by what they are."""

import json
from collections.abc import Iterable, Mapping, Sequence
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
    Tensor,
    Undecodable,
)
from sidelight.adapters.dialects._tables import FREE_CELLS, MAX_RANK, MAX_REPEATS, flattened

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
_EXACT: Final = 1 << 53
# Integers beyond what a double holds exactly; as types of their own, so that no neighbour with a
# fraction, in its payload or in another, rounds them.
_LONG: Final = (("INT64", -(1 << 63), (1 << 63) - 1), ("UINT64", 0, (1 << 64) - 1))

Column = tuple[Tensor, list[Any]]
Extra = tuple[tuple[str, str], ...]


def of_columns(
    protocol: str,
    form: str,
    columns: Sequence[Column],
    *,
    rows: int,
    facts: Mapping[str, Any],
    extra: Extra = (),
) -> Half:
    """Return a payload of columns; one without rows is one row of nothing.

    Raises
    ------
    Undecodable
        When there are more columns than a table may have.

    """
    layout = _layout(protocol, form, tuple([tensor for tensor, _ in columns]), extra)
    if not rows:
        values = tuple([[None] * tensor.n_columns for tensor in layout.tensors])
        return Half(layout, 1, values, {**facts, "empty": True})
    return Half(layout, rows, tuple([values for _, values in columns]), facts)


def of_items(items: list[Any]) -> tuple[str, list[Column]]:
    """Return the form of rows (``list``, ``object`` or ``scalar``) and their columns."""
    kinds = set(map(type, items))
    if kinds == {list}:
        return "list", of_lists(items)
    if kinds == {dict} and not all(is_encoded(item) for item in items):
        return "object", of_objects(items)
    return "scalar", [column(None, items)]


def of_objects(items: list[dict[str, Any]]) -> list[Column]:
    """Return a column for each name of any of the objects; what one leaves out is missing."""
    names = list(dict.fromkeys(chain.from_iterable(items)))
    if len(names) > MAX_COLUMNS:
        raise Undecodable("columns")
    if len(names) * len(items) > max(FREE_CELLS, MAX_REPEATS * sum(map(len, items))):
        raise Undecodable("sparse")
    return [column(name, [item.get(name) for item in items]) for name in names]


def of_lists(rows: list[list[Any]]) -> list[Column]:
    """Return rows that are lists: a table when they are flat and of one length."""
    widths = set(map(len, rows))
    flat = list(chain.from_iterable(rows))
    kinds = set(map(type, flat))
    width = widths.pop()
    if widths or kinds & _NESTED or width > MAX_TABLE_COLUMNS:
        return [column(None, rows)]
    datatype = _class(kinds)
    if datatype and not (datatype == NUMBER and _long(flat)):
        tensor = Tensor(name=None, datatype=datatype, shape=(width,), n_columns=width)
        return [(tensor, flat)]
    return [column(None, flat[place::width]) for place in range(width)]


def of_named_lists(rows: list[Any], names: Sequence[str]) -> list[Column] | None:
    """Return a column for each name; None when a row is no list of as many values."""
    width = len(names)
    if width > MAX_COLUMNS:
        raise Undecodable("columns")
    if not all(type(row) is list and len(row) == width for row in rows):
        return None
    cells = list(zip(*rows, strict=True)) if rows else [()] * width
    return [column(name, list(values)) for name, values in zip(names, cells, strict=True)]


def column(name: str | None, values: list[Any]) -> Column:
    """Return one value a row, whatever it is."""
    kinds = set(map(type, values)) - {type(None)}
    if (datatype := _class(kinds)) is not None:
        if kinds == {int}:
            datatype = _long(values) or datatype
        return Tensor(name=name, datatype=datatype), values
    if kinds == {list}:
        return _list_column(name, values)
    if kinds == {dict} and all(item is None or is_encoded(item) for item in values):
        texts = [item and item[_B64] for item in values]
        return Tensor(name=name, datatype=ENCODED), texts
    return Tensor(name=name, datatype=DOCUMENT), [_document(value) for value in values]


def leaves_of(values: list[Any]) -> tuple[list[Any], str]:
    """Return values and their one class; raise ``Undecodable`` when they have several."""
    kinds = set(map(type, values)) - {type(None)}
    if (datatype := _class(kinds)) is not None:
        return values, datatype
    if kinds == {dict} and all(item is None or is_encoded(item) for item in values):
        return [item and item[_B64] for item in values], ENCODED
    raise Undecodable("values")


def shape_of(value: Sequence[Any]) -> tuple[int, ...] | None:
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


def is_encoded(value: Any) -> bool:
    """Whether a value is TF-Serving's form of bytes, ``{"b64": text}``."""
    return type(value) is dict and len(value) == 1 and type(value.get(_B64)) is str


def _list_column(name: str | None, values: list[Any]) -> Column:
    try:
        flat = [None if value is None else flattened(value)[0] for value in values]
        leaves = [value for row in flat if row is not None for value in row]
        leaves, datatype = leaves_of(leaves)
    except Undecodable:
        return Tensor(name=name, datatype=DOCUMENT), [_document(value) for value in values]
    if datatype == ENCODED:
        flat = [None if row is None else [item and item[_B64] for item in row] for row in flat]
    shapes = {shape_of(value) for value in values if value is not None}
    shape = shapes.pop() if len(shapes) == 1 else None
    if shape == (1,) and name is not None:
        # A named input of shape [1] a row: the value, not a list of one.
        single = [row and row[0] for row in flat]
        return Tensor(name=name, datatype=datatype, shape=shape), single
    return Tensor(name=name, datatype=datatype, shape=shape, is_list=True, is_nested=True), flat


def _class(kinds: Iterable[type]) -> str | None:
    return _CLASSES.get(frozenset(kinds) - {type(None)})


def _long(values: Iterable[Any]) -> str | None:
    """Return the datatype of integers of which one needs more than a double; None of others."""
    whole = [value for value in values if type(value) is int]
    if not whole:
        return None
    low, high = min(whole), max(whole)
    if low >= -_EXACT and high <= _EXACT:
        return None
    return next((name for name, least, most in _LONG if least <= low and high <= most), None)


def _document(value: Any) -> str | None:
    if value is None or type(value) is str:
        return value
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


@lru_cache(maxsize=1024)
def _layout(protocol: str, form: str, tensors: tuple[Tensor, ...], extra: Extra) -> Layout:
    if sum(tensor.n_columns for tensor in tensors) > MAX_COLUMNS:
        raise Undecodable("columns")
    return Layout(protocol, form, tensors, extra)
