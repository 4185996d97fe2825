"""How long what belongs to a deployment is kept, and from when on it is too old."""

from collections.abc import Iterable
from typing import Final

_SECOND_US: Final = 1_000_000
_LONGEST_GRAIN_S: Final = 86_400.0
_GRAINS: Final = 24
_LONGEST_PAUSE_S: Final = 60.0
_SHORTEST_PAUSE_S: Final = 1.0


def cutoff_us(now_us: int, retention_s: float) -> int:
    """Return the time before which everything goes, microseconds since 1970 UTC.

    It moves in steps of a day, or of a 24th of a shorter retention: a file that holds old and
    young rows is written again once a step, not at every look.

    Examples
    --------
    >>> day = 86_400_000_000
    >>> cutoff_us(400 * day + 5, 365 * 86_400.0) // day
    35

    """
    grain_us = max(1, int(_grain_s(retention_s) * _SECOND_US))
    behind = now_us - int(retention_s * _SECOND_US)
    return behind - behind % grain_us


def pause_s(retentions_s: Iterable[float]) -> float:
    """Return how long to wait from one look to the next, in seconds.

    Examples
    --------
    >>> pause_s([365 * 86_400.0, 240.0])
    5.0

    """
    shortest = min((_grain_s(retention) / 2 for retention in retentions_s), default=60.0)
    return min(max(shortest, _SHORTEST_PAUSE_S), _LONGEST_PAUSE_S)


def _grain_s(retention_s: float) -> float:
    return min(_LONGEST_GRAIN_S, retention_s / _GRAINS)
