"""JSON as model servers write it: NaN, Infinity, numbers beyond a double, halves of surrogates."""

import json
from typing import Any

import orjson

from sidelight.adapters.dialects._half import Undecodable


def lenient_json(data: bytes) -> Any:
    """Return the value.

    Raises
    ------
    Undecodable
        ``too_deep``, or ``not_json``.

    Examples
    --------
    >>> lenient_json(b'[NaN, 1]')
    [nan, 1]

    """
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        pass
    try:
        value = json.loads(data)
        return sound_value(value) if b"\\" in data else value
    except RecursionError:
        raise Undecodable("too_deep") from None
    except ValueError:
        raise Undecodable("not_json") from None


def sound_value(value: Any) -> Any:
    """Replace halves of surrogate pairs, which no UTF-8 can hold and no column."""
    text = json.dumps(value, ensure_ascii=False)
    if text.isascii():
        return value
    return json.loads(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
