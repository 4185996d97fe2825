"""A call with one message on each side, passed on."""

from typing import Any

import grpc.aio

from sidelight.logger._grpc_defer import Defer
from sidelight.logger._grpc_forwarding import (
    code_number,
    code_of_cancelled,
    fail,
    forwarded,
    is_failure,
)
from sidelight.logger._grpc_recorder import CallRecording, Recorder, returned_id
from sidelight.logger._grpc_status import OK


class UnaryCalls:
    """Passes on the calls of one method.

    Parameters
    ----------
    channel : grpc.aio.Channel
        To the model server.
    recorder : Recorder
        Records those that are inferences.
    path : str
        ``/package.Service/Method``.
    defer : Defer
        How exchanges are offered.

    """

    def __init__(self, channel: Any, recorder: Recorder, path: str, defer: Defer) -> None:
        self._call = channel.unary_unary(path)
        self._recorder = recorder
        self._counts = recorder.counts
        self._path = path
        self._defer = defer

    async def relay(self, request: bytes, context: Any) -> bytes:
        """Pass one call on; its answer, or its status, is that of the model server."""
        counts = self._counts
        counts.called()
        try:
            return await self._relay(request, context)
        finally:
            counts.ended()

    async def _relay(self, request: bytes, context: Any) -> bytes:
        metadata = context.invocation_metadata()
        recording = self._recorder.call(self._path, metadata, request, self._defer)
        call = self._call(request, timeout=context.time_remaining(), metadata=forwarded(metadata))
        if recording is not None:
            recording.passed_on()
        try:
            response: bytes = await call
            if recording is not None:
                recording.arrived()
            trailing = await _pass_metadata_on(call, context, recording)
        except grpc.aio.AioRpcError as error:
            self._counts.upstream_errors += is_failure(error.code())
            behind = (*(error.initial_metadata() or ()), *(error.trailing_metadata() or ()))
            told = returned_id(recording, behind)
            if recording is not None:
                recording.end(code_number(error.code()), metadata=behind)
            await fail(context, error, told=told)
            raise
        except BaseException:
            # The client has gone: while it waited, or when it was to be told the beginning.
            if recording is not None:
                recording.end(code_of_cancelled(context), aborted_by="client")
            raise
        if recording is not None:
            recording.response(response)
            recording.end(OK, metadata=trailing)
        return response


async def _pass_metadata_on(
    call: Any, context: Any, recording: CallRecording | None
) -> tuple[tuple[str, str | bytes], ...]:
    """Pass on what came around an answer; return what came behind it."""
    initial = tuple(await call.initial_metadata())
    trailing = tuple(await call.trailing_metadata())
    if recording is not None:
        recording.initial(initial)
    if first := (*initial, *returned_id(recording, (*initial, *trailing))):
        await context.send_initial_metadata(first)
    if trailing:
        context.set_trailing_metadata(trailing)
    if details := await call.details():
        context.set_details(details)
    return trailing
