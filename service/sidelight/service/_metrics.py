"""The metrics of ``serve``: a stable set of names, read from what the consumers committed.

Counters live beside the positions that they count, in the same transaction, so that work done
again is not counted again and a restart loses nothing.
"""

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

Labels = tuple[tuple[str, str], ...]
Counters = Mapping[tuple[str, Labels], float]

_DEPLOYMENT = ("namespace", "deployment")


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricSpec:
    """One documented metric, without the prefix ``sidelight_``."""

    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...]


METRICS: Mapping[str, MetricSpec] = {
    "events_received_total": MetricSpec(
        kind="counter",
        help="Events taken from the journal, by kind.",
        labels=(*_DEPLOYMENT, "kind"),
    ),
    "requests_total": MetricSpec(
        kind="counter",
        help="Requests to the door since it started: accepted by mode, refused by reason.",
        labels=("outcome", "reason"),
    ),
    "duplicate_events_total": MetricSpec(
        kind="counter", help="Events received again with the same bytes.", labels=_DEPLOYMENT
    ),
    "key_reused_events_total": MetricSpec(
        kind="counter",
        help="Events whose key was used before with other bytes; kept in the archive only.",
        labels=_DEPLOYMENT,
    ),
    "quarantined_events_total": MetricSpec(
        kind="counter", help="Members of batches that are no event, by reason.", labels=("reason",)
    ),
    "undecoded_events_total": MetricSpec(
        kind="counter",
        help="Payloads stored opaque because they could not be decoded, by reason.",
        labels=(*_DEPLOYMENT, "reason"),
    ),
    "unreadable_events_total": MetricSpec(
        kind="counter",
        help="Halves whose partner the archive could not give back.",
        labels=_DEPLOYMENT,
    ),
    "missing_ids_total": MetricSpec(
        kind="counter", help="Events without an id that were given one.", labels=()
    ),
    "inferences_total": MetricSpec(
        kind="counter",
        help="Inferences stored and queryable, both halves.",
        labels=(*_DEPLOYMENT, "version"),
    ),
    "inference_rows_total": MetricSpec(
        kind="counter", help="Rows of these inferences.", labels=(*_DEPLOYMENT, "version")
    ),
    "orphans_total": MetricSpec(
        kind="counter", help="Halves stored alone, by the half.", labels=(*_DEPLOYMENT, "kind")
    ),
    "orphans_completed_total": MetricSpec(
        kind="counter", help="Orphans whose other half came later.", labels=_DEPLOYMENT
    ),
    "model_responses_total": MetricSpec(
        kind="counter", help="Answers of the model, by status.", labels=(*_DEPLOYMENT, "outcome")
    ),
    "model_latency_seconds": MetricSpec(
        kind="histogram", help="Latency of the model as captured.", labels=_DEPLOYMENT
    ),
    "journal_lag_events": MetricSpec(
        kind="gauge", help="Records a consumer has not yet taken.", labels=("consumer",)
    ),
    "drift_distance": MetricSpec(
        kind="gauge",
        help="Effect size over the window, bias-corrected.",
        labels=(*_DEPLOYMENT, "detector", "feature"),
    ),
    "drift_log10_evidence": MetricSpec(
        kind="gauge",
        help="Decimal logarithm of the e-value against no change.",
        labels=(*_DEPLOYMENT, "detector", "feature"),
    ),
    "drift_alarm": MetricSpec(
        kind="gauge", help="1 while an alarm is open.", labels=(*_DEPLOYMENT, "kind")
    ),
    "drift_alarms_total": MetricSpec(
        kind="counter", help="Alarms raised.", labels=(*_DEPLOYMENT, "kind")
    ),
    "outlier_rows_total": MetricSpec(
        kind="counter", help="Rows with a conformal p-value in the tail.", labels=_DEPLOYMENT
    ),
    "outlier_rate": MetricSpec(
        kind="gauge", help="Share of outliers among the rows of the window.", labels=_DEPLOYMENT
    ),
    "detector_rows_total": MetricSpec(
        kind="counter", help="Rows the detectors have seen.", labels=_DEPLOYMENT
    ),
    "detector_errors_total": MetricSpec(
        kind="counter",
        help="Batches that detectors left out because something unforeseen failed on them.",
        labels=_DEPLOYMENT,
    ),
    "reference_rows": MetricSpec(
        kind="gauge", help="Rows of the reference so far.", labels=_DEPLOYMENT
    ),
    "indexed_documents_total": MetricSpec(
        kind="counter",
        help="Rows sent to the search server: stored, already there, reduced or refused.",
        labels=("outcome",),
    ),
    "indexing_retries_total": MetricSpec(
        kind="counter",
        help="Times that something had to be sent to the search server again, by reason.",
        labels=("reason",),
    ),
    "labels_total": MetricSpec(
        kind="counter", help="Labels received through feedback.", labels=_DEPLOYMENT
    ),
    "expired_rows_total": MetricSpec(
        kind="counter",
        help="Rows of the lake (and search server) deleted as their retention was over, by table.",
        labels=(*_DEPLOYMENT, "table"),
    ),
    "expired_results_total": MetricSpec(
        kind="counter",
        help="Verdicts, alarms, labels, explanations and replies deleted likewise, by kind.",
        labels=(*_DEPLOYMENT, "kind"),
    ),
    "overdue_segments": MetricSpec(
        kind="gauge",
        help="Segments older than audit.raw_retention that are kept all the same, by reason.",
        labels=("reason",),
    ),
    "retention_failures_total": MetricSpec(
        kind="counter", help="Files and sweeps of retention that ended with an error.", labels=()
    ),
    "erased_inferences_total": MetricSpec(
        kind="counter", help="Inferences that `sidelight erase` erased.", labels=_DEPLOYMENT
    ),
    "erased_again_events_total": MetricSpec(
        kind="counter",
        help="Events of erased requests that came again since the door started; nobody can read "
        "them.",
        labels=(),
    ),
    "erasure_since_timestamp_seconds": MetricSpec(
        kind="gauge",
        help="When the oldest erasure that is not done was ordered, Unix time; none without one.",
        labels=(),
    ),
    "erasure_failed_tries": MetricSpec(
        kind="gauge",
        help="Tries of the erasure that is worked on that failed; GET /v1/erasures says why.",
        labels=(),
    ),
    "legal_holds": MetricSpec(kind="gauge", help="Legal holds that are active.", labels=()),
    "lake_waiting_files": MetricSpec(
        kind="gauge", help="Files of the lake that are not in its bucket yet.", labels=()
    ),
    "lake_waiting_bytes": MetricSpec(
        kind="gauge", help="Size of the files that are not in the bucket yet.", labels=()
    ),
    "disk_free_bytes": MetricSpec(
        kind="gauge", help="Room that is left on the disk of the data folder.", labels=()
    ),
    "disk_bytes": MetricSpec(kind="gauge", help="Size of the disk of the data folder.", labels=()),
    "explanations_total": MetricSpec(
        kind="counter",
        help="Explanations since the API started, by outcome.",
        labels=(*_DEPLOYMENT, "explainer", "outcome"),
    ),
    "explanation_seconds": MetricSpec(
        kind="histogram", help="Time of an explanation.", labels=(*_DEPLOYMENT, "explainer")
    ),
    "explainer_model_calls_total": MetricSpec(
        kind="counter",
        help="Calls to live models for explanations.",
        labels=(*_DEPLOYMENT, "explainer"),
    ),
    "explainer_model_rows_total": MetricSpec(
        kind="counter", help="Rows of these calls.", labels=(*_DEPLOYMENT, "explainer")
    ),
    "explainer_cache_hits_total": MetricSpec(
        kind="counter", help="Rows answered from the cache.", labels=(*_DEPLOYMENT, "explainer")
    ),
}

