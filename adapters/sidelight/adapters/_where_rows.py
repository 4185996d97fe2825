"""A ``where`` expression on one row: true, false, or unknown, as SQL has it.

This says in Python what ``_where_sql`` says to DuckDB. A search server finds candidates; whether
one is an answer is decided here, on the values as they were stored.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, assert_never

from sidelight.adapters._query_time import parse_time
from sidelight.adapters._where import (
    AnyPredicate,
    Between,
    ColumnName,
    Comparison,
    Expression,
    IsNull,
    Joined,
    Like,
    Literals,
    Membership,
    Not,
)
from sidelight.adapters._where_numbers import single, whole
from sidelight.adapters._where_sql import Kind

_COMPARED: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "=": lambda left, right: left == right,
    "!=": lambda left, right: left != right,
    "<": lambda left, right: left < right,
    "<=": lambda left, right: left <= right,
    ">": lambda left, right: left > right,
    ">=": lambda left, right: left >= right,
}


@dataclass(frozen=True, slots=True)
class Cell:
    """One value of a row.

    Parameters
    ----------
    kind : Kind or None
        Of its column; None when the column is not there.
    value : object
        None is null; a time in microseconds since 1970 UTC.
    is_integer : bool
        Whether the column holds whole numbers, which compare exactly with each other.
    is_single : bool
        Whether it is float32: a literal is rounded like the values.

    """

    kind: Kind | None = None
    value: Any = None
    is_integer: bool = False
    is_single: bool = False


def holds(expression: Expression, cell: Callable[[ColumnName], Cell]) -> bool | None:
    """Return whether an expression is true of a row; None when it is unknown."""
    match expression:
        case Joined():
            found = [holds(operand, cell) for operand in expression.operands]
            return _any(found) if expression.word == "or" else _all(found)
        case Not():
            return _negated(holds(expression.operand, cell))
        case _:
            found_one = _predicate(expression, cell(expression.column))
            return _negated(found_one) if expression.negated else found_one


def _predicate(predicate: AnyPredicate, cell: Cell) -> bool | None:
    values = predicate.values
    match predicate:
        case IsNull():
            return cell.value is None
        case Comparison():
            return _compare(cell, predicate.operator, values[0])
        case Between():
            return _all([_compare(cell, ">=", values[0]), _compare(cell, "<=", values[1])])
        case Like():
            if cell.kind != "text" or cell.value is None:
                return None
            pattern = _pattern(str(values[0].value), predicate.escape)
            return pattern.fullmatch(cell.value) is not None
        case Membership():
            return _any([_compare(cell, "=", value) for value in values])
    assert_never(predicate)


def _compare(cell: Cell, operator: str, literal: Literals) -> bool | None:
    value, wanted = cell.value, literal.value
    if value is None or wanted is None:
        return None
    if cell.kind == "time" and isinstance(wanted, str):
        return _COMPARED[operator](value, parse_time(wanted, "time"))
    if _kind(wanted) != cell.kind:
        return None
    if cell.kind == "number":
        value, wanted = _numbers(cell, wanted)
    return _COMPARED[operator](value, wanted)


def _numbers(cell: Cell, wanted: Any) -> tuple[float, float]:
    """Return both sides as the lake compares them: whole, or both as a float."""
    if cell.is_single:
        nearest = single(wanted)
        return single(cell.value) or 0.0, float(wanted) if nearest is None else nearest
    if cell.is_integer:
        # Python compares whole numbers and floats exactly.
        return cell.value, whole(wanted)
    return float(cell.value), float(wanted)


def _kind(value: Any) -> Kind:
    if isinstance(value, bool):
        return "boolean"
    return "text" if isinstance(value, str) else "number"


@lru_cache(maxsize=256)
def _pattern(like: str, escape: str) -> re.Pattern[str]:
    parts = [""]
    signs = iter(like)
    for sign in signs:
        if sign == "%":
            parts.append("")
        elif sign == "_":
            parts[-1] += "."
        else:
            parts[-1] += re.escape(next(signs) if sign == escape else sign)
    first, *rest = parts
    if not rest:
        return re.compile(first, re.DOTALL)
    # What stands between two % is found where it comes first, and never looked for again: tried
    # at all places, many % take for ever.
    middle = "".join(f"(?>.*?{part})" for part in rest[:-1] if part)
    return re.compile(f"{first}{middle}.*{rest[-1]}", re.DOTALL)


def _all(found: Iterable[bool | None]) -> bool | None:
    values = list(found)
    if False in values:
        return False
    return None if None in values else True


def _any(found: Iterable[bool | None]) -> bool | None:
    values = list(found)
    if True in values:
        return True
    return None if None in values else False


def _negated(value: bool | None) -> bool | None:  # noqa: FBT001 - what it negates
    return None if value is None else not value
