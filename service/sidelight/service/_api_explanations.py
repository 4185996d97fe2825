"""Explanations of logged inferences and of given rows."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from starlette.concurrency import run_in_threadpool

from sidelight.service._access import Caller
from sidelight.service._api_access import caller_of, note_access
from sidelight.service._context import Context, context_of
from sidelight.service._explain_request import ExplainRequest
from sidelight.service.errors import NotFound

router = APIRouter(prefix="/v1/explanations", tags=["explanations"])
Shared = Annotated[Context, Depends(context_of)]
Asking = Annotated[Caller, Depends(caller_of)]

_ACCEPTED = 202


@router.post("")
async def explain(
    context: Shared, caller: Asking, request: ExplainRequest, response: Response, http: Request
) -> dict[str, Any]:
    """Explain rows by the id of their inference, or as given; waits unless told not to."""
    note_access(
        http, deployment=request.deployment, inference_id=request.inference_id, row=request.row
    )
    await run_in_threadpool(_must_see, context, caller, request)
    if request.wait:
        return (await context.explaining.explain_in_time(request)).to_json()
    response.status_code = _ACCEPTED
    return (await run_in_threadpool(context.explaining.begin, request)).to_json()


@router.get("/{explanation_id}")
def get_explanation(explanation_id: str, context: Shared, caller: Asking) -> dict[str, Any]:
    """One explanation, running, done or failed."""
    value = context.explaining.find(explanation_id)
    if value is None:
        raise NotFound(f"no explanation {explanation_id}")
    caller.must_see(value["deployment"] or "", f"explanation {explanation_id}")
    return value


def _must_see(context: Context, caller: Caller, request: ExplainRequest) -> None:
    """Raise ``NotFound`` when a limited caller asks about what is not theirs."""
    if caller.namespaces is None:
        return
    if request.deployment is not None:
        caller.must_see(request.deployment, f"deployment {request.deployment}")
    if request.inference_id is not None:
        inference = context.inferences.get(request.inference_id)
        deployment = "" if inference is None else inference.deployment
        caller.must_see(deployment, f"inference {request.inference_id}")
