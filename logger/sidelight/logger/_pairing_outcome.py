"""What pairing decides: inferences to be decoded, what to remember, and how many of which kind."""

from collections import Counter
from dataclasses import dataclass, field

import msgspec

from sidelight.logger._arrival import Arrival
from sidelight.logger._identity import Identity
from sidelight.logger._pairing_state import Side
from sidelight.payloads import Event, EventKind


@dataclass(frozen=True, slots=True)
class Pair:
    """An inference to be decoded and stored.

    Parameters
    ----------
    key : Identity
        What the halves share.
    id : str
        Inference id, 32 hexadecimal digits.
    request, response : Event or None
        At least one of them.
    orphan : "request", "response" or None
        The half that is there when the other did not come in time.
    revision : int
        0, or 1 when a late half completes what was stored as an orphan.

    """

    key: Identity
    id: str
    request: Event | None
    response: Event | None
    orphan: Side | None = None
    revision: int = 0


class Meeting(msgspec.Struct, gc=False):
    """A ``Pair`` whose halves came from senders that are known, and waited in memory.

    Parameters
    ----------
    asked, answered : Arrival
        The halves.

    """

    asked: Arrival
    answered: Arrival

    def pair(self) -> Pair:
        """Return it with its events."""
        asked = self.asked
        return Pair(asked.key, asked.digest.hex(), asked.event(), self.answered.event())


@dataclass(slots=True)
class Outcome:
    """What one step decided; ``state`` and ``remembered`` belong into its commit.

    Parameters
    ----------
    pairs : list of Pair or Meeting
        In the order in which they were completed or given up.
    state : dict of bytes to bytes or None
        Changed keys; None deletes one.
    remembered : dict of bytes to bytes
        What to remember for ever of inferences that were handed on.
    feedback, others : list of Event
        Events that are no halves, in order.
    received : Counter by (deployment, kind)
        Every event that was taken.
    completed, orphans, late, duplicates, key_reused, unreadable : Counter by deployment
        ``completed`` counts inferences with both halves at revision 0, ``late`` those that were
        orphans before, ``unreadable`` halves whose partner the archive has no more.

    """

    pairs: list[Pair | Meeting] = field(default_factory=list)
    state: dict[bytes, bytes | None] = field(default_factory=dict)
    remembered: dict[bytes, bytes] = field(default_factory=dict)
    feedback: list[Event] = field(default_factory=list)
    others: list[Event] = field(default_factory=list)
    received: Counter[tuple[str, EventKind]] = field(default_factory=Counter)
    completed: Counter[str] = field(default_factory=Counter)
    orphans: Counter[str] = field(default_factory=Counter)
    late: Counter[str] = field(default_factory=Counter)
    duplicates: Counter[str] = field(default_factory=Counter)
    key_reused: Counter[str] = field(default_factory=Counter)
    unreadable: Counter[str] = field(default_factory=Counter)

    def whole(self) -> list[Pair]:
        """Return the pairs with the events of their halves."""
        return [item.pair() if isinstance(item, Meeting) else item for item in self.pairs]
