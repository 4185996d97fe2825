"""How much a step takes at once: less after it was too much for the memory, then more again."""

from typing import Final

from sidelight.logger import Arrival
from sidelight.payloads import Event

# Of halves that are given up together each is a row, with objects about it.
_BYTES_A_HALF: Final = 1024
_ALL: Final = 1 << 62


class StepPortion:
    """Records by their bytes, events of a record that is alone, halves that are late.

    Parameters
    ----------
    most_bytes : int
        Bytes of records taken while nothing is too much.

    Examples
    --------
    >>> portion = StepPortion(4096)
    >>> portion.was_too_much(n_records=3)
    >>> portion.n_bytes
    1024

    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._n_events = self._n_tried = _ALL
        self.n_bytes = most_bytes
        """Bytes of records to take next; one record is always taken."""

    @property
    def n_late(self) -> int:
        """How many halves may be given up together."""
        return max(1, self.n_bytes // _BYTES_A_HALF)

    @property
    def is_whole(self) -> bool:
        """Whether nothing was too much lately."""
        return self.n_bytes == self._most_bytes

    def of(self, events: list[Event | Arrival]) -> list[Event | Arrival]:
        """Return the events to take of a record that is alone."""
        some = events[: self._n_events]
        self._n_tried = len(some)
        return some

    def is_divisible(self, n_records: int) -> bool:
        """Return whether there is less to take: of records, of one's events, of late halves.

        What is late before a record is taken with it only while nothing is too much.
        """
        if n_records == 1:
            return self.is_whole or self._n_events > 1
        return n_records > 1 or self.n_late > 1

    def was_too_much(self, n_records: int) -> None:
        """Take less."""
        self.n_bytes = max(1, self.n_bytes // 4)
        if n_records == 1:
            self._n_events = max(1, min(self._n_events, self._n_tried) // 4)
        self._n_tried = _ALL

    def passed(self, *, worked: bool, is_begun: bool) -> None:
        """Take more again; ``is_begun`` says that there are further events of the same record."""
        # What was too much once is often so again: a step that is made in vain costs as much.
        longer = self.n_bytes + self.n_bytes // 4 + 1
        self.n_bytes = min(longer, self._most_bytes) if worked else self._most_bytes
        self._n_events = self._n_events + self._n_events // 4 + 1 if is_begun else _ALL
        self._n_tried = _ALL
