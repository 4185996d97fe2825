"""Durations and sizes as people write them in YAML: the unit stands in the value."""

import re
from typing import Annotated

from pydantic import BeforeValidator

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_QUANTITY = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*")


def seconds(value: object) -> float:
    """Read a duration.

    Raises
    ------
    ValueError
        If it has no number, no unit or another unit than ms, s, m, h, d.

    Examples
    --------
    >>> seconds("1.5m")
    90.0

    """
    match = _QUANTITY.fullmatch(value) if isinstance(value, str) else None
    if match is None or match[2] not in _SECONDS:
        raise ValueError(
            f"expected a duration with its unit (ms, s, m, h, d) as in 60s, got {value!r}"
        )
    return float(match[1]) * _SECONDS[match[2]]


def size_bytes(value: object) -> int:
    """Read a size in bytes; a bare number is bytes.

    Examples
    --------
    >>> size_bytes("16MiB")
    16777216

    """
    match = _QUANTITY.fullmatch(str(value)) if isinstance(value, str | int) else None
    if match is None or match[2] not in _BYTES or isinstance(value, bool):
        raise ValueError(f"expected a size such as 16MiB (KiB, MiB, GiB, TiB), got {value!r}")
    return int(float(match[1]) * _BYTES[match[2]])


def or_seconds(value: object) -> object:
    """Read a duration, or leave a number of seconds as it is."""
    # A default of ours is already in seconds.
    return value if isinstance(value, float) else seconds(value)


Duration = Annotated[float, BeforeValidator(or_seconds)]
Size = Annotated[int, BeforeValidator(size_bytes)]
