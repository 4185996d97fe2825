"""Inventory and configuration of deployments."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Query, Response

from sidelight.service._access import Caller
from sidelight.service._api_access import caller_of
from sidelight.service._context import Context, context_of
from sidelight.service._cursors import list_names
from sidelight.service._deployments import deployment_json, deployment_names, put_settings
from sidelight.service._names import stored_name
from sidelight.service._reference_files import check_given_reference, read_given_reference
from sidelight.service._settings_deployment import read_deployment
from sidelight.service.errors import NotFound

router = APIRouter(prefix="/v1/deployments", tags=["deployments"])
Shared = Annotated[Context, Depends(context_of)]
Asking = Annotated[Caller, Depends(caller_of)]


@router.get("")
def list_deployments(
    context: Shared,
    caller: Asking,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: str | None = None,
) -> dict[str, Any]:
    """Every deployment that traffic or configuration has named, as far as the caller may see."""
    names = [name for name in deployment_names(context.documents) if caller.may_see(name)]
    page, following = list_names(names, limit=limit, cursor=cursor)
    return {"items": [deployment_json(context.documents, name) for name in page], "next": following}


@router.get("/{namespace}/{name:path}")
def get_deployment(namespace: str, name: str, context: Shared) -> dict[str, Any]:
    """One deployment: its versions, schema, reference and model."""
    full_name = stored_name(f"{namespace}/{name}")
    if full_name not in deployment_names(context.documents):
        raise NotFound(f"no deployment {full_name}", hint="GET /v1/deployments lists them")
    return deployment_json(context.documents, full_name)


@router.put("/{namespace}/{name:path}")
def put_deployment(
    namespace: str, name: str, context: Shared, value: Annotated[dict[str, Any], Body()]
) -> dict[str, Any]:
    """Configure a deployment with the keys of the YAML file; replaces what was configured."""
    full_name = stored_name(f"{namespace}/{name}")
    value.pop("name", None)
    settings = read_deployment(full_name, value)
    if settings.reference.file is not None:
        # Said now, to the one who can put it right, and not only in the consumer's log.
        check_given_reference(settings.reference.file, settings.schema)
        read_given_reference(settings.reference.file)
    put_settings(context.documents, settings)
    return deployment_json(context.documents, full_name)


@router.delete("/{namespace}/{name:path}", status_code=204)
def delete_deployment(namespace: str, name: str, context: Shared) -> Response:
    """Forget configuration, schema and reference; what was stored stays in the audit trail."""
    full_name = stored_name(f"{namespace}/{name}")
    if full_name not in deployment_names(context.documents):
        raise NotFound(f"no deployment {full_name}", hint="GET /v1/deployments lists them")
    put_settings(context.documents, None, name=full_name)
    return Response(status_code=204)
