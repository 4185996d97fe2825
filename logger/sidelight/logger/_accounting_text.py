"""The account of capture in the Prometheus text format 0.0.4."""

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from sidelight.logger._accounting import BUCKETS_S, Accounts, AddedTime

_PREFIX: Final = "sidelight_capture_"

# Name, kind, help, value.
_BY_SINK: Final[tuple[tuple[str, str, str, Callable[[Accounts], float]], ...]] = (
    (
        "pending_events",
        "gauge",
        "Events in memory, on their way or in the spool.",
        lambda accounts: accounts.pending,
    ),
    (
        "pending_bytes",
        "gauge",
        "Bytes of the events in memory.",
        lambda accounts: accounts.memory_bytes,
    ),
    ("queue_events", "gauge", "Events in memory.", lambda accounts: accounts.memory_events),
    ("spool_bytes", "gauge", "Bytes of the spool on disk.", lambda accounts: accounts.spool_bytes),
    ("spool_events", "gauge", "Events in the spool.", lambda accounts: accounts.spool_events),
    (
        "oldest_pending_seconds",
        "gauge",
        "Age of the event that waits longest, as far as it is known.",
        lambda accounts: accounts.oldest_s,
    ),
    (
        "sink_open",
        "gauge",
        "1 while the circuit of the sink is open, 0.5 while it is tried, else 0.",
        lambda accounts: {"closed": 0, "half_open": 0.5, "open": 1}[accounts.circuit],
    ),
    (
        "sink_openings_total",
        "counter",
        "Times that the circuit of the sink opened.",
        lambda accounts: accounts.circuit_openings,
    ),
    (
        "spool_errors_total",
        "counter",
        "Times that the disk refused.",
        lambda accounts: accounts.spool_errors,
    ),
)


def capture_metrics(
    accounts: Mapping[str, Accounts], added: AddedTime, *, namespace: str, deployment: str
) -> bytes:
    """Return the metrics of capture.

    Parameters
    ----------
    accounts : mapping of str to Accounts
        By the name of the outlet, label ``sink``.
    added : AddedTime
        Of the answers.
    namespace, deployment : str
        Labels of every sample; ``deployment`` is the bare name.

    """
    common = f'namespace="{_escaped(namespace)}",deployment="{_escaped(deployment)}"'
    by_labels = {f'{common},sink="{_escaped(name)}"': account for name, account in accounts.items()}
    lines = [*_events(by_labels), *_gauges(by_labels), *_sink_errors(by_labels)]
    lines += _histogram(common, added)
    return "".join(f"{line}\n" for line in lines).encode()


def _events(accounts: Mapping[str, Accounts]) -> Iterator[str]:
    yield from _family("events_total", "counter", "Events by what became of them.")
    for labels, account in accounts.items():
        outcomes = [("seen", "", account.seen), ("sent", "", account.sent)]
        outcomes.append(("sampled_out", "", account.sampled_out))
        outcomes += [("dropped", reason, n) for reason, n in sorted(account.dropped.items())]
        for outcome, reason, n in outcomes:
            more = f'outcome="{outcome}",reason="{_escaped(reason)}"'
            yield f"{_PREFIX}events_total{{{labels},{more}}} {n}"


def _gauges(accounts: Mapping[str, Accounts]) -> Iterator[str]:
    for name, kind, text, value in _BY_SINK:
        yield from _family(name, kind, text)
        for labels, account in accounts.items():
            yield f"{_PREFIX}{name}{{{labels}}} {value(account)}"


def _sink_errors(accounts: Mapping[str, Accounts]) -> Iterator[str]:
    yield from _family("sink_errors_total", "counter", "Deliveries the sink did not take.")
    for labels, account in accounts.items():
        for reason, n in sorted(account.sink_errors.items()):
            yield f'{_PREFIX}sink_errors_total{{{labels},reason="{_escaped(reason)}"}} {n}'


def _histogram(common: str, added: AddedTime) -> Iterator[str]:
    name = f"{_PREFIX}added_seconds"
    yield from _family("added_seconds", "histogram", "What capture adds to an answer.")
    total = 0
    for bound, n in zip((*BUCKETS_S, float("inf")), added.counts, strict=True):
        total += n
        text = "+Inf" if bound == float("inf") else f"{bound:g}"
        yield f'{name}_bucket{{{common},le="{text}"}} {total}'
    yield f"{name}_sum{{{common}}} {added.total_s!r}"
    yield f"{name}_count{{{common}}} {total}"


def _family(name: str, kind: str, text: str) -> tuple[str, str]:
    return f"# HELP {_PREFIX}{name} {text}", f"# TYPE {_PREFIX}{name} {kind}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
