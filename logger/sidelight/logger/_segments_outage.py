"""What is logged while nothing can be made durable: that it began, goes on, and is over."""

import logging
import time
from collections.abc import Callable
from typing import Final

log = logging.getLogger(__name__)

_QUIET_S: Final = 10.0


class Outage:
    """Groups that fail, one line each ten seconds: on a full disk hundreds of them do so a second.

    Parameters
    ----------
    clock : callable, default time.monotonic
        Seconds.

    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._said_s = -_QUIET_S
        self._is_said = False
        self._n_unsaid = 0

    def failed(self, failure: Exception) -> None:
        """Note that a group could not be made durable."""
        self._n_unsaid += 1
        now_s = self._clock()
        if now_s - self._said_s < _QUIET_S:
            return
        said = {"errno": getattr(failure, "errno", None), "groups": self._n_unsaid}
        # Where it came from tells more only of what nobody foresaw.
        unforeseen = None if isinstance(failure, OSError) else failure
        log.error("groups could not be made durable", extra=said, exc_info=unforeseen)
        self._said_s, self._is_said, self._n_unsaid = now_s, True, 0

    def passed(self) -> None:
        """Note that a group is durable."""
        if self._is_said:
            log.warning("groups are durable again", extra={"failed_since": self._n_unsaid})
            self._is_said, self._n_unsaid = False, 0
