"""Explanations of logged inferences and of given rows."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response
from starlette.concurrency import run_in_threadpool

from sidelight.service._context import Context, context_of
from sidelight.service._explaining import ExplainRequest
from sidelight.service.errors import NotFound

router = APIRouter(prefix="/v1/explanations", tags=["explanations"])
Shared = Annotated[Context, Depends(context_of)]

_ACCEPTED = 202


@router.post("")
async def explain(context: Shared, request: ExplainRequest, response: Response) -> dict[str, Any]:
    """Explain rows by the id of their inference, or as given; waits unless told not to."""
    if request.wait:
        return (await context.explaining.explain_in_time(request)).to_json()
    response.status_code = _ACCEPTED
    return (await run_in_threadpool(context.explaining.begin, request)).to_json()


@router.get("/{explanation_id}")
def get_explanation(explanation_id: str, context: Shared) -> dict[str, Any]:
    """One explanation, running, done or failed."""
    value = context.explaining.find(explanation_id)
    if value is None:
        raise NotFound(f"no explanation {explanation_id}")
    return value
