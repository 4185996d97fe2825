"""Bounds on what the live model is asked, shared by all explanations."""

from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock

from sidelight.explainers.errors import ParameterError


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Caps on the load of the live model, across all explanations together.

    Parameters
    ----------
    calls_in_flight : int, default 4
        Requests open at the same time.
    rows_per_second : float, default 20000
        Rows sent, averaged over any second; one call of ``rows_per_call`` may come on top.
    rows_per_call : int, default 1024
        Rows in one request.
    bytes_per_call : int, default 1 MiB
        About the size of one request body; a single row larger than this is still sent.
    call_timeout_s : float, default 30
        Seconds that one call may take, when the deadline leaves more.
    cached_rows : int, default 100000
        Answers remembered across explanations, about 250 bytes each.

    Raises
    ------
    ParameterError
        If one of them is not above zero (``cached_rows`` may be zero).

    """

    calls_in_flight: int = 4
    rows_per_second: float = 20_000.0
    rows_per_call: int = 1_024
    bytes_per_call: int = 1 << 20
    call_timeout_s: float = 30.0
    cached_rows: int = 100_000

    def __post_init__(self) -> None:
        """Reject caps that would let nothing through."""
        for name in self.__slots__:
            value = getattr(self, name)
            if not (value > 0 or (value == 0 and name == "cached_rows")):
                raise ParameterError(name, value, "above zero")

    @property
    def rows_at_once(self) -> int:
        """Rows of one chunk: a slow pace sends smaller calls, not calls with long pauses."""
        return max(1, min(self.rows_per_call, int(self.rows_per_second)))


class Pace:
    """Tells how long to wait so that rows go out at no more than a given rate.

    The generic cell rate algorithm (ITU-T I.371) without tolerance: each booking moves the
    time from which the next one may be sent.
    """

    def __init__(self, rows_per_second: float, clock: Callable[[], float]) -> None:
        self._seconds_per_row = 1.0 / rows_per_second
        self._clock = clock
        self._free_at = clock()
        self._lock = Lock()

    def book(self, n_rows: int, *, until: float) -> float | None:
        """Return the seconds to wait before sending, or None when that ends after ``until``."""
        with self._lock:
            now = self._clock()
            start = max(now, self._free_at)
            if start >= until:
                return None
            self._free_at = start + n_rows * self._seconds_per_row
            return start - now
