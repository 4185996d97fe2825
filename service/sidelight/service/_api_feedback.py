"""Labels that become known after the prediction."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from sidelight.logger._envelope_feedback import MAX_ROW
from sidelight.service._access import Caller
from sidelight.service._api_access import caller_of, note_access
from sidelight.service._context import Context, context_of
from sidelight.service._label_values import is_text, is_time
from sidelight.service._names import DeploymentName

router = APIRouter(prefix="/v1/feedback", tags=["feedback"])
Shared = Annotated[Context, Depends(context_of)]
Asking = Annotated[Caller, Depends(caller_of)]

FEEDBACK_TYPE = "io.sidelight.feedback"


class Feedback(BaseModel):
    """The labels of one row, by the request id of its inference."""

    model_config = ConfigDict(extra="forbid")

    deployment: DeploymentName
    request_id: str = Field(min_length=1)
    row: int = Field(default=0, ge=0, le=MAX_ROW)
    labels: dict[str, Any] = Field(min_length=1)
    time: str | None = None

    @field_validator("labels")
    @classmethod
    def _can_be_written(cls, value: dict[str, Any]) -> dict[str, Any]:
        if not is_text(value):
            raise ValueError("expected Unicode text, got half of a surrogate pair")
        return value

    @field_validator("time")
    @classmethod
    def _is_time(cls, value: str | None) -> str | None:
        if value is not None and not is_time(value):
            raise ValueError("expected an RFC 3339 time such as 2013-01-01T00:00:00Z")
        return value


def _listed(value: Any) -> Any:
    """Take one item as a list of it: an error then names one place, not one for each form."""
    return [value] if isinstance(value, dict) else value


Items = Annotated[list[Feedback], BeforeValidator(_listed)]


@router.post("")
async def post_feedback(
    context: Shared, caller: Asking, feedback: Items, http: Request
) -> dict[str, int]:
    """Keep labels, durably; they join their inference whenever it comes."""
    deployments = sorted({item.deployment for item in feedback})
    note_access(http, deployments=deployments, items=len(feedback))
    for deployment in deployments:
        caller.must_see(deployment, f"deployment {deployment}")
    await context.ingest.send(FEEDBACK_TYPE, [item.model_dump() for item in feedback])
    return {"accepted": len(feedback)}
