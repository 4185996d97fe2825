"""What became of every captured event: counters that add up at any moment, for each outlet."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from sidelight.logger._outlet_circuit import CircuitState

DROP_REASONS: Final = (
    "memory_full",
    "outlet_removed",
    "rejected",
    "shutdown",
    "spool_corrupt",
    "spool_error",
    "spool_full",
    "unencodable",
)
"""Why events are given up; the metrics show each from the start, so that rates see the first."""

# Half of a loopback round trip up to what a client would feel; ours.
BUCKETS_S: Final = (
    5e-5,
    1e-4,
    2.5e-4,
    5e-4,
    1e-3,
    2.5e-3,
    5e-3,
    1e-2,
    2.5e-2,
    5e-2,
    0.1,
    0.25,
    1.0,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Accounts:
    """The numbers of one outlet at one moment, in events (two for an exchange).

    ``seen = sent + pending + sampled_out + sum(dropped.values())`` holds exactly.

    Parameters
    ----------
    seen, sent, pending, sampled_out : int
        ``seen`` counts what the tap offered and what a start found in the spool; ``pending`` is
        in memory, on its way or in the spool.
    dropped : mapping of str to int
        By reason, ``DROP_REASONS``.
    sink_errors : mapping of str to int
        Failed deliveries by reason: ``refused, timeout, reset, garbage, status_500``, ...
    spool_errors : int
        Times that the disk refused.
    memory_bytes, memory_events, spool_bytes, spool_events : int
        Where the pending ones are.
    circuit : "closed", "open" or "half_open"
        Whether the sink is asked; see ``Circuit``.
    circuit_openings : int
        How often it opened.
    oldest_s : float
        Age of the event that waits longest, as far as it is known, seconds of the wall clock.

    """

    seen: int
    sent: int
    pending: int
    sampled_out: int
    dropped: Mapping[str, int]
    sink_errors: Mapping[str, int]
    spool_errors: int
    memory_bytes: int = 0
    memory_events: int = 0
    spool_bytes: int = 0
    spool_events: int = 0
    circuit: CircuitState = "closed"
    circuit_openings: int = 0
    oldest_s: float = 0.0

    @property
    def unexplained(self) -> int:
        """Difference between both sides of the identity; always 0."""
        settled = self.sent + self.sampled_out + sum(self.dropped.values())
        return self.seen - settled - self.pending


def combined(parts: Sequence[Accounts]) -> Accounts:
    """Return the numbers of one account whose events are in several places.

    Parameters
    ----------
    parts : sequence of Accounts
        All with the same counters; the last is in use.

    """
    return replace(
        parts[-1],
        memory_bytes=sum(part.memory_bytes for part in parts),
        memory_events=sum(part.memory_events for part in parts),
        spool_bytes=sum(part.spool_bytes for part in parts),
        spool_events=sum(part.spool_events for part in parts),
        circuit_openings=sum(part.circuit_openings for part in parts),
        oldest_s=max(part.oldest_s for part in parts),
    )


class Accounting:
    """Count events from the tap to their end; every method keeps the identity.

    Attributes
    ----------
    seen, pending : int
        Events that were offered or found, and those of them that nothing became of yet. Whoever
        takes events in adds to both.

    Examples
    --------
    >>> accounting = Accounting()
    >>> accounting.see(2)
    >>> accounting.drop(1, "rejected")
    >>> accounts = accounting.snapshot()
    >>> accounts.pending, accounts.unexplained
    (1, 0)

    """

    def __init__(self) -> None:
        self.seen = 0
        self.pending = 0
        self._sent = 0
        self._sampled_out = 0
        self._dropped: Counter[str] = Counter(dict.fromkeys(DROP_REASONS, 0))
        self._sink_errors: Counter[str] = Counter()
        self._spool_errors = 0

    def see(self, n_events: int) -> None:
        """Count events that were offered or found; they are pending."""
        self.seen += n_events
        self.pending += n_events

    def send(self, n_events: int) -> None:
        """Count pending events that the sink has taken."""
        self.pending -= n_events
        self._sent += n_events

    def drop(self, n_events: int, reason: str) -> None:
        """Count pending events that are given up."""
        self.pending -= n_events
        self._dropped[reason] += n_events

    def sample_out(self, n_events: int) -> None:
        """Count pending events that sampling leaves out."""
        self.pending -= n_events
        self._sampled_out += n_events

    def fail(self, reason: str) -> None:
        """Count a delivery that the sink did not take."""
        self._sink_errors[reason] += 1

    def fail_spool(self) -> None:
        """Count a refusal of the disk."""
        self._spool_errors += 1

    def snapshot(self) -> Accounts:
        """Return the counters of this moment; where the pending ones are is not known here."""
        return Accounts(
            seen=self.seen,
            sent=self._sent,
            pending=self.pending,
            sampled_out=self._sampled_out,
            dropped=dict(self._dropped),
            sink_errors=dict(self._sink_errors),
            spool_errors=self._spool_errors,
        )


class AddedTime:
    """Histogram of what capture added to the answers.

    Attributes
    ----------
    counts : list of int
        By bucket of ``BUCKETS_S``; the last is everything above.
    total_s : float
        Seconds.

    """

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS_S) + 1)
        self.total_s = 0.0

    def observe(self, seconds: float) -> None:
        """Count what capture added to one answer."""
        self.counts[bisect_left(BUCKETS_S, seconds)] += 1
        self.total_s += seconds
