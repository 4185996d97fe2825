"""Everything that matches, as a file that is streamed."""

from collections.abc import Iterator
from itertools import chain
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Depends, Header, Query
from fastapi.responses import StreamingResponse

from sidelight.service._context import Context, context_of
from sidelight.service._export_formats import MEDIA_TYPES, file_name, format_of
from sidelight.service._names import DeploymentName

router = APIRouter(prefix="/v1/inferences", tags=["inferences"])
Shared = Annotated[Context, Depends(context_of)]

_FILES: Final = {"schema": {"type": "string", "format": "binary"}}


@router.get(
    "/export",
    response_class=StreamingResponse,
    responses={200: {"content": dict.fromkeys(MEDIA_TYPES.values(), _FILES)}},
)
def export_inferences(  # one for each parameter of the route
    context: Shared,
    from_: Annotated[str | None, Query(alias="from")] = None,
    deployment: DeploymentName | None = None,
    version: str | None = None,
    to: str | None = None,
    where: str | None = None,
    order: Literal["time", "-time"] = "time",
    limit: Annotated[int | None, Query(ge=1)] = None,
    format: Literal["jsonl", "csv", "parquet"] | None = None,  # noqa: A002 - the name on the wire
    accept: Annotated[str, Header()] = "",
) -> StreamingResponse:
    """All inferences that match, streamed; without `format` the header `Accept` decides."""
    chosen = format or format_of(accept)
    chunks = context.inferences.export(
        format=chosen,
        deployment=deployment,
        version=version,
        from_=from_,
        to=to,
        where=where,
        order=order,
        limit=limit,
    )
    name = file_name(deployment, chosen)
    return StreamingResponse(
        _begun(chunks),
        media_type=MEDIA_TYPES[chosen],
        headers={
            "Content-Disposition": f'attachment; filename="{name}"',
            "Vary": "Accept",
            "X-Content-Type-Options": "nosniff",
        },
    )


def _begun(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Read the first part now: what fails there is still answered as a problem."""
    first = next(chunks, b"")
    return chain([first], chunks)
