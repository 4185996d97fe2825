"""What may be asked of an explanation over the API."""

from typing import Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from sidelight.service._names import DeploymentName

MAX_INSTANCES: Final = 64
"""Rows of one explanation."""


class ExplainRequest(BaseModel):
    """What to explain, and how much it may cost."""

    model_config = ConfigDict(extra="forbid")

    deployment: DeploymentName | None = None
    inference_id: str | None = None
    instances: list[dict[str, Any] | list[Any]] | None = Field(
        default=None, min_length=1, max_length=MAX_INSTANCES
    )
    row: int | None = Field(default=None, ge=0)
    method: Literal["auto", "shapley"] = "auto"
    output: str | None = None
    deadline_ms: int | None = Field(default=None, ge=1, le=600_000)
    budget_rows: int = Field(default=60_000, ge=1, le=10_000_000)
    wait: bool = True

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.inference_id is None) == (self.instances is None):
            raise ValueError("expected inference_id or instances, one of them")
        if self.instances is not None and self.deployment is None:
            raise ValueError("expected deployment beside instances")
        return self
