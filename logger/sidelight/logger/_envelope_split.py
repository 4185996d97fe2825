"""Taking JSON apart where strict parsers give up: NaN, lone surrogates, bottomless nesting.

One level is taken apart without recursion, so that neither a payload that only its model
understands nor a hostile one costs its neighbours anything, and its bytes stay as sent.
"""

import json
import re
from collections.abc import Iterator
from itertools import islice
from typing import Final

from sidelight.logger.errors import EnvelopeError

# An unterminated string matches to the end, so that no text is scanned twice.
_TOKEN: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?|[\[\]{},]', re.DOTALL)
_KEY: Final = re.compile(rb'\s*("[^"\\]*(?:\\.[^"\\]*)*")\s*:', re.DOTALL)
_WHITE: Final = b" \t\r\n"
_OPENING: Final = frozenset(b"[{")
_CLOSING: Final = frozenset(b"]}")
_COMMA: Final = 0x2C

# About a third of a second of work; more is no event but an attack.
_MAX_TOKENS: Final = 2_000_000


def split_array(text: bytes, *, most: int | None = None) -> list[bytes]:
    """Return the members of a JSON array, each as written; raise ``EnvelopeError`` if it is none.

    With ``most`` it stops at one more than that.

    Examples
    --------
    >>> split_array(b'[ {"a": NaN}, [1, 2] ]')
    [b'{"a": NaN}', b'[1, 2]']

    """
    members = _elements(text, b"[]", "a JSON array of events")
    return list(members if most is None else islice(members, most + 1))


def split_object(text: bytes) -> dict[str, bytes]:
    """Return the values of a JSON object, each as written; raise ``EnvelopeError`` if it is none.

    Examples
    --------
    >>> split_object(b'{"id": "1", "data": [NaN]}')
    {'id': b'"1"', 'data': b'[NaN]'}

    """
    fields: dict[str, bytes] = {}
    for element in _elements(text, b"{}", "a JSON object"):
        key = _KEY.match(element)
        if key is None:
            raise _malformed("a name before each value", element)
        value = element[key.end() :].strip(_WHITE)
        _check(value)
        fields[_name(key[1])] = value
    return fields


def sound_text(text: str) -> str:
    """Replace lone surrogates, which no UTF-8 can hold."""
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _elements(text: bytes, brackets: bytes, expected: str) -> Iterator[bytes]:
    body = text.strip(_WHITE)
    if len(body) < len(brackets) or body[0] != brackets[0] or body[-1] != brackets[1]:
        raise EnvelopeError("body", expected=expected, got=_shape(body))
    inner = body[1:-1]
    if not inner.strip(_WHITE):
        return
    depth = start = 0
    for count, token in enumerate(_TOKEN.finditer(inner)):
        byte = inner[token.start()]
        if byte in _OPENING:
            depth += 1
        elif byte in _CLOSING:
            depth -= 1
        elif byte == _COMMA and not depth:
            yield inner[start : token.start()].strip(_WHITE)
            start = token.end()
        if depth < 0 or count > _MAX_TOKENS:
            raise _malformed(expected, body)
    if depth:
        raise _malformed(expected, body)
    yield inner[start:].strip(_WHITE)


def _check(value: bytes) -> None:
    try:
        json.loads(value)
    except RecursionError:
        # Too deep for us to read; whose it is and what it was is still worth keeping.
        return
    except ValueError:
        raise _malformed("JSON", value) from None


def _name(raw: bytes) -> str:
    try:
        return sound_text(str(json.loads(raw)))
    except ValueError:
        raise _malformed("a name in UTF-8", raw) from None


def _shape(body: bytes) -> str:
    kinds = {0x7B: "an object", 0x5B: "an array", 0x22: "a string"}
    return kinds.get(body[0], "something else") if body else "nothing"


def _malformed(expected: str, body: bytes) -> EnvelopeError:
    return EnvelopeError("body", expected=expected, got=f"{len(body)} malformed bytes")
