"""Tensors that share their leading dimension are the columns of one table."""

from functools import lru_cache
from itertools import chain
from math import prod
from typing import Any, Final, NamedTuple

from sidelight.adapters.dialects._half import (
    MAX_COLUMNS,
    MAX_TABLE_COLUMNS,
    Half,
    Layout,
    Tensor,
    Undecodable,
)

MAX_RANK: Final = 32

FREE_CELLS: Final = 1 << 20
MAX_REPEATS: Final = 32
"""Cells of a table may be this many for each value that was sent, once they are no longer few: a
short payload must not become a large table by what it leaves out or states once."""

Spec = tuple[str | None, str, tuple[int, ...] | None, bool, bool, str | None]
"""Name, datatype, shape of a row, nested, scalar, content type."""


class RawTensor(NamedTuple):
    """A tensor as read: its data flat, row-major; ``shape`` None for rows of differing length."""

    name: str | None
    datatype: str
    shape: tuple[int, ...] | None
    data: list[Any]
    nested: bool
    content_type: str | None = None


def table(
    protocol: str,
    tensors: list[RawTensor],
    facts: dict[str, Any],
    extra: tuple[tuple[str, str], ...] = (),
) -> Half:
    """Return the rows of tensors: one for each step of the leading dimension.

    Tensors without dimensions are repeated for each row. When leading dimensions differ, the
    payload is one row in which every tensor is one list.
    """
    if len(tensors) == 1 and (shape := tensors[0].shape):
        # One tensor, as most requests are: nothing to compare.
        rows = shape[0]
    else:
        leading = {
            len(tensor.data) if tensor.shape is None else tensor.shape[0]
            for tensor in tensors
            if tensor.shape != ()
        }
        if len(leading) > 1:
            return _whole(protocol, tensors, facts, extra)
        rows = leading.pop() if leading else 1
    if rows > 1:
        _check_size(tensors, rows)
    specs = [
        (
            tensor.name,
            tensor.datatype,
            tensor.shape[1:] if tensor.shape else tensor.shape,
            tensor.nested,
            tensor.shape == (),
            tensor.content_type,
        )
        for tensor in tensors
    ]
    layout = _layout(protocol, tuple(specs), extra, False)  # noqa: FBT003 - lru_cache keys on positions
    if not rows:
        values = tuple([[None] * tensor.n_columns for tensor in layout.tensors])
        return Half(layout, 1, values, {**facts, "empty": True})
    pairs = zip(tensors, layout.tensors, strict=True)
    return Half(layout, rows, tuple([_by_row(raw, tensor, rows) for raw, tensor in pairs]), facts)


def _check_size(tensors: list[RawTensor], rows: int) -> None:
    """Refuse rows that hold nothing, and single values repeated for too many of them."""
    sent = sum([len(tensor.data) for tensor in tensors])
    if rows * len(tensors) > max(FREE_CELLS, MAX_REPEATS * sent):
        raise Undecodable("sparse")


def flattened(data: list[Any]) -> tuple[list[Any], bool]:
    """Return nested lists as one, and whether they were nested.

    Raises
    ------
    Undecodable
        When lists and other values stand side by side, or nesting exceeds 32.

    """
    level = data
    for depth in range(MAX_RANK):
        if not level or type(level[0]) is not list:
            return level, depth > 0
        if not all(type(item) is list for item in level):
            break
        level = list(chain.from_iterable(level))
    raise Undecodable("shape")


def _by_row(raw: RawTensor, tensor: Tensor, rows: int) -> list[Any]:
    if tensor.is_scalar:
        return raw.data * rows
    if not tensor.is_list or raw.shape is None:
        return raw.data
    width = prod(raw.shape[1:])
    return [raw.data[start : start + width] for start in range(0, rows * width, width or 1)] or [
        [] for _ in range(rows)
    ]


def _whole(
    protocol: str,
    tensors: list[RawTensor],
    facts: dict[str, Any],
    extra: tuple[tuple[str, str], ...],
) -> Half:
    if any(tensor.shape is None for tensor in tensors):
        raise Undecodable("shape")
    specs = tuple(
        (raw.name, raw.datatype, raw.shape, raw.nested, raw.shape == (), raw.content_type)
        for raw in tensors
    )
    layout = _layout(protocol, specs, extra, True)  # noqa: FBT003 - lru_cache keys on positions
    values = tuple(
        [raw.data] if tensor.is_list else raw.data
        for raw, tensor in zip(tensors, layout.tensors, strict=True)
    )
    return Half(layout, 1, values, facts)


@lru_cache(maxsize=1024)
def _layout(
    protocol: str,
    specs: tuple[Spec, ...],
    extra: tuple[tuple[str, str], ...],
    whole: bool,  # noqa: FBT001 - lru_cache keys on positions
) -> Layout:
    tensors = []
    for name, datatype, shape, nested, scalar, content_type in specs:
        width = prod(shape) if shape is not None else 0
        is_list = not scalar and (
            whole or shape is None or len(shape) > 1 or width > MAX_TABLE_COLUMNS
        )
        tensors.append(
            Tensor(
                name=name,
                datatype=datatype,
                shape=shape,
                n_columns=1 if is_list or scalar else width,
                is_list=is_list,
                is_nested=nested,
                is_scalar=scalar,
                content_type=content_type,
            )
        )
    if sum(tensor.n_columns for tensor in tensors) > MAX_COLUMNS:
        raise Undecodable("columns")
    return Layout(protocol, "", tuple(tensors), extra, whole)