LATENCY_BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of the latency histograms, in seconds."""


def split_name(deployment: str) -> Labels:
    """Return the labels of a deployment.

    Examples
    --------
    >>> split_name("prod/flights")
    (('namespace', 'prod'), ('deployment', 'flights'))

    """
    namespace, _, name = deployment.partition("/")
    return (("namespace", namespace), ("deployment", name))


def render(counters: Counters, gauges: Counters) -> bytes:
    """Return the text exposition of counters, histograms and gauges.

    A histogram is given by the counters ``<name>_bucket`` (label ``le``), ``<name>_sum``.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Committed({**counters, **gauges}))
    return generate_latest(registry)


class _Committed(Collector):
    def __init__(self, values: Counters) -> None:
        self._values: dict[str, dict[Labels, float]] = defaultdict(dict)
        for (name, labels), value in values.items():
            self._values[name][labels] = value

    def collect(self) -> Iterator[Metric]:
        for name, spec in METRICS.items():
            yield self._family(name, spec)

    def _family(self, name: str, spec: MetricSpec) -> Metric:
        full_name = f"sidelight_{name}"
        if spec.kind == "histogram":
            return self._histogram(full_name, name, spec)
        family: Any = CounterMetricFamily if spec.kind == "counter" else GaugeMetricFamily
        metric: Metric = family(full_name.removesuffix("_total"), spec.help, labels=spec.labels)
        for labels, value in sorted(self._values[name].items()):
            given = dict(labels)
            metric.add_metric(  # type: ignore[attr-defined]  # both families have it
                [given.get(label, "") for label in spec.labels], value
            )
        return metric

    def _histogram(self, full_name: str, name: str, spec: MetricSpec) -> Metric:
        metric = HistogramMetricFamily(full_name, spec.help, labels=spec.labels)
        for labels, total in sorted(self._values[f"{name}_sum"].items()):
            given = dict(labels)
            metric.add_metric(
                [given.get(label, "") for label in spec.labels],
                buckets=list(self._cumulative(name, labels)),
                sum_value=total,
            )
        return metric

    def _cumulative(self, name: str, labels: Labels) -> Iterator[tuple[str, float]]:
        counts = self._values[f"{name}_bucket"]
        total = 0.0
        for bound in (*map(str, LATENCY_BOUNDS_S), "+Inf"):
            total += counts.get((*labels, ("le", bound)), 0.0)
            yield bound, total


def observe(
    counts: dict[tuple[str, Labels], float], name: str, labels: Labels, seconds: Iterable[float]
) -> None:
    """Add observations of a histogram to counters."""
    values = list(seconds)
    if not values:
        return
    buckets = Counter(bisect_left(LATENCY_BOUNDS_S, value) for value in values)
    for number, n_values in buckets.items():
        bound = "+Inf" if number == len(LATENCY_BOUNDS_S) else str(LATENCY_BOUNDS_S[number])
        bucket = (f"{name}_bucket", (*labels, ("le", bound)))
        counts[bucket] = counts.get(bucket, 0.0) + n_values
    total = (f"{name}_sum", labels)
    counts[total] = sum(values, counts.get(total, 0.0))
