"""Values of many payloads of one layout become Arrow columns at once."""

from collections.abc import Sequence
from itertools import chain
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sidelight.adapters._known_numbers import packed
from sidelight.adapters.dialects import Layout, Tensor
from sidelight.payloads import Schema

Values = list[Any] | NDArray[np.float64]
"""Of one tensor of one payload, row by row; an array where all of them are real numbers."""

_FLOATS: Final = {
    # Half precision is widened: neither the lake nor its queries know it. Values are exact.
    "FP16": pa.float32(),
    "BF16": pa.float32(),
    "FP32": pa.float32(),
    "FP64": pa.float64(),
}
_INTEGERS: Final = {
    "INT8": pa.int8(),
    "INT16": pa.int16(),
    "INT32": pa.int32(),
    "INT64": pa.int64(),
    "UINT8": pa.uint8(),
    "UINT16": pa.uint16(),
    "UINT32": pa.uint32(),
    "UINT64": pa.uint64(),
}
_ABSENT: Final = type(None)
_NUMBERS: Final = frozenset({int, float, _ABSENT})
_REAL: Final = _NUMBERS | {bool}
_WHOLE: Final = frozenset({int, _ABSENT})
_BITS: Final = frozenset({0, 1, None})

REAL_DATATYPES: Final = frozenset(_FLOATS)
"""Whose values are numbers that doubles hold, as JSON tells them."""

CONVERSION_ERRORS: Final = (ValueError, TypeError, OverflowError)
"""What values raise that are not what their datatype says; Arrow's errors are among them."""


def arrays(tensor: Tensor, parts: Sequence[Values]) -> list[pa.Array]:
    """Return the columns of one tensor.

    Parameters
    ----------
    tensor : Tensor
        Datatype and number of columns.
    parts : sequence of list or array
        For each payload its values, row by row; an array only where the datatype is a real one.

    Returns
    -------
    list of pyarrow.Array
        ``n_columns`` arrays with one value for each row of all payloads; not finite is null.

    Raises
    ------
    ValueError, TypeError, OverflowError
        When a value is not what the datatype says.

    """
    # Most are lists; to ask each of them would take longer than to join them.
    if np.ndarray in set(map(type, parts)):
        doubles = _doubles(parts)
        if doubles is not None:
            return _real_columns(doubles, tensor.n_columns, _FLOATS[tensor.datatype])
        parts = [part if isinstance(part, list) else part.tolist() for part in parts]
    flat: list[Any] = list(parts[0] if len(parts) == 1 else chain.from_iterable(parts))
    if tensor.is_list:
        return [_lists(tensor.datatype, flat)]
    values = _typed(tensor.datatype, flat)
    n = tensor.n_columns
    if n < 2:  # noqa: PLR2004 - none, or as it is
        return [values][:n]
    if values.null_count == 0 and pa.types.is_primitive(values.type):
        table = np.ascontiguousarray(values.to_numpy(zero_copy_only=False).reshape(-1, n).T)
        if table.dtype == bool:
            return [pa.array(column) for column in table]
        return _columns_of(table, values.type)
    return [values.take(pa.array(np.arange(place, len(values), n))) for place in range(n)]


def _doubles(parts: Sequence[Values]) -> list[NDArray[np.float64]] | None:
    """Return all values as doubles; None when one part has something else."""
    doubles = [part if isinstance(part, np.ndarray) else packed(part) for part in parts]
    numbers = [part for part in doubles if part is not None]
    return numbers if len(numbers) == len(doubles) else None


