"""When a sink that fails is asked again, and how much it is given then."""

import random
from typing import Final, Literal

CircuitState = Literal["closed", "open", "half_open"]

_FIRST_BACKOFF_S: Final = 0.1
_MAX_DOUBLINGS: Final = 16


class Circuit:
    """A circuit breaker with exponential back-off and full jitter.

    Closed, it lets everything through and pauses after each failure. After several failures in a
    row it opens: nothing is tried until the pause is over, then it is half open for one small
    batch, which closes it or opens it again.

    Parameters
    ----------
    open_after : int
        Failures in a row that open it.
    longest_s : float
        Bound of every pause, seconds.
    seed : int or str, optional
        Of the jitter.

    Attributes
    ----------
    state : "closed", "open" or "half_open"
    n_failures : int
        In a row.
    n_openings : int
        How often it went from closed to open.

    Examples
    --------
    >>> circuit = Circuit(open_after=1, longest_s=10.0, seed=1)
    >>> 0 <= circuit.fail() <= 0.1
    True
    >>> circuit.probe()
    >>> circuit.state
    'half_open'
    >>> circuit.succeed()
    >>> circuit.state, circuit.n_openings
    ('closed', 1)

    """

    def __init__(self, *, open_after: int, longest_s: float, seed: int | str | None = None) -> None:
        self.state: CircuitState = "closed"
        self.n_failures = 0
        self.n_openings = 0
        self._open_after = open_after
        self._longest_s = longest_s
        self._random = random.Random(seed)  # noqa: S311 - jitter, not a secret

    @property
    def is_closed(self) -> bool:
        """Whether whole batches go through."""
        return self.state == "closed"

    def fail(self, retry_after_s: float | None = None) -> float:
        """Count a failure; return how long to pause, seconds.

        Parameters
        ----------
        retry_after_s : float, optional
            What the sink asked for, seconds; the pause is not shorter, but within the bound.

        """
        pause_s = self.pause_s(self._longest_s)
        self.n_failures += 1
        if self.state == "half_open":
            self.state = "open"
        elif self.is_closed and self.n_failures >= self._open_after:
            self.state = "open"
            self.n_openings += 1
        if retry_after_s is None:
            return pause_s
        # "0" must not make a loop that takes the processor from the traffic.
        return min(self._longest_s, max(pause_s, retry_after_s))

    def pause_s(self, longest_s: float) -> float:
        """Return a random pause that may become longer with each failure, seconds."""
        doublings = min(self.n_failures, _MAX_DOUBLINGS)
        longest_s = min(longest_s, self._longest_s)
        return self._random.uniform(0, min(longest_s, _FIRST_BACKOFF_S * 2**doublings))

    def probe(self) -> None:
        """Let a small batch through; the pause is over."""
        if self.state == "open":
            self.state = "half_open"

    def succeed(self) -> None:
        """Close it: the sink has taken something."""
        self.state = "closed"
        self.n_failures = 0
