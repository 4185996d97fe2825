"""Cutting a ``where`` expression into tokens."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from sidelight.adapters.errors import WhereError

Value = int | float | str | bool | None

TokenKind = Literal["column", "value", "keyword", "symbol", "end"]

_KEYWORDS = frozenset({"and", "or", "not", "in", "between", "like", "escape", "is"})
_CONSTANTS: dict[str, Value] = {"true": True, "false": False, "null": None}

# Beyond 127 bits DuckDB has no integer; such a number is compared as a float, as in every file.
_INTEGER_LIMIT = 1 << 120

_PATTERN = re.compile(
    r"""
      (?P<space>\s+)
    | (?P<string>'(?:[^']|'')*')
    | (?P<number>[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)(?![\w.])
    | (?P<column>[^\W\d]\w*\.(?:"(?:[^"]|"")*"|\w+(?:\.\w+)*))
    | (?P<word>[^\W\d]\w*)
    | (?P<symbol><=|>=|!=|[=<>(),])
    """,
    re.VERBOSE,
)


_NAMES = ' (a name with such a character stands in quotes: features."a-b")'
_OF_NAMES = frozenset("-.:/[]#$&+@`")


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """One word of the language.

    Parameters
    ----------
    text : str
        As written; keywords in lower case.
    value : int, float, str, bool or None
        What a token of kind ``value`` stands for.
    name : tuple of str
        ``(section, name)`` of a token of kind ``column``; the section of a plain one is empty.

    """

    kind: TokenKind
    text: str
    position: int
    value: Value = None
    name: tuple[str, str] = ("", "")


def tokens(text: str) -> Iterator[Token]:
    """Yield the tokens of an expression, the last one of kind ``end``."""
    position = 0
    while position < len(text):
        match = _PATTERN.match(text, position)
        if match is None:
            raise WhereError(text, position, **_unreadable(text[position:]))
        if match.lastgroup != "space":
            yield _token(text, match)
        position = match.end()
    yield Token(kind="end", text="", position=len(text))


def _token(text: str, match: re.Match[str]) -> Token:
    found, position = match.group(), match.start()
    match match.lastgroup:
        case "string":
            value = found[1:-1].replace("''", "'")
            return Token(kind="value", text=found, position=position, value=value)
        case "number":
            return Token(
                kind="value", text=found, position=position, value=_number(text, position, found)
            )
        case "column":
            section, _, name = found.partition(".")
            if name.startswith('"'):
                name = name[1:-1].replace('""', '"')
            return Token(kind="column", text=found, position=position, name=(section.lower(), name))
        case "word":
            return _word(found, position)
    return Token(kind="symbol", text=found, position=position)


def _word(found: str, position: int) -> Token:
    lower = found.lower()
    if lower in _KEYWORDS:
        return Token(kind="keyword", text=lower, position=position)
    if lower in _CONSTANTS:
        return Token(kind="value", text=found, position=position, value=_CONSTANTS[lower])
    return Token(kind="column", text=found, position=position, name=("", lower))


def _number(text: str, position: int, found: str) -> int | float:
    if not any(character in found for character in ".eE"):
        integer = int(found)
        if abs(integer) < _INTEGER_LIMIT:
            return integer
    number = float(found)
    if not math.isfinite(number):
        raise WhereError(text, position, expected="a number within +-1.8e308", got=found)
    return number


def _unreadable(rest: str) -> dict[str, str]:
    if rest[0] == "'":
        return {"expected": "a closing ' (a quote inside is written '')", "got": "the end"}
    if rest.startswith('."'):
        return {"expected": 'a closing " (a quote inside is written "")', "got": "the end"}
    expected = "a column, a value, an operator or a parenthesis"
    if rest[0] == '"' or rest[0] in _OF_NAMES:
        expected += _NAMES
    return {"expected": expected, "got": ascii(rest[:10])}
