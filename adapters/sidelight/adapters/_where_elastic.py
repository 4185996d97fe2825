"""Turning a ``where`` expression into a query of Elasticsearch or OpenSearch.

The query finds every document that may fulfil the expression, and few others: numbers are doubles
in the index, long texts and many columns are not in it at all. ``_where_rows`` decides on what was
found. No text of the user becomes a part of any syntax: a query is a tree of values.
"""

from collections.abc import Callable, Sequence
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
    Operator,
)
from sidelight.adapters._where_elastic_clauses import (
    ANYTHING,
    NOTHING,
    Field,
    Query,
    every,
    exists,
    hidden,
    n_clauses,
    some,
    without,
)
from sidelight.adapters._where_numbers import EXACT, single
from sidelight.adapters._where_sql import Kind

_OPPOSITE: Final[dict[Operator, Operator]] = {
    "=": "!=",
    "!=": "=",
    "<": ">=",
    ">=": "<",
    ">": "<=",
    "<=": ">",
}
# Elasticsearch takes 30 levels and OpenSearch 1,024 clauses, with those around an expression and
# those that a server makes of one.
_MOST_LEVELS: Final = 20
_MOST_CLAUSES: Final = 500
# Ranges of a list of float32, which no list of terms finds.
_MOST_RANGES: Final = 16
# More signs make an automaton that a server refuses to build.
_MAX_SIGNS: Final = 30
_LITERAL: Final = {"*": "\\*", "?": "\\?", "\\": "\\\\"}
_WILDCARDS: Final = {"%": "*", "_": "?", **_LITERAL}


def candidates(expression: Expression, field_of: Callable[[ColumnName], Field]) -> Query:
    """Return a query for every document of which the expression may be true.

    What is too much for a server is left to the values: the query then finds more.
    """
    query = _Writer(field_of).true(expression)
    return query if n_clauses(query) <= _MOST_CLAUSES else ANYTHING


class _Writer:
    """Writes what may be true and, under a negation, what may be false; unknown is neither."""

    def __init__(self, field_of: Callable[[ColumnName], Field]) -> None:
        self._field_of = field_of

    def true(self, expression: Expression) -> Query:
        return self._write(expression, wanted=True, level=0)

    def _write(self, expression: Expression, *, wanted: bool, level: int) -> Query:
        match expression:
            case Joined() if level == _MOST_LEVELS:
                return ANYTHING
            case Joined(operands=operands):
                parts = [self._write(item, wanted=wanted, level=level + 1) for item in operands]
                return every(parts) if (expression.word == "and") == wanted else some(parts)
            case Not():
                return self._write(expression.operand, wanted=not wanted, level=level)
            case _:
                return self._predicate(expression, wanted=wanted != expression.negated)

    def _predicate(self, predicate: AnyPredicate, *, wanted: bool) -> Query:
        field, values = self._field_of(predicate.column), predicate.values
        match predicate:
            case IsNull():
                return _null(field, wanted=wanted)
            case Comparison():
                return _compared(field, predicate.operator, values[0], wanted=wanted)
            case Between():
                low = _compared(field, ">=", values[0], wanted=wanted)
                high = _compared(field, "<=", values[1], wanted=wanted)
                return every([low, high]) if wanted else some([low, high])
            case Like():
                return _like(field, predicate, wanted=wanted)
            case Membership():
                return _membership(field, values, wanted=wanted)
        assert_never(predicate)


def _compared(field: Field, operator: Operator, literal: Literals, *, wanted: bool) -> Query:
    value = literal.value
    if value is None:
        return NOTHING
    if not wanted:
        operator = _OPPOSITE[operator]
    if "time" in field.kinds:
        return _range(field, operator, parse_time(str(value), "time"))
    if isinstance(value, bool):
        return _found(field, "boolean", _terms(field, operator, "true" if value else "false"))
    if isinstance(value, str):
        return _found(field, "text", _terms(field, operator, value))
    return _found(field, "number", _number(field, operator, value))


def _membership(field: Field, values: Sequence[Literals], *, wanted: bool) -> Query:
    """Return one clause for a list: a server takes a thousand clauses, and a list may be longer."""
    found = [item for value in values if (item := _term(field, value)) is not None]
    if not found or (not wanted and len(found) < len(values)):
        return NOTHING
    if field.is_mixed:
        return ANYTHING
    return some([_listed(field, found, wanted=wanted), *hidden(field)])


def _term(field: Field, literal: Literals) -> str | float | None:
    """Return what the index has of a value; None when the field never has its kind."""
    value = literal.value
    if value is None:
        return None
    if isinstance(value, bool):
        return ("true" if value else "false") if "boolean" in field.kinds else None
    if isinstance(value, str):
        if "time" in field.kinds:
            return parse_time(value, "time")
        return value if "text" in field.kinds else None
    return value if "number" in field.kinds else None


