"""Records that were begun: some of their events are committed, the others are still to come.

A request to the door may hold more than a step may have in memory. Its events are then taken a few
at a time, and what was taken is committed with how far that is: each of them counts once,
whatever is killed in between.
"""

import struct
from collections.abc import Iterable, Mapping
from typing import Final

from sidelight.logger import Arrival
from sidelight.payloads import Event

BEGUN_PREFIX: Final = b"b"
_PARTITION: Final = struct.Struct(">I")
_PLACE: Final = struct.Struct(">QI")


class BegunRecords:
    """Knows of each partition how far its next record was taken.

    Parameters
    ----------
    entries : iterable of (key, value), optional
        The committed state under ``BEGUN_PREFIX``.

    """

    def __init__(self, entries: Iterable[tuple[bytes, bytes]] = ()) -> None:
        # Position of the record and index of its next event.
        self._next: dict[int, tuple[int, int]] = {}
        for key, value in entries:
            (partition,) = _PARTITION.unpack(key.removeprefix(BEGUN_PREFIX))
            self._next[partition] = _PLACE.unpack(value)

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self._next)

    def rest(self, events: list[Event | Arrival]) -> list[Event | Arrival]:
        """Return those events that were not taken yet."""
        return [event for event in events if not self._is_taken(event)] if self._next else events

    def begun(self, following: Event | Arrival) -> dict[bytes, bytes | None]:
        """Note the event with which a record goes on; return what to commit."""
        ref = following.ref
        self._next[ref.partition] = ref.position, ref.index
        return {_key(ref.partition): _PLACE.pack(ref.position, ref.index)}

    def ended(self, positions: Mapping[int, int]) -> dict[bytes, bytes | None]:
        """Note that these partitions move on; return what to commit."""
        ended = self._next.keys() & positions.keys()
        for partition in ended:
            del self._next[partition]
        return dict.fromkeys(map(_key, ended))

    def _is_taken(self, event: Event | Arrival) -> bool:
        ref = event.ref
        position, index = self._next.get(ref.partition, (-1, 0))
        return ref.position == position and ref.index < index


def _key(partition: int) -> bytes:
    return BEGUN_PREFIX + _PARTITION.pack(partition)
