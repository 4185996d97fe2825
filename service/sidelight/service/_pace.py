"""How far decoding may be ahead of detection: what waits between them stands in ``state.db``."""

import logging
from typing import Final, Protocol

from sidelight.logger import Journals
from sidelight.service._stage import DETECTION

log = logging.getLogger(__name__)

# As rows are in memory: about what two cores decode in half a minute. The raw journal keeps what
# comes anyway; a database that has become large stays so.
_MOST_BYTES: Final = 1 << 30
_LOOK_NS: Final = 2_000_000_000
# Rows are kept and found whether or not somebody judges them: what does not get on holds nobody up.
_PATIENCE_NS: Final = 60_000_000_000


class WaitingJournals(Journals, Protocol):
    """Journals that know how much waits for a group."""

    def waiting_bytes(self, group: str) -> int:
        """Return the size in memory of what was decoded and the group has not passed."""
        ...


class Pace:
    """Lets decoding wait while detection works and is far behind.

    Parameters
    ----------
    journals : WaitingJournals
        Where detection stands.

    """

    def __init__(self, journals: WaitingJournals) -> None:
        self._journals = journals
        self._looked_ns = 0
        self._moved_ns = 0
        self._position: dict[int, int] | None = None
        self._waits = False

    def must_wait(self, now_ns: int) -> bool:
        """Whether decoding should leave what comes in the raw journal; looks now and then."""
        # A clock that was set back makes nobody wait for what it showed before.
        if not 0 <= now_ns - self._looked_ns < _LOOK_NS:
            self._looked_ns = now_ns
            self._look(now_ns)
        return self._waits

    def _look(self, now_ns: int) -> None:
        position = self._journals.positions(DETECTION, "inferences")
        if position != self._position:
            self._position, self._moved_ns = position, now_ns
        is_behind = self._journals.waiting_bytes(DETECTION) > _MOST_BYTES
        gets_on = 0 <= now_ns - self._moved_ns < _PATIENCE_NS
        if is_behind and not gets_on and self._waits:
            log.error("detection does not get on: decoding goes on without it")
        elif is_behind and gets_on and not self._waits:
            log.warning("detection is far behind: decoding waits for it")
        self._waits = is_behind and gets_on
