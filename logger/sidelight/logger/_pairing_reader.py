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
        How many parsed batches are kept, as long as they are below ``max_bytes`` together.
    max_bytes : int, default 128 MiB
        Bound of the payloads in them; one batch is always kept.

    """

    def __init__(
        self,
        read: Callable[[RawRef], EventRecord | None],
        *,
        limits: EventLimits | None = None,
        max_records: int = 8,
        max_bytes: int = 128 << 20,
    ) -> None:
        self._read = read
        self._limits = limits
        self._max_records = max_records
        self._max_bytes = max_bytes
        self._parsed: dict[tuple[int, int], dict[int, Event]] = {}
        self._n_bytes = 0

    def __call__(self, ref: RawRef) -> Event | None:
        """Return the event, or None when the archive has it no more."""
        place = (ref.partition, ref.position)
        events = self._parsed.get(place)
        if events is None:
            record = self._read(ref)
            if record is None:
                return None
            spend(len(record.body))
            events = {event.ref.index: event for event in parse(record, self._limits)[0]}
            # Nobody asks for an event that is alone a second time.
            if len(events) > 1:
                self._keep(place, events)
        return events.get(ref.index)

    def _keep(self, place: tuple[int, int], events: dict[int, Event]) -> None:
        size = sum([len(event.data) for event in events.values()])
        while self._parsed and (
            len(self._parsed) >= self._max_records or self._n_bytes + size > self._max_bytes
        ):
            oldest = self._parsed.pop(next(iter(self._parsed)))
            self._n_bytes -= sum([len(event.data) for event in oldest.values()])
        self._parsed[place] = events
        self._n_bytes += size
