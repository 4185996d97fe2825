"""The answer of an explainer for rows, with its cost and its quality."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

ExplanationState = Literal["done", "running", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribution:
    """What one feature contributed to a prediction.

    Parameters
    ----------
    value : float
        In the unit of the model's output.
    standard_error : float
        Of ``value``; 0 where the method is exact.

    """

    value: float
    standard_error: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainedRow:
    """The explanation of one row: ``base + sum of attributions = prediction``."""

    prediction: float
    base: float
    attributions: Mapping[str, Attribution] = field(default_factory=dict)
    rule: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the form of the API."""
        return {
            "prediction": self.prediction,
            "base": self.base,
            "attributions": {name: asdict(item) for name, item in self.attributions.items()},
            "rule": self.rule,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What an explanation cost the live model; rows and calls are those really sent."""

    model_calls: int = 0
    model_rows: int = 0
    unique_rows: int = 0
    cache_hits: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """How far an explanation can be trusted.

    Parameters
    ----------
    converged : bool
        False when the deadline or the budget cut the method short.
    local_error : float
        ``|base + sum of attributions - prediction|``.
    fidelity : float or None
        R squared on coalitions that the fit never saw; None where the method is exact.
    off_manifold : float or None
        Share of the composite rows that the outlier detector finds implausible, in [0, 1].

    """

    converged: bool = True
    local_error: float = 0.0
    fidelity: float | None = None
    off_manifold: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """An explanation as it is stored and shown."""

    id: str
    state: ExplanationState
    deployment: str
    version: str | None
    inference_id: str | None
    method: str
    rows: tuple[ExplainedRow, ...] = ()
    cost: Cost = Cost()
    quality: Quality = Quality()
    output: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the form of the API."""
        return {
            "id": self.id,
            "state": self.state,
            "deployment": self.deployment,
            "version": self.version,
            "inference_id": self.inference_id,
            "method": self.method,
            "output": self.output,
            "rows": [row.to_json() for row in self.rows],
            "cost": asdict(self.cost),
            "quality": asdict(self.quality),
        }
