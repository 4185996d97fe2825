"""Turning a ``where`` expression into a query of Elasticsearch or OpenSearch.

The query finds every document that may fulfil the expression, and few others: numbers are doubles
in the index, long texts and many columns are not in it at all. ``_where_rows`` decides on what was
found. No text of the user becomes a part of any syntax: a query is a tree of values.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
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
from sidelight.adapters._where_rows import rounded_single
from sidelight.adapters._where_sql import Kind

Query = dict[str, Any]

NOTHING: Final[Query] = {"match_none": {}}
ANYTHING: Final[Query] = {"match_all": {}}

_OPPOSITE: Final[dict[Operator, Operator]] = {
    "=": "!=",
    "!=": "=",
    "<": ">=",
    ">=": "<",
    ">": "<=",
    "<=": ">",
}
# Beyond it several whole numbers are one double.
_EXACT: Final = 1 << 53
# More signs make an automaton that a server refuses to build.
_MAX_SIGNS: Final = 30
_LITERAL: Final = {"*": "\\*", "?": "\\?", "\\": "\\\\"}
_WILDCARDS: Final = {"%": "*", "_": "?", **_LITERAL}


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """How a column stands in the index.

    Parameters
    ----------
    path : str
        Of the field.
    kinds : frozenset of Kind
        Every kind that its values have anywhere. With more than one, an index may hold one in the
        field of another, and only the values as they were stored tell.
    single : bool
        Whether some of it are float32.
    limit : float, default infinite
        Largest magnitude of a number that the field takes, also in a query.
    unfound : sequence of queries
        Documents that have a value which the index does not find.
    doubtful : sequence of queries
        Documents that may have one.

    """

    path: str
    kinds: frozenset[Kind]
    single: bool = False
    limit: float = math.inf
    unfound: tuple[Query, ...] = ()
    doubtful: tuple[Query, ...] = ()

    @property
    def is_mixed(self) -> bool:
        """Whether an index may have made something else of a value: of an empty text nothing."""
        return len(self.kinds - {"other"}) > 1


def candidates(expression: Expression, field_of: Callable[[ColumnName], Field]) -> Query:
    """Return a query for every document of which the expression may be true."""
    return _Writer(field_of).true(expression)


class _Writer:
    """Writes what may be true and, under a negation, what may be false; unknown is neither."""

    def __init__(self, field_of: Callable[[ColumnName], Field]) -> None:
        self._field_of = field_of

    def true(self, expression: Expression) -> Query:
        return self._write(expression, wanted=True)

    def _write(self, expression: Expression, *, wanted: bool) -> Query:
        match expression:
            case Joined():
                parts = [self._write(item, wanted=wanted) for item in expression.operands]
                return _every(parts) if (expression.word == "and") == wanted else _some(parts)
            case Not():
                return self._write(expression.operand, wanted=not wanted)
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
                return _every([low, high]) if wanted else _some([low, high])
            case Like(escape=""):
                return _like(field, predicate, wanted=wanted)
            case Like():
                return _like(field, predicate, wanted=wanted)
            case Membership():
                parts = [_compared(field, "=", value, wanted=wanted) for value in values]
                return _some(parts) if wanted else _every(parts)
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


def _found(field: Field, kind: Kind, query: Query) -> Query:
    """Return what a query finds where the field is of that kind, and what none can find."""
    if kind not in field.kinds:
        return NOTHING
    return ANYTHING if field.is_mixed else _some([query, *_hidden(field)])


def _terms(field: Field, operator: Operator, text: str) -> Query:
    if operator in {"=", "!="}:
        query: Query = {"term": {field.path: {"value": text}}}
        return query if operator == "=" else _without(field, query)
    return _range(field, operator, text)


def _range(field: Field, operator: Operator, value: Any) -> Query:
    match operator:
        case "=":
            bounds = {"gte": value, "lte": value}
        case "!=":
            return _without(field, _range(field, "=", value))
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
    low, high = _nearby(value, single=field.single)
    # In the index -0.0 is less than 0.0.
    low, high = (-0.0 if low == 0 else low), (0.0 if high == 0 else high)
    is_sharp = not field.single and (isinstance(value, float) or abs(value) < _EXACT)
    if operator in {"=", "!="}:
        same = _bounded(field, gte=low, lte=high)
        if operator == "=":
            return same
        return _without(field, same) if is_sharp else _exists(field)
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
    return {"range": {field.path: kept}} if kept else _exists(field)


def _nearby(value: float, *, single: bool) -> tuple[float, float]:
    """Return the doubles between which everything lies that may be equal to a number."""
    double = float(value)
    if not single:
        return double, double
    try:
        nearest = rounded_single(double)
    except OverflowError:
        return double, double
    # Half a unit in the last of 24 bits, and half of the smallest float32.
    width = abs(nearest) * 2.0**-23 + 2.0**-149
    return min(double, nearest - width), max(double, nearest + width)


def _like(field: Field, like: Like, *, wanted: bool) -> Query:
    pattern = str(like.values[0].value)
    if sum(pattern.count(sign) for sign in "%_") > _MAX_SIGNS:
        return _found(field, "text", _exists(field))
    signs = iter(pattern)
    text = "".join(
        _LITERAL.get(found := next(signs, ""), found)
        if sign == like.escape
        else _WILDCARDS.get(sign, sign)
        for sign in signs
    )
    query: Query = {"wildcard": {field.path: {"value": text}}}
    return _found(field, "text", query if wanted else _without(field, query))


def _null(field: Field, *, wanted: bool) -> Query:
    if field.is_mixed:
        return ANYTHING
    if wanted:
        return {"bool": {"must_not": [_exists(field), *field.unfound]}}
    return _some([_exists(field), *_hidden(field)])


def _exists(field: Field) -> Query:
    return {"exists": {"field": field.path}}


def _hidden(field: Field) -> list[Query]:
    return [*field.unfound, *field.doubtful]


def _without(field: Field, query: Query) -> Query:
    return {"bool": {"filter": [_exists(field)], "must_not": [query]}}


def _every(parts: list[Query]) -> Query:
    return NOTHING if NOTHING in parts else {"bool": {"filter": parts}}


def _some(parts: list[Query]) -> Query:
    parts = [part for part in parts if part != NOTHING]
    if not parts:
        return NOTHING
    if len(parts) == 1:
        return parts[0]
    return {"bool": {"should": parts, "minimum_should_match": 1}}