def _real_columns(
    parts: Sequence[NDArray[np.float64]], n: int, kind: pa.DataType
) -> list[pa.Array]:
    """Return the columns of payloads whose rows have ``n`` numbers each."""
    table = np.empty((n, sum(map(len, parts)) // n), dtype=kind.to_pandas_dtype())
    begin = 0
    # What single precision cannot hold is infinite, and becomes null.
    with np.errstate(over="ignore"):
        for part in parts:
            end = begin + len(part) // n
            table[:, begin:end] = part.reshape(-1, n).T
            begin = end
    finite = np.isfinite(table)
    if finite.all():
        return _columns_of(table, kind)
    return [
        pa.array(column, mask=~is_finite) for column, is_finite in zip(table, finite, strict=True)
    ]


def _columns_of(table: NDArray[Any], kind: pa.DataType) -> list[pa.Array]:
    """Return the rows of a table as arrays, all in one buffer."""
    rows = table.shape[1]
    buffers = [None, pa.py_buffer(table)]
    return [
        pa.Array.from_buffers(kind, rows, buffers, null_count=0, offset=place * rows)
        for place in range(len(table))
    ]


def column_names(layout: Layout, unnamed: str, named: tuple[str, ...]) -> list[str]:
    """Return the names of a layout's columns, each once.

    Parameters
    ----------
    layout : Layout
        Tensors and how many columns each becomes.
    unnamed : "f" or "y"
        What columns are called that nobody names: ``f0, f1, ...``; ``y`` alone or ``y0, y1, ...``.
    named : tuple of str
        Names of a registered schema; they name, in order, the columns that the payload does not
        name one by one, when there are as many as columns.

    """
    total = sum(tensor.n_columns for tensor in layout.tensors)
    known = named if len(named) == total else ()
    n_unnamed = sum(tensor.n_columns for tensor in layout.tensors if tensor.name is None)
    names: list[str] = []
    count = 0
    for tensor in layout.tensors:
        for place in range(tensor.n_columns):
            if tensor.name is not None and tensor.n_columns == 1:
                names.append(tensor.name)
                continue
            own = f"{tensor.name}_{place}"
            # A schema that knows the name means it, in whatever order the tensors come.
            if tensor.name is not None and (not known or own in known):
                name = own
            elif known:
                name = known[len(names)]
            else:
                name = unnamed if unnamed == "y" and n_unnamed == 1 else f"{unnamed}{count}"
            count += tensor.name is None
            names.append(name)
    return _distinct(names)


def registered_names(schema: Schema | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return a schema's names of features and of outputs."""
    if schema is None:
        return (), ()
    return (
        tuple(column.name for column in schema.features),
        tuple(column.name for column in schema.outputs),
    )


def _distinct(names: list[str]) -> list[str]:
    if len(set(names)) == len(names):
        return names
    taken = set(names)
    seen: set[str] = set()
    distinct = []
    for name in names:
        chosen, number = name, 2
        while chosen in seen or (chosen != name and chosen in taken):
            chosen, number = f"{name}_{number}", number + 1
        seen.add(chosen)
        distinct.append(chosen)
    return distinct


def _typed(datatype: str, values: list[Any]) -> pa.Array:
    if kind := _FLOATS.get(datatype):
        return _floats(values, kind)
    if kind := _INTEGERS.get(datatype):
        return _integers(values, kind)
    match datatype:
        case "NUMBER":
            return _numbers(values)
        case "BOOL":
            return _booleans(values)
        case "NULL":
            return pa.nulls(len(values))
    return pa.array(values, type=pa.string())


def _floats(values: list[Any], kind: pa.DataType) -> pa.Array:
    try:
        # A flag among numbers is 0 or 1.
        array = pa.array(values, type=kind)
    except (pa.ArrowInvalid, OverflowError):
        if not frozenset(map(type, values)) <= _REAL:
            raise TypeError("a number was expected") from None
        # Integers that a float cannot hold exactly: the declared type says to round them.
        array = pa.array([None if value is None else float(value) for value in values], type=kind)
    return _finite(array)


def _finite(array: pa.Array) -> pa.Array:
    numbers = array.to_numpy(zero_copy_only=False)
    finite = np.isfinite(numbers)
    return array if finite.all() else pa.array(numbers, mask=~finite)


def _integers(values: list[Any], kind: pa.DataType) -> pa.Array:
    kinds = frozenset(map(type, values))
    if kinds <= _WHOLE:
        return pa.array(values, type=kind)
    if not kinds <= _NUMBERS:
        raise TypeError("an integer was expected")
    # Some encoders write 1.0 in an integer tensor; 1.5 there is an error.
    whole = [int(value) if type(value) is float else value for value in values]
    if any(one != other for one, other in zip(values, whole, strict=True)):
        raise ValueError("a fraction in an integer tensor")
    return pa.array(whole, type=kind)


def _numbers(values: list[Any]) -> pa.Array:
    """Return int64 when all are integers, else float64."""
    try:
        array = pa.array(values)
    except (pa.ArrowInvalid, OverflowError):
        return _floats(values, pa.float64())
    if pa.types.is_floating(array.type):
        return _finite(array)
    return array.cast(pa.int64())


def _booleans(values: list[Any]) -> pa.Array:
    try:
        return pa.array(values, type=pa.bool_())
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        if not set(values) <= _BITS:
            raise
        return pa.array([None if bit is None else bool(bit) for bit in values], type=pa.bool_())


def _lists(datatype: str, rows: list[Any]) -> pa.Array:
    empty = np.fromiter((row is None for row in rows), dtype=bool, count=len(rows))
    sizes = [0 if row is None else len(row) for row in rows]
    offsets = np.zeros(len(rows) + 1, dtype=np.int64)
    np.cumsum(sizes, out=offsets[1:])
    if offsets[-1] > np.iinfo(np.int32).max:
        raise OverflowError("more values than a list column can hold")
    values = _typed(datatype, list(chain.from_iterable(row for row in rows if row is not None)))
    mask = pa.array(empty) if empty.any() else None
    return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), values, mask=mask)
