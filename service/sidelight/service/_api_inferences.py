"""Audit queries over what was stored."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query

from sidelight.payloads import Inference
from sidelight.service._access import Caller
from sidelight.service._api_access import caller_of
from sidelight.service._context import Context, context_of
from sidelight.service._erased import find_erased
from sidelight.service._names import DeploymentName
from sidelight.service.errors import NotFound

router = APIRouter(prefix="/v1/inferences", tags=["inferences"])
Shared = Annotated[Context, Depends(context_of)]
Asking = Annotated[Caller, Depends(caller_of)]
Order = Literal["time", "-time"]
Limit = Annotated[int, Query(ge=1, le=1000)]
From = Annotated[str | None, Query(alias="from")]


@router.get("")
def find_inferences(
    context: Shared,
    from_: From = None,
    deployment: DeploymentName | None = None,
    version: str | None = None,
    to: str | None = None,
    where: str | None = None,
    order: Order = "-time",
    limit: Limit = 100,
    cursor: str | None = None,
) -> dict[str, Any]:
    """Inferences that match, with all their rows; `from` is included, `to` excluded."""
    items, following = context.inferences.find(
        deployment=deployment,
        version=version,
        from_=from_,
        to=to,
        where=where,
        order=order,
        limit=limit,
        cursor=cursor,
    )
    return {"items": [item.to_json() for item in items], "next": following}


@router.get("/{inference_id}")
def get_inference(
    inference_id: str,
    context: Shared,
    caller: Asking,
    *,
    raw: bool = False,
) -> dict[str, Any]:
    """One inference by its id; with `raw=true` the archived bytes of both halves in base64."""
    inference = inference_of(context, caller, inference_id)
    value = inference.to_json()
    if raw:
        value["raw"] |= context.raw.both(inference)
    return value


def inference_of(context: Context, caller: Caller, inference_id: str) -> Inference:
    """Return the inference of an id; raise ``NotFound`` unless the caller may see one.

    Of one that was erased ``Gone`` is raised, which says when and why.
    """
    inference = context.inferences.get(inference_id)
    if inference is None:
        erased = find_erased(context.documents, inference_id)
        if erased is not None and caller.may_see(erased.deployment):
            raise erased.problem(f"inference {inference_id}")
        raise NotFound(f"no inference {inference_id}", hint="GET /v1/inferences finds them")
    caller.must_see(inference.deployment, f"inference {inference_id}")
    return inference
