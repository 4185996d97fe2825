"""What became of every captured event: counters that add up at any moment."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

DROP_REASONS: Final = (
    "memory_full",
    "rejected",
    "shutdown",
    "spool_corrupt",
    "spool_error",
    "spool_full",
)
"""Why events are given up; the metrics show each from the start, so that rates see the first."""

# Half of a loopback round trip up to what a client would feel; ours.
_BUCKETS_S: Final = (
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
_PREFIX: Final = "sidelight_capture_"


@dataclass(frozen=True, slots=True, kw_only=True)
class Accounts:
    """The numbers at one moment, in events (two for an exchange).

    ``seen = sent + pending + sampled_out + sum(dropped.values())`` holds exactly.

    Parameters
    ----------
    seen, sent, pending, sampled_out : int
        ``seen`` counts what the tap offered and what a start found in the spool; ``pending`` is
        in memory, on its way or in the spool.
    dropped : mapping of str to int
        By reason, ``DROP_REASONS``.
    memory_bytes, spool_bytes, spool_events : int
        Where the pending ones are.
    sink_errors : mapping of str to int
        Failed deliveries by reason: ``refused, timeout, reset, garbage, status_500``, ...
    spool_errors : int
        Times that the disk refused.

    """

    seen: int
    sent: int
    pending: int
    sampled_out: int
    dropped: Mapping[str, int]
    memory_bytes: int
    spool_bytes: int
    spool_events: int
    sink_errors: Mapping[str, int]
    spool_errors: int

    @property
    def unexplained(self) -> int:
        """Difference between both sides of the identity; always 0."""
        settled = self.sent + self.sampled_out + sum(self.dropped.values())
        return self.seen - settled - self.pending


class Accounting:
    """Count events from the tap to their end; every method keeps the identity.

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
        self._seen = 0
        self._sent = 0
        self._pending = 0
        self._sampled_out = 0
        self._dropped: Counter[str] = Counter(dict.fromkeys(DROP_REASONS, 0))
        self._sink_errors: Counter[str] = Counter()
        self._spool_errors = 0
        self._added = [0] * (len(_BUCKETS_S) + 1)
        self._added_s = 0.0
        self.memory_bytes = 0
        self.spool_bytes = 0
        self.spool_events = 0

    def see(self, n_events: int) -> None:
        """Count events that were offered or found; they are pending."""
        self._seen += n_events
        self._pending += n_events

    def send(self, n_events: int) -> None:
        """Count pending events that the sink has taken."""
        self._pending -= n_events
        self._sent += n_events

    def drop(self, n_events: int, reason: str) -> None:
        """Count pending events that are given up."""
        self._pending -= n_events
        self._dropped[reason] += n_events

    def sample_out(self, n_events: int) -> None:
        """Count pending events that sampling leaves out."""
        self._pending -= n_events
        self._sampled_out += n_events

    def fail(self, reason: str) -> None:
        """Count a delivery that the sink did not take."""
        self._sink_errors[reason] += 1

    def fail_spool(self) -> None:
        """Count a refusal of the disk."""
        self._spool_errors += 1

    def observe_added(self, seconds: float) -> None:
        """Count what capture added to one answer, in seconds."""
        self._added[bisect_left(_BUCKETS_S, seconds)] += 1
        self._added_s += seconds

    def snapshot(self) -> Accounts:
        """Return all numbers of this moment."""
        return Accounts(
            seen=self._seen,
            sent=self._sent,
            pending=self._pending,
            sampled_out=self._sampled_out,
            dropped=dict(self._dropped),
            memory_bytes=self.memory_bytes,
            spool_bytes=self.spool_bytes,
            spool_events=self.spool_events,
            sink_errors=dict(self._sink_errors),
            spool_errors=self._spool_errors,
        )

    def prometheus(self, *, namespace: str, deployment: str) -> bytes:
        """Return the metrics in the Prometheus text format 0.0.4.

        Parameters
        ----------
        namespace, deployment : str
            Labels of every sample; ``deployment`` is the bare name.

        """
        common = f'namespace="{_escaped(namespace)}",deployment="{_escaped(deployment)}"'
        return "".join(f"{line}\n" for line in self._lines(common)).encode()

    def _lines(self, common: str) -> Iterator[str]:
        outcomes = [("seen", "", self._seen), ("sent", "", self._sent)]
        outcomes.append(("sampled_out", "", self._sampled_out))
        outcomes += [("dropped", reason, n) for reason, n in sorted(self._dropped.items())]
        yield from _family("events_total", "counter", "Events by what became of them.")
        for outcome, reason, n in outcomes:
            labels = f'{common},outcome="{outcome}",reason="{_escaped(reason)}"'
            yield f"{_PREFIX}events_total{{{labels}}} {n}"
        gauges = (
            ("pending_events", "Events in memory, on their way or in the spool.", self._pending),
            ("pending_bytes", "Bytes of the events in memory.", self.memory_bytes),
            ("spool_bytes", "Bytes of the spool on disk.", self.spool_bytes),
        )
        for name, text, value in gauges:
            yield from _family(name, "gauge", text)
            yield f"{_PREFIX}{name}{{{common}}} {value}"
        yield from _family("sink_errors_total", "counter", "Deliveries the sink did not take.")
        for reason, n in sorted(self._sink_errors.items()):
            labels = f'{common},reason="{_escaped(reason)}"'
            yield f"{_PREFIX}sink_errors_total{{{labels}}} {n}"
        yield from _family("spool_errors_total", "counter", "Times that the disk refused.")
        yield f"{_PREFIX}spool_errors_total{{{common}}} {self._spool_errors}"
        yield from self._histogram(common)

    def _histogram(self, common: str) -> Iterator[str]:
        name = f"{_PREFIX}added_seconds"
        yield from _family("added_seconds", "histogram", "What capture adds to an answer.")
        total = 0
        for bound, n in zip((*_BUCKETS_S, float("inf")), self._added, strict=True):
            total += n
            text = "+Inf" if bound == float("inf") else f"{bound:g}"
            yield f'{name}_bucket{{{common},le="{text}"}} {total}'
        yield f"{name}_sum{{{common}}} {self._added_s!r}"
        yield f"{name}_count{{{common}}} {total}"


def _family(name: str, kind: str, text: str) -> tuple[str, str]:
    return f"# HELP {_PREFIX}{name} {text}", f"# TYPE {_PREFIX}{name} {kind}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
