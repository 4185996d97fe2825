"""What the detectors said: verdicts and alarms."""

from functools import cache, partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query

from sidelight.logger import Document
from sidelight.service._access import Caller
from sidelight.service._api_access import caller_of
from sidelight.service._context import Context, context_of
from sidelight.service._cursors import list_documents
from sidelight.service._deployments import deployment_json
from sidelight.service._detection_results import ALARMS, LOOKS, verdicts_of
from sidelight.service._names import DeploymentName
from sidelight.service._reply_verdicts import REPLIES, reply_verdicts
from sidelight.service.errors import NotFound

router = APIRouter(prefix="/v1", tags=["detection"])
Shared = Annotated[Context, Depends(context_of)]
Asking = Annotated[Caller, Depends(caller_of)]
Limit = Annotated[int, Query(ge=1, le=1000)]
Order = Literal["time", "-time"]


@router.get("/verdicts")
def list_verdicts(
    context: Shared,
    deployment: DeploymentName | None = None,
    detector: str | None = None,
    feature: str | None = None,
    state: Literal["ok", "drift", "insufficient"] | None = None,
    order: Order = "-time",
    limit: Limit = 100,
    cursor: str | None = None,
) -> dict[str, Any]:
    """Answers of our detectors, look by look, and replies of other detectors beside them."""
    wanted = {"detector": detector, "feature": feature, "state": state}
    wanted = {name: value for name, value in wanted.items() if value is not None}
    names = cache(partial(_feature_names, context))

    def chosen(verdicts: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [
            verdict
            for verdict in verdicts
            if all(verdict[name] == value for name, value in wanted.items())
        ]

    return list_documents(
        context.documents,
        LOOKS,
        deployment=deployment,
        order=order,
        limit=limit,
        cursor=cursor,
        items_of=lambda look: chosen(verdicts_of(look)),
        beside={REPLIES: lambda reply: chosen(reply_verdicts(reply, names(reply["deployment"])))},
    )


@router.get("/alarms")
def list_alarms(
    context: Shared,
    deployment: DeploymentName | None = None,
    state: Literal["open", "acknowledged", "ended"] | None = None,
    order: Order = "-time",
    limit: Limit = 100,
    cursor: str | None = None,
) -> dict[str, Any]:
    """Alarms in all states, unless one is asked for."""

    def shown(value: dict[str, Any]) -> list[dict[str, Any]]:
        alarm = shown_alarm(context, value)
        return [alarm] if state in {None, alarm["state"]} else []

    return list_documents(
        context.documents,
        ALARMS,
        deployment=deployment,
        order=order,
        limit=limit,
        cursor=cursor,
        items_of=shown,
    )


@router.post("/alarms/{alarm_id}/acknowledge")
def acknowledge_alarm(alarm_id: str, context: Shared, caller: Asking) -> dict[str, Any]:
    """Say that somebody looks after an alarm; one that has ended stays ended."""
    alarm = context.documents.get(ALARMS, alarm_id)
    if alarm is None:
        raise NotFound(f"no alarm {alarm_id}", hint="GET /v1/alarms lists them")
    caller.must_see(alarm["deployment"], f"alarm {alarm_id}")
    note = Document(
        collection="acknowledgements", key=alarm_id, deployment=alarm["deployment"], value={}
    )
    context.documents.put([note])
    return shown_alarm(context, alarm)


def shown_alarm(context: Context, alarm: dict[str, Any]) -> dict[str, Any]:
    """Return an alarm with its acknowledgement, which is kept apart from what detectors write."""
    acknowledged = context.documents.get("acknowledgements", alarm["id"]) is not None
    if alarm["state"] == "open" and acknowledged:
        return {**alarm, "state": "acknowledged"}
    return alarm


def _feature_names(context: Context, deployment: str) -> tuple[str, ...]:
    schema = deployment_json(context.documents, deployment)["schema"]
    columns = schema["columns"]
    return tuple(column["name"] for column in columns if column["role"] == "feature")
