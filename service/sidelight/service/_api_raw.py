"""One half of an inference as bytes."""

import re
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Depends, Response

from sidelight.service._access import Caller
from sidelight.service._api_access import caller_of
from sidelight.service._api_inferences import inference_of
from sidelight.service._context import Context, context_of

router = APIRouter(prefix="/v1/inferences", tags=["inferences"])
Shared = Annotated[Context, Depends(context_of)]
Asking = Annotated[Caller, Depends(caller_of)]

_OPAQUE: Final = "application/octet-stream"
_WORD: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_MEDIA_TYPE: Final = re.compile(rf"{_WORD}/{_WORD}(?:[ \t]*;[\x20-\x7e]*)?")
_BYTES: Final = {"schema": {"type": "string", "format": "binary"}}


@router.get(
    "/{inference_id}/raw/{side}",
    response_class=Response,
    responses={200: {"content": {"*/*": _BYTES}}},
)
def get_raw_payload(
    inference_id: str,
    side: Literal["request", "response"],
    context: Shared,
    caller: Asking,
) -> Response:
    """Payload of a half, byte for byte, with the content type that its sender gave."""
    inference = inference_of(context, caller, inference_id)
    event = context.raw.find(inference, side).event
    stated = event.datacontenttype or ""
    return Response(
        event.data,
        headers={
            "Content-Type": stated if _MEDIA_TYPE.fullmatch(stated) else _OPAQUE,
            "Content-Disposition": f'attachment; filename="{inference.id}-{side}"',
            # Whoever called the model chose type and bytes: nothing for a browser to run.
            "Content-Security-Policy": "sandbox; default-src 'none'",
            "X-Content-Type-Options": "nosniff",
        },
    )
