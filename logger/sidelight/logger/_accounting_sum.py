"""The account of one sink that several emitters of a process deliver to."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from sidelight.logger._accounting import Accounts


def summed(parts: Sequence[Accounts]) -> Accounts:
    """Return the sums of the numbers; the circuit is that of the first.

    Parameters
    ----------
    parts : sequence of Accounts
        At least one; of different events.

    """
    return replace(
        parts[0],
        seen=sum(part.seen for part in parts),
        sent=sum(part.sent for part in parts),
        pending=sum(part.pending for part in parts),
        sampled_out=sum(part.sampled_out for part in parts),
        dropped=_added(part.dropped for part in parts),
        sink_errors=_added(part.sink_errors for part in parts),
        spool_errors=sum(part.spool_errors for part in parts),
        memory_bytes=sum(part.memory_bytes for part in parts),
        memory_events=sum(part.memory_events for part in parts),
        spool_bytes=sum(part.spool_bytes for part in parts),
        spool_events=sum(part.spool_events for part in parts),
        circuit_openings=sum(part.circuit_openings for part in parts),
        oldest_s=max(part.oldest_s for part in parts),
    )


def _added(counters: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for counter in counters:
        total.update(counter)
    return dict(total)
