"""JSON that is read to be written again, without a value changing that nobody asked to change."""

import json
import re
from typing import Any, Final

import orjson

# orjson makes floats of integers beyond 64 bits.
_LONG_INTEGER: Final = re.compile(rb"(?<![.\d])\d{19}")


def read_json(text: bytes) -> tuple[Any, bool]:
    """Return the value, and whether the text is JSON for strict parsers.

    ``NaN``, ``Infinity``, integers beyond 64 bits and lone surrogates are read as well, as other
    parsers read them. Of a key that is there twice the last value counts.

    Raises
    ------
    ValueError
        When it is no JSON, nests too deeply, or is not UTF-8; the message tells nothing of it.

    Examples
    --------
    >>> read_json(b'[1, NaN]')
    ([1, nan], False)

    """
    if _LONG_INTEGER.search(text) is None:
        try:
            return orjson.loads(text), True
        except orjson.JSONDecodeError:
            pass
    try:
        return json.loads(text.decode()), False
    except (ValueError, RecursionError):
        raise ValueError("expected JSON, got something else") from None


def write_json(value: Any, *, is_strict: bool) -> bytes:
    """Return the text of what ``read_json`` gave; ``is_strict`` as it was given.

    Examples
    --------
    >>> write_json([1, float("nan"), 1 << 70], is_strict=False)
    b'[1,NaN,1180591620717411303424]'

    """
    if is_strict:
        return orjson.dumps(value)
    return json.dumps(value, separators=(",", ":")).encode()
