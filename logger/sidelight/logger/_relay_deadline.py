"""One timer for many waits: it looks when it is due, instead of being made and ended for each."""

import asyncio
from collections.abc import Callable


class Deadline:
    """Calls back when one wait took too long.

    Most waits end long before. So the timer of the first one is left alone when that ends, and
    asks the clock for a later wait when it is due.

    Parameters
    ----------
    expired : callable
        Called at most once for each wait.
    """

    __slots__ = ("_due", "_expired", "_loop", "_timer")

    def __init__(self, expired: Callable[[], None]) -> None:
        self._expired = expired
        self._loop = asyncio.get_running_loop()
        self._due: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, seconds: float) -> None:
        """Wait so long; a wait before ends."""
        self._due = self._loop.time() + seconds
        timer = self._timer
        if timer is not None and timer.when() <= self._due:
            return
        if timer is not None:
            timer.cancel()
        self._timer = self._loop.call_at(self._due, self._look)

    def end(self) -> None:
        """Wait no longer."""
        self._due = None

    def close(self) -> None:
        """Wait no longer, and never again: nothing is left in the loop."""
        self._due = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        due = self._due
        if due is None:
            return
        if due > self._loop.time():
            self._timer = self._loop.call_at(due, self._look)
        else:
            self._due = None
            self._expired()
