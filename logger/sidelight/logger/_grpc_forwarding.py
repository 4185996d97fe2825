"""What both relays of gRPC do alike: metadata, statuses and failures on their way through."""

from typing import Any, Final

import grpc
import grpc.aio

from sidelight.logger._grpc_head import Metadata
from sidelight.logger._grpc_status import CANCELLED, DEADLINE_EXCEEDED, UNKNOWN

# The transport of each side writes these itself.
_OWN: Final = frozenset({"user-agent", "te", "content-type", "accept-encoding"})
_FAILURES: Final = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL})

# A client counts its deadline from when it called, we from when the call came: its cancellation
# arrives that much before ours.
_DEADLINE_S: Final = 0.05


def forwarded(metadata: Metadata) -> tuple[tuple[str, str | bytes], ...]:
    """Return what is passed on of the metadata of a call: all that the transport does not write."""
    return tuple([item for item in metadata if item[0] not in _OWN])


def code_of_cancelled(context: Any) -> int:
    """Return why a call has ended that its client no longer waits for."""
    left = context.time_remaining()
    return DEADLINE_EXCEEDED if left is not None and left <= _DEADLINE_S else CANCELLED


def code_number(code: Any) -> int:
    """Return the number of a status, which servicers may give as such."""
    if isinstance(code, grpc.StatusCode):
        return int(code.value[0])
    return code if isinstance(code, int) else UNKNOWN


def is_failure(code: grpc.StatusCode) -> bool:
    """Whether a status may come from the connection rather than from the model."""
    return code in _FAILURES


async def fail(
    context: Any, error: grpc.aio.AioRpcError, *, told: Metadata = (), has_begun: bool = False
) -> None:
    """End a call as the model server, or the way to it, has ended it; always raises.

    Parameters
    ----------
    context : grpc.aio.ServicerContext
        Of the call to end.
    error : AioRpcError
        How the other call ended.
    told : iterable of (str, str)
        What is added to the metadata at the end.
    has_begun : bool, default False
        Whether the client already has the metadata of the beginning.

    """
    # Without it the answer is an end alone, which lets clients try again as their policy says.
    if not has_begun and (initial := tuple(error.initial_metadata() or ())):
        await context.send_initial_metadata(initial)
    trailing = (*(error.trailing_metadata() or ()), *told)
    await context.abort(error.code(), error.details() or "", trailing)
