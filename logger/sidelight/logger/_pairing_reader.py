"""Events read again from the archive, when memory holds them no more."""

from collections.abc import Callable

from sidelight.logger._envelope import parse
from sidelight.logger._envelope_member import EventLimits
from sidelight.logger._journal import EventRecord
from sidelight.logger._step_memory import spend
from sidelight.payloads import Event, RawRef


class EventReader:
    """Finds one event by its reference, parsing a batch once for many of its members.

    Parameters
    ----------
    read : callable of RawRef to EventRecord or None
        ``Journals.event``.
    max_records : int, default 8
        How many parsed records are kept.

    """

    def __init__(
        self,
        read: Callable[[RawRef], EventRecord | None],
        *,
        limits: EventLimits | None = None,
        max_records: int = 8,
    ) -> None:
        self._read = read
        self._limits = limits
        self._max_records = max_records
        self._parsed: dict[tuple[int, int], dict[int, Event]] = {}

    def __call__(self, ref: RawRef) -> Event | None:
        """Return the event, or None when the archive has it no more."""
        place = (ref.partition, ref.position)
        events = self._parsed.get(place)
        if events is None:
            record = self._read(ref)
            if record is None:
                return None
            # Needed whatever it takes: what was acknowledged is stored.
            spend(len(record.body))
            events = {event.ref.index: event for event in parse(record, self._limits)[0]}
            self._parsed[place] = events
            if len(self._parsed) > self._max_records:
                del self._parsed[next(iter(self._parsed))]
        return events.get(ref.index)
