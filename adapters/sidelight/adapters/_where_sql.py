"""Turning a ``where`` expression into DuckDB SQL with parameters.

No value and no name of the user ever becomes part of the SQL text: values are parameters, and a
column is the SQL that the caller gives for it.
"""

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, assert_never

from sidelight.adapters._query_time import parse_time, timestamp_sql
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
    predicates,
)
from sidelight.adapters._where_numbers import EXACT, single, whole
from sidelight.adapters._where_tokens import Value
from sidelight.adapters.errors import QueryError, WhereError

Kind = Literal["number", "text", "boolean", "time", "other"]

_WORDS: dict[Kind, str] = {
    "number": "a number",
    "text": "a 'string'",
    "boolean": "true or false",
    "time": "a 'time' (RFC 3339)",
    "other": "is null or is not null (lists and bytes have no other comparison)",
}
_MOST_NAMES = 5
_UNKNOWN = "CAST(NULL AS BOOLEAN)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """How one column is read.

    Parameters
    ----------
    sql : mapping of kind to str
        The column's value as each kind that it can have here; a value of another kind, and a
        missing column, is unknown.
    single : bool
        Whether numbers are float32, so that a literal is rounded like them: ``0.1`` finds what
        was sent as 0.1.
    exact : str
        A whole number that no double holds, as one of 128 bits; null for every other number.
        Empty where ``sql`` has numbers exactly.

    """

    sql: Mapping[Kind, str] = field(default_factory=dict)
    single: bool = False
    exact: str = ""


def check(
    text: str,
    expression: Expression,
    kinds: Callable[[ColumnName], Iterable[Kind] | None],
    candidates: Callable[[ColumnName], Iterable[str]],
) -> None:
    """Raise ``WhereError`` for a column that does not exist or a value that it cannot have.

    Parameters
    ----------
    kinds : callable
        Every kind that a column has anywhere; empty when nothing is known yet, None when there
        is no such column.
    candidates : callable
        Names that an unknown column may have meant.

    """
    for predicate in predicates(expression):
        known = kinds(predicate.column)
        if known is None:
            names = sorted(set(candidates(predicate.column)))
            # Whoever forgets the section meant one of these.
            near = [name for name in names if name.endswith(f".{predicate.column.name}")]
            near += difflib.get_close_matches(str(predicate.column), names, n=5, cutoff=0.5)
            near = list(dict.fromkeys(near))[:_MOST_NAMES]
            expected = ", ".join(near or names[:8]) or "a known column"
            raise WhereError(
                text,
                predicate.position,
                expected=f"a known column such as {expected}",
                got=str(predicate.column),
            )
        allowed = set(known)
        for value in predicate.values:
            _check_value(text, predicate, value, allowed)


def _check_value(text: str, predicate: AnyPredicate, value: Literals, allowed: set[Kind]) -> None:
    kind = _kind(value)
    if kind is None or not allowed:
        return
    if kind == "text" and "time" in allowed and not isinstance(predicate, Like):
        try:
            parse_time(str(value.value), "time")
        except QueryError as error:
            raise WhereError(
                text, value.position, expected=error.expected, got=value.text
            ) from None
        return
    if kind not in allowed:
        expected = " or ".join(_WORDS[item] for item in sorted(allowed))
        raise WhereError(text, value.position, expected=expected, got=value.text)
    ordering = isinstance(predicate, Between) or (
        isinstance(predicate, Comparison) and predicate.operator not in {"=", "!="}
    )
    if kind == "boolean" and ordering:
        raise WhereError(
            text, value.position, expected="= or != with true and false", got=value.text
        )


def to_sql(expression: Expression, source: Callable[[ColumnName], Source]) -> tuple[str, list[Any]]:
    """Return a boolean SQL expression and its parameters."""
    parameters: list[Any] = []
    return _Writer(source, parameters).write(expression), parameters


class _Writer:
    def __init__(self, source: Callable[[ColumnName], Source], parameters: list[Any]) -> None:
        self._source = source
        self._parameters = parameters

    def write(self, expression: Expression) -> str:
        match expression:
            case Joined():
                joint = f" {expression.word.upper()} "
                return "(" + joint.join(self.write(item) for item in expression.operands) + ")"
            case Not():
                return f"(NOT {self.write(expression.operand)})"
            case _:
                sql = self._predicate(expression)
                return f"(NOT {sql})" if expression.negated else sql

    def _predicate(self, predicate: AnyPredicate) -> str:
        column, values = predicate.column, predicate.values
        match predicate:
            case IsNull():
                return self._is_null(column)
            case Comparison():
                return self._compare(column, predicate.operator, values[0])
            case Between():
                low = self._compare(column, ">=", values[0])
                return f"({low} AND {self._compare(column, '<=', values[1])})"
            case Like():
                return self._like(predicate)
            case Membership():
                return self._membership(predicate)
        assert_never(predicate)

    def _is_null(self, name: ColumnName) -> str:
        columns = self._source(name).sql.values()
        # What no file holds is null everywhere.
        return "(" + (" AND ".join(f"{column} IS NULL" for column in columns) or "TRUE") + ")"

    def _compare(self, column: ColumnName, operator: str, value: Literals) -> str:
        source = self._source(column)
        return self._compared(source, "<>" if operator == "!=" else operator, value)

    def _compared(self, source: Source, operator: str, value: Literals) -> str:
        found = self._operand(source, value)
        if found is None:
            return _UNKNOWN
        kind, operand = found
        sql = f"({source.sql[kind]} {operator} {operand})"
        if not _is_beyond_doubles(source, value):
            return sql
        self._parameters.append(self._parameters[-1])
        exact = f"({source.exact} {operator} CAST(? AS HUGEINT))"
        return f"(CASE WHEN {source.exact} IS NULL THEN {sql} ELSE {exact} END)"

    def _like(self, like: Like) -> str:
        source = self._source(like.column)
        if "text" not in source.sql:
            return _UNKNOWN
        self._parameters.append(like.values[0].value)
        if not like.escape:
            return f"({source.sql['text']} LIKE ?)"
        self._parameters.append(like.escape)
        return f"({source.sql['text']} LIKE ? ESCAPE ?)"

    def _membership(self, membership: Membership) -> str:
        source = self._source(membership.column)
        parts: list[str] = []
        alone: list[Literals] = []
        lists: dict[tuple[Kind, type], list[Literals]] = {}
        for value in membership.values:
            kind = _kind_for(source, value)
            if kind is None or _is_beyond_doubles(source, value):
                alone.append(value)
            else:
                # DuckDB takes whole numbers beside a float for floats.
                lists.setdefault((kind, type(_value(value))), []).append(value)
        # Parameters follow the order of the text, so one kind's values come after another's.
        for (kind, _), values in lists.items():
            operands = [found[1] for value in values if (found := self._operand(source, value))]
            parts.append(f"{source.sql[kind]} IN ({', '.join(operands)})")
        parts += [self._compared(source, "=", value) for value in alone]
        return f"({' OR '.join(parts)})"

    def _operand(self, source: Source, value: Literals) -> tuple[Kind, str] | None:
        kind = _kind_for(source, value)
        if kind is None:
            return None
        if kind == "time":
            return kind, timestamp_sql(parse_time(str(value.value), "time"))
        item = _value(value)
        if kind == "number" and source.single and isinstance(item, int | float):
            nearest = single(item)
            self._parameters.append(float(item) if nearest is None else nearest)
            return kind, "?" if nearest is None else "CAST(? AS FLOAT)"
        self._parameters.append(item)
        return kind, "?"


def _value(literal: Literals) -> Value:
    """Return the value of a literal; a whole number as ``int``, however it is written."""
    value = literal.value
    return whole(value) if isinstance(value, float) else value


def _is_beyond_doubles(source: Source, literal: Literals) -> bool:
    value = _value(literal)
    return (
        bool(source.exact)
        and _kind(literal) == "number"
        and type(value) is int
        and (abs(value) >= EXACT)
    )


def _kind(value: Literals) -> Kind | None:
    match value.value:
        case None:
            return None
        case bool():
            return "boolean"
        case str():
            return "text"
        case _:
            return "number"


def _kind_for(source: Source, value: Literals) -> Kind | None:
    kind = _kind(value)
    if kind == "text" and "time" in source.sql:
        return "time"
    return kind if kind in source.sql else None
