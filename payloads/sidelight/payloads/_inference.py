"""One request and its response, as the API shows it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

OrphanSide = Literal["request", "response"]


@dataclass(frozen=True, slots=True, kw_only=True)
class InferenceRow:
    """One row that the model was asked, with its answer and what became known later."""

    features: Mapping[str, Any] = field(default_factory=dict)
    outputs: Mapping[str, Any] = field(default_factory=dict)
    labels: Mapping[str, Any] = field(default_factory=dict)
    outlier_score: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the form of the API."""
        return {
            "features": dict(self.features),
            "outputs": dict(self.outputs),
            "labels": dict(self.labels),
            "outlier_score": self.outlier_score,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Inference:
    """One request and its response, paired by the platform's own rule.

    Parameters
    ----------
    id : str
        URL-safe; the same for the same identity, whenever and wherever it is computed.
    time : str
        Occurrence time of the request, RFC 3339 UTC with microseconds.
    latency_ms : float or None
        Server-side latency in milliseconds; None when the platform does not tell.
    orphan : "request", "response" or None
        The half that is there when the other never came.

    """

    id: str
    deployment: str
    version: str | None
    component: str | None
    request_id: str
    time: str
    latency_ms: float | None
    status: int | None
    protocol: str
    rows: tuple[InferenceRow, ...]
    orphan: OrphanSide | None = None
    synthetic: bool = False
    tags: Mapping[str, Any] = field(default_factory=dict)
    request_ref: str | None = None
    response_ref: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the form of the API."""
        return {
            "id": self.id,
            "deployment": self.deployment,
            "version": self.version,
            "component": self.component,
            "request_id": self.request_id,
            "time": self.time,
            "latency_ms": self.latency_ms,
            "status": self.status,
            "protocol": self.protocol,
            "rows": [row.to_json() for row in self.rows],
            "orphan": self.orphan,
            "synthetic": self.synthetic,
            "tags": dict(self.tags),
            "raw": {"request_ref": self.request_ref, "response_ref": self.response_ref},
        }
