"""Erasures: ordered by an administrator, done by the consumer."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, ConfigDict
from starlette.concurrency import run_in_threadpool

from sidelight.service._access import Caller
from sidelight.service._api_access import caller_of, note_access
from sidelight.service._context import Context, context_of
from sidelight.service._erasure_orders import (
    COLLECTION,
    ErasureAnswer,
    ErasureOrder,
    ErasureOrders,
    noted,
)
from sidelight.service._names import DeploymentName
from sidelight.service.errors import NotFound, NotReady

router = APIRouter(prefix="/v1/erasures", tags=["erasures"])
Shared = Annotated[Context, Depends(context_of)]
Asking = Annotated[Caller, Depends(caller_of)]

_ACCEPTED: Final = 202
_PATIENCE_S: Final = 60.0
_MOST: Final = 1000


class ErasureRequest(BaseModel):
    """Which inferences are to be erased, and why."""

    model_config = ConfigDict(extra="forbid")

    deployment: DeploymentName
    reason: str
    where: str = ""
    subject: str = ""
    ids: list[str] = []
    request_ids: list[str] = []
    dry_run: bool = False
    wait: bool = True


@router.post("")
async def erase(
    context: Shared, caller: Asking, request: ErasureRequest, response: Response, http: Request
) -> dict[str, Any]:
    """Erase inferences everywhere; 202 while it is still worked on."""
    caller.must_see(request.deployment, f"deployment {request.deployment}")
    order = ErasureOrder(
        deployment=request.deployment,
        by=caller.name,
        reason=request.reason,
        where=request.where,
        subject=request.subject,
        ids=tuple(request.ids),
        request_ids=tuple(request.request_ids),
        dry_run=request.dry_run,
    )
    note_access(http, **noted(order), why=order.reason)
    orders = ErasureOrders(context.settings.data)
    await run_in_threadpool(orders.ask, order)
    try:
        patience_s = _PATIENCE_S if request.wait else 0.0
        answer = await run_in_threadpool(orders.wait, order, patience_s=patience_s)
    except NotReady:
        response.status_code = _ACCEPTED
        return ErasureAnswer(id=order.id, state="running").to_json()
    return answer.checked().to_json()


@router.get("")
def list_erasures(
    context: Shared, caller: Asking, deployment: DeploymentName | None = None
) -> dict[str, Any]:
    """List what was erased: when, by whom, why and how much; the newest first."""
    page = context.documents.find(COLLECTION, deployment=deployment, limit=_MOST)
    shown = ("deployment", "by", "reason", "time")
    items = [
        ErasureAnswer.of_document(value).to_json() | {name: value[name] for name in shown}
        for _, _, value in page
        if caller.may_see(value["deployment"])
    ]
    return {"items": items, "next": None}


@router.get("/{erasure_id}")
def get_erasure(
    erasure_id: str, context: Shared, caller: Asking, response: Response
) -> dict[str, Any]:
    """One erasure; 202 while it is worked on."""
    value = context.documents.get(COLLECTION, erasure_id)
    if value is not None:
        caller.must_see(value["deployment"], f"erasure {erasure_id}")
        answer = ErasureAnswer.of_document(value)
    else:
        found = ErasureOrders(context.settings.data).state(erasure_id)
        if found is None:
            raise NotFound(f"no erasure {erasure_id}", hint="GET /v1/erasures lists them")
        answer = found.checked()
    if answer.state == "running":
        response.status_code = _ACCEPTED
    return answer.to_json()
