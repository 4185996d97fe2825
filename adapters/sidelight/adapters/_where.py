"""The ``where`` language: a small safe part of SQL.

::

    expression := term { "or" term }
    term       := factor { "and" factor }
    factor     := "not" factor | "(" expression ")" | predicate
    predicate  := column ( "=" | "!=" | "<" | "<=" | ">" | ">=" ) value
                | column ["not"] "in" "(" value { "," value } ")"
                | column ["not"] "between" value "and" value
                | column ["not"] "like" string [ "escape" string ]
                | column "is" ["not"] "null"
    column     := ("features" | "outputs" | "labels") "." name | a column of the inference
    value      := number | 'string' | true | false | null

A name with other characters than letters, digits and ``_ .`` stands in double quotes:
``features."a b"``. Logic has three values, as in SQL: what is missing is neither equal nor unequal.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from sidelight.adapters._where_tokens import Token, Value, tokens
from sidelight.adapters.errors import WhereError

MAX_LENGTH = 4096
"""Characters of an expression."""

MAX_NESTING = 64
"""Parentheses and negations around one predicate."""

SECTIONS = ("features", "outputs", "labels")

_ESCAPE = re.compile(r"[!-$&-^`-~ ]")

Operator = Literal["=", "!=", "<", "<=", ">", ">="]

_OPERATORS: dict[str, Operator] = {
    operator: operator for operator in ("=", "!=", "<", "<=", ">", ">=")
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnName:
    """A column as it was named; ``section`` is empty for the inference's own columns."""

    section: str
    name: str

    def __str__(self) -> str:
        return f"{self.section}.{self.name}" if self.section else self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Literals:
    """A value in the text, and where it stands."""

    value: Value
    text: str
    position: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Predicate:
    """What every comparison of one column has."""

    column: ColumnName
    position: int
    values: tuple[Literals, ...] = ()
    negated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison(Predicate):
    """``column operator value``."""

    operator: Operator


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership(Predicate):
    """``column in (values)``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Between(Predicate):
    """``column between low and high``, both included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Like(Predicate):
    """``column like pattern``: ``%`` stands for any text, ``_`` for one character.

    Behind ``escape`` (one ASCII character, empty for none) both stand for themselves.
    """

    escape: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class IsNull(Predicate):
    """``column is null``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Not:
    """``not operand``."""

    operand: "Expression"


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """Operands joined by ``and`` or by ``or``."""

    word: Literal["and", "or"]
    operands: tuple["Expression", ...]


AnyPredicate = Comparison | Membership | Between | Like | IsNull
Expression = AnyPredicate | Not | Joined


def parse(text: str) -> Expression:
    """Read an expression.

    Raises
    ------
    WhereError
        If the text is no expression of the language, is longer than ``MAX_LENGTH`` characters or
        nests deeper than ``MAX_NESTING``.

    Examples
    --------
    >>> parse("features.distance > 1000").column.name
    'distance'

    """
    if len(text) > MAX_LENGTH:
        got = f"{len(text)} characters"
        raise WhereError(
            text[:80], 80, expected=f"an expression of at most {MAX_LENGTH} characters", got=got
        )
    for position, character in enumerate(text):
        if "\ud800" <= character <= "\udfff":
            raise WhereError(text, position, expected="valid Unicode", got=ascii(character))
    return _Parser(text).whole()


def predicates(expression: Expression) -> Iterator[AnyPredicate]:
    """Yield every comparison of a column, from left to right."""
    match expression:
        case Not():
            yield from predicates(expression.operand)
        case Joined():
            for operand in expression.operands:
                yield from predicates(operand)
        case _:
            yield expression


class _Parser:
    """Recursive descent; one token of look-ahead."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = list(tokens(text))
        self._index = 0
        self._depth = 0

    def whole(self) -> Expression:
        expression = self._joined("or")
        if self._next.kind != "end":
            raise self._error("and, or, or the end")
        return expression

    @property
    def _next(self) -> Token:
        return self._tokens[self._index]

    def _error(self, expected: str) -> WhereError:
        token = self._next
        got = token.text if token.kind != "end" else "the end"
        return WhereError(self._text, token.position, expected=expected, got=got)

    def _accept(self, text: str) -> bool:
        token = self._next
        if token.kind in {"symbol", "keyword"} and token.text == text:
            self._index += 1
            return True
        return False

    def _expect(self, text: str) -> None:
        if not self._accept(text):
            raise self._error(text)

    def _joined(self, word: Literal["and", "or"]) -> Expression:
        operands = [self._operand(word)]
        while self._accept(word):
            operands.append(self._operand(word))
        return operands[0] if len(operands) == 1 else Joined(word=word, operands=tuple(operands))

    def _operand(self, word: Literal["and", "or"]) -> Expression:
        return self._joined("and") if word == "or" else self._factor()

    def _factor(self) -> Expression:
        self._depth += 1
        if self._depth > MAX_NESTING:
            raise self._error(f"at most {MAX_NESTING} parentheses and negations inside each other")
        expression: Expression
        if self._accept("not"):
            expression = Not(operand=self._factor())
        elif self._accept("("):
            expression = self._joined("or")
            self._expect(")")
        else:
            expression = self._predicate()
        self._depth -= 1
        return expression

    def _predicate(self) -> Expression:
        column, position = self._column()
        token = self._next
        if token.kind == "symbol" and token.text in _OPERATORS:
            self._index += 1
            return Comparison(
                column=column,
                position=position,
                operator=_OPERATORS[token.text],
                values=(self._value(),),
            )
        if self._accept("is"):
            negated = self._accept("not")
            if self._next.kind != "value" or self._next.value is not None:
                raise self._error("null")
            self._index += 1
            return IsNull(column=column, position=position, negated=negated)
        negated = self._accept("not")
        if self._accept("in"):
            return Membership(
                column=column, position=position, negated=negated, values=self._list()
            )
        if self._accept("between"):
            low = self._value()
            self._expect("and")
            values = (low, self._value())
            return Between(column=column, position=position, negated=negated, values=values)
        if self._accept("like"):
            pattern = self._pattern()
            escape = self._escape(pattern) if self._accept("escape") else ""
            return Like(
                column=column,
                position=position,
                negated=negated,
                values=(pattern,),
                escape=escape,
            )
        if not negated and token.kind == "column":
            raise self._error(
                f'an operator, or quotes around a name: {column.section or "features"}."a b"'
            )
        raise self._error("in, between or like" if negated else "an operator such as = or in")

    def _column(self) -> tuple[ColumnName, int]:
        token = self._next
        if token.kind != "column":
            raise self._error("a column")
        section, name = token.name
        if section and section not in SECTIONS:
            raise self._error("a column of features, outputs or labels")
        self._index += 1
        return ColumnName(section=section, name=name), token.position

    def _value(self) -> Literals:
        token = self._next
        if token.kind != "value":
            raise self._error("a number, a 'string', true, false or null")
        self._index += 1
        return Literals(value=token.value, text=token.text, position=token.position)

    def _pattern(self) -> Literals:
        if self._next.kind != "value" or not isinstance(self._next.value, str):
            raise self._error("a 'pattern' with % and _")
        return self._value()

    def _escape(self, pattern: Literals) -> str:
        token = self._next
        sign = token.value if token.kind == "value" else None
        if not isinstance(sign, str) or not _ESCAPE.fullmatch(sign):
            raise self._error("one ASCII character in quotes, neither % nor _")
        self._index += 1
        rest = str(pattern.value).replace(sign * 2, "")
        for part in rest.split(sign)[1:]:
            if part[:1] not in {"%", "_"}:
                raise WhereError(
                    self._text,
                    pattern.position,
                    expected=f"% or _ or {sign} behind each {sign}",
                    got=pattern.text,
                )
        return sign

    def _list(self) -> tuple[Literals, ...]:
        self._expect("(")
        values = [self._value()]
        while self._accept(","):
            values.append(self._value())
        self._expect(")")
        return tuple(values)
