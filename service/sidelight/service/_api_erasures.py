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
from sidelight.service._names import DeploymentName, OneDeployment
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

    deployment: OneDeployment
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
        running = ErasureAnswer(id=order.id, state="running")
        return running.with_progress(orders.progress()).to_json()
    return answer.checked().to_json()


@router.get("")
def list_erasures(
    context: Shared, caller: Asking, deployment: DeploymentName | None = None
) -> dict[str, Any]:
    """List what was erased, and what is to be: when, by whom, why, how much; the newest first.

    One that is running says since when, what it waits for, and why it failed last.
    """
    orders = ErasureOrders(context.settings.data)
    # Before what is decided: what is decided between the two is shown once more, not never.
    waiting = [
        order
        for order in orders.open()
        if deployment in {None, order.deployment} and caller.may_see(order.deployment)
    ]
    progress = orders.progress()
    items = [
        ErasureAnswer.of_document(value).with_progress(progress).to_json()
        | {name: value[name] for name in ("deployment", "by", "reason", "time")}
        for _, _, value in context.documents.find(COLLECTION, deployment=deployment, limit=_MOST)
        if caller.may_see(value["deployment"])
    ]
    known = {item["id"] for item in items}
    ordered = [_ordered(orders, order) for order in waiting if order.id not in known]
    return {"items": [*reversed(ordered), *items], "next": None}


@router.get("/{erasure_id}")
def get_erasure(
    erasure_id: str, context: Shared, caller: Asking, response: Response
) -> dict[str, Any]:
    """One erasure; 202 while it is worked on."""
    orders = ErasureOrders(context.settings.data)
    # Before what is decided: what is decided between the two is found there.
    found = orders.state(erasure_id)
    value = context.documents.get(COLLECTION, erasure_id)
    if value is not None:
        answer = ErasureAnswer.of_document(value).with_progress(orders.progress())
        found = value["deployment"], answer
    # What is another's is answered as what is not there.
    if found is None or not caller.may_see(found[0]):
        raise NotFound(f"no erasure {erasure_id}", hint="GET /v1/erasures lists them")
    answer = found[1].checked()
    if answer.state == "running":
        response.status_code = _ACCEPTED
    return answer.to_json()


def _ordered(orders: ErasureOrders, order: ErasureOrder) -> dict[str, Any]:
    """Return an order as the list has it, without the values by which a person is found."""
    since = orders.since(order.id)
    answer = ErasureAnswer(id=order.id, state="running", since=since)
    shown: dict[str, Any] = {"deployment": order.deployment, "by": order.by, "reason": order.reason}
    if order.dry_run:
        shown["dry_run"] = True
    return answer.with_progress(orders.progress()).to_json() | shown | {"time": since}
