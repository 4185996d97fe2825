"""Numbers of a ``where`` expression as the columns hold them, so that equal ones are found."""

import struct
from typing import Final

# Literals beyond are floats, and so are whole numbers of DuckDB beyond 127 bits.
_WHOLE_LIMIT: Final = 1 << 120

EXACT: Final = 1 << 53
"""Beyond it several whole numbers are one double."""


def whole(value: float) -> int | float:
    """Return a whole number as ``int``, so that it compares exactly with others; else the value.

    Examples
    --------
    >>> whole(9007199254740994.0), whole(0.5)
    (9007199254740994, 0.5)

    """
    return int(value) if value == value // 1 and abs(value) < _WHOLE_LIMIT else value


def single(value: float) -> float | None:
    """Return the float32 that is nearest to a number; None beyond its range.

    Examples
    --------
    >>> single(0.1), single(1e39)
    (0.10000000149011612, None)

    """
    try:
        # Without an order of bytes a number beyond the range becomes infinite.
        return float(struct.unpack("<f", struct.pack("<f", value))[0])
    except OverflowError:
        return None
