"""Labels that become known after the prediction."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field

from sidelight.service._context import Context, context_of

router = APIRouter(prefix="/v1/feedback", tags=["feedback"])
Shared = Annotated[Context, Depends(context_of)]

FEEDBACK_TYPE = "io.sidelight.feedback"


class Feedback(BaseModel):
    """The labels of one row, by the request id of its inference."""

    model_config = ConfigDict(extra="forbid")

    deployment: str = Field(pattern=r"^[^/]+/.+$")
    request_id: str = Field(min_length=1)
    row: int = Field(default=0, ge=0)
    labels: dict[str, Any] = Field(min_length=1)
    time: str | None = None


@router.post("")
async def post_feedback(context: Shared, feedback: list[Feedback] | Feedback) -> dict[str, int]:
    """Keep labels, durably; they join their inference whenever it comes."""
    items = feedback if isinstance(feedback, list) else [feedback]
    await context.ingest.send(FEEDBACK_TYPE, [item.model_dump() for item in items])
    return {"accepted": len(items)}
