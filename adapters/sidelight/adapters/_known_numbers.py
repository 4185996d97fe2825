"""The numbers of a long array as doubles, without a Python object for each that lives on."""

import struct
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

LONG: Final = 1024
"""Bytes of a text from which on it is worth a parse of its own."""


class Numbers:
    """Reads the insides of arrays, each by itself: nothing of one can get into another.

    With pysimdjson (the extra ``simd``) numbers do not become objects at all. What it refuses is
    read again by orjson, so that both give the same.
    """

    def __init__(self) -> None:
        self._parse = _parser()

    def read(self, inside: bytes) -> NDArray[np.float64] | None:
        """Return the numbers between two brackets; None when there is anything else.

        Parameters
        ----------
        inside : bytes
            JSON values with commas between them.

        """
        text = b"[" + inside + b"]"
        # It would take the values of lists in it for those of the array.
        if self._parse is not None and b"[" not in inside:
            try:
                found = np.frombuffer(self._parse(text).as_buffer(of_type="d"))
            except (ValueError, TypeError, RuntimeError):
                # Also for what JSON allows: integers of more than 64 bits.
                pass
            else:
                return found if len(found) else None
        try:
            return packed(orjson.loads(text))
        except orjson.JSONDecodeError:
            return None


def packed(values: list[Any]) -> NDArray[np.float64] | None:
    """Return numbers as doubles; None when there are none, or something else is among them.

    A flag is 0 or 1, as in Arrow.
    """
    if not values:
        return None
    try:
        return np.frombuffer(struct.pack(f"{len(values)}d", *values))
    except (struct.error, OverflowError):
        return None


def _parser() -> Any:
    try:
        import simdjson  # noqa: PLC0415 - an extra
    except ImportError:
        return None
    return simdjson.Parser().parse
