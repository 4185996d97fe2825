"""What is logged while nothing can be made durable: that it began, goes on, and is over."""

import logging
import time
from collections.abc import Callable
from typing import Final

from sidelight.logger.errors import JournalError

log = logging.getLogger(__name__)

_QUIET_S: Final = 10.0


class Outage:
    """What fails, in one line each ten seconds: on a full disk hundreds of groups do so a second.

    Parameters
    ----------
    what : str, default "groups"
        What could not be made durable.
    clock : callable, default time.monotonic
        Seconds.

    """

    def __init__(
        self, what: str = "groups", *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._what = what
        self._clock = clock
        self._said_s = -_QUIET_S
        self._is_said = False
        self._n_unsaid = 0

    def failed(self, failure: Exception) -> None:
        """Note that something could not be made durable."""
        self._n_unsaid += 1
        now_s = self._clock()
        if now_s - self._said_s < _QUIET_S:
            return
        said = {"reason": str(failure), "failed": self._n_unsaid}
        # Where it came from tells more only of what nobody foresaw.
        unforeseen = None if isinstance(failure, OSError | JournalError) else failure
        log.error("%s could not be made durable", self._what, extra=said, exc_info=unforeseen)
        self._said_s, self._is_said, self._n_unsaid = now_s, True, 0

    def passed(self) -> None:
        """Note that something is durable."""
        if self._is_said:
            log.warning("%s are durable again", self._what, extra={"failed": self._n_unsaid})
            self._is_said, self._n_unsaid = False, 0