def _listed(field: Field, found: Sequence[str | float], *, wanted: bool) -> Query:
    if "number" not in field.kinds or field.is_mixed:
        terms: list[str | float] = list(found)
    else:
        numbers = [float(value) for value in found]
        if field.single and wanted:
            return _listed_singles(field, numbers)
        # Another number may be the same double: which it is the values tell.
        sharp = [at for at in numbers if wanted or (not field.single and abs(at) < EXACT)]
        inside = [at for at in sharp if abs(at) <= field.limit]
        # In the index -0.0 is less than 0.0.
        terms = [sign for at in inside for sign in ((-0.0, 0.0) if at == 0 else (at,))]
    if not terms:
        return NOTHING if wanted else exists(field)
    query: Query = {"terms": {field.path: terms}}
    return query if wanted else without(field, query)


def _listed_singles(field: Field, numbers: Sequence[float]) -> Query:
    ranges = [_nearby(number, single_floats=True) for number in numbers]
    if len(ranges) > _MOST_RANGES:
        ranges = [(min(low for low, _ in ranges), max(high for _, high in ranges))]
    return some([_bounded(field, gte=low, lte=high) for low, high in ranges])


def _found(field: Field, kind: Kind, query: Query) -> Query:
    """Return what a query finds where the field is of that kind, and what none can find."""
    if kind not in field.kinds:
        return NOTHING
    return ANYTHING if field.is_mixed else some([query, *hidden(field)])


def _terms(field: Field, operator: Operator, text: str) -> Query:
    if operator in {"=", "!="}:
        query: Query = {"term": {field.path: {"value": text}}}
        return query if operator == "=" else without(field, query)
    return _range(field, operator, text)


def _range(field: Field, operator: Operator, value: Any) -> Query:
    match operator:
        case "=":
            bounds = {"gte": value, "lte": value}
        case "!=":
            return without(field, _range(field, "=", value))
        case "<":
            bounds = {"lt": value}
        case "<=":
            bounds = {"lte": value}
        case ">":
            bounds = {"gt": value}
        case ">=":
            bounds = {"gte": value}
        case _:
            assert_never(operator)
    return {"range": {field.path: bounds}}


def _number(field: Field, operator: Operator, value: float) -> Query:
    low, high = _nearby(value, single_floats=field.single)
    # In the index -0.0 is less than 0.0.
    low, high = (-0.0 if low == 0 else low), (0.0 if high == 0 else high)
    is_sharp = not field.single and abs(value) < EXACT
    if operator in {"=", "!="}:
        same = _bounded(field, gte=low, lte=high)
        if operator == "=":
            return same
        return without(field, same) if is_sharp else exists(field)
    if operator in {"<=", ">="}:
        return _bounded(field, **({"lte": high} if operator == "<=" else {"gte": low}))
    if is_sharp:
        return _bounded(field, **({"lt": low} if operator == "<" else {"gt": high}))
    return _bounded(field, **({"lte": high} if operator == "<" else {"gte": low}))


def _bounded(field: Field, **bounds: float) -> Query:
    kept = {name: at for name, at in bounds.items() if abs(at) <= field.limit}
    for name, at in bounds.items():
        if name not in kept and (at > 0) == name.startswith("g"):
            return NOTHING
    return {"range": {field.path: kept}} if kept else exists(field)


def _nearby(value: float, *, single_floats: bool) -> tuple[float, float]:
    """Return the doubles between which everything lies that may be equal to a number."""
    double = float(value)
    nearest = single(double) if single_floats else None
    if nearest is None:
        return double, double
    # Half a unit in the last of 24 bits, and half of the smallest float32.
    width = abs(nearest) * 2.0**-23 + 2.0**-149
    return min(double, nearest - width), max(double, nearest + width)


def _like(field: Field, like: Like, *, wanted: bool) -> Query:
    pattern = str(like.values[0].value)
    if sum(pattern.count(sign) for sign in "%_") > _MAX_SIGNS:
        return _found(field, "text", exists(field))
    signs = iter(pattern)
    text = "".join(
        _LITERAL.get(found := next(signs, ""), found)
        if sign == like.escape
        else _WILDCARDS.get(sign, sign)
        for sign in signs
    )
    # A wildcard of nothing finds nothing, not even an empty text.
    query: Query = {"wildcard" if text else "term": {field.path: {"value": text}}}
    return _found(field, "text", query if wanted else without(field, query))


def _null(field: Field, *, wanted: bool) -> Query:
    if field.is_mixed:
        return ANYTHING
    if wanted:
        return {"bool": {"must_not": [exists(field), *field.unfound]}}
    return some([exists(field), *hidden(field)])
