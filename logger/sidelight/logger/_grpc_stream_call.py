"""A call with streams of messages, or of an unknown kind, passed on message by message."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, cast

import grpc
import grpc.aio

from sidelight.logger._grpc_defer import Defer
from sidelight.logger._grpc_forwarding import (
    code_number,
    code_of_cancelled,
    fail,
    forwarded,
    is_failure,
)
from sidelight.logger._grpc_head import Metadata
from sidelight.logger._grpc_method import METHODS
from sidelight.logger._grpc_recorder import Recorder, returned_id
from sidelight.logger._grpc_status import OK
from sidelight.logger._grpc_stream import StreamRecording

log = logging.getLogger(__name__)

# A failure that comes at once comes without metadata at the beginning. That there is none in an
# answer is certain only after a while; it is not known which of both it will be.
_BEGIN_S: Final = 0.02


class StreamCalls:
    """Passes on calls of one method, whatever number of messages it has on either side.

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
        self._channel = channel
        self._recorder = recorder
        self._path = path
        self._defer = defer

    async def relay(self, requests: AsyncIterator[bytes], context: Any) -> None:
        """Pass one call on; each message in each direction as it comes."""
        counts = self._recorder.counts
        counts.called()
        metadata = context.invocation_metadata()
        recording = self._recording(metadata)
        call = self._channel.stream_stream(self._path)(
            timeout=context.time_remaining(), metadata=forwarded(metadata)
        )
        sending = asyncio.create_task(_send(requests, call, recording))
        answer = _Answer(context, call, recording)
        try:
            await answer.pass_on()
        except grpc.aio.AioRpcError as error:
            counts.upstream_errors += is_failure(error.code())
            trailing = tuple(error.trailing_metadata() or ())
            told = answer.untold()
            if recording is not None:
                recording.end(code_number(error.code()), metadata=trailing)
            await fail(context, error, told=told, has_begun=answer.has_begun)
        except BaseException:
            # The client has gone: while it waited, or when a message was to be written.
            call.cancel()
            if recording is not None:
                recording.end(code_of_cancelled(context), aborted_by="client")
            raise
        finally:
            counts.ended()
            sending.cancel()
            await asyncio.wait({sending})
            if not sending.cancelled() and (failure := sending.exception()) is not None:
                # The client has gone while its messages were read; how the call ended is known.
                log.debug("requests of a gRPC call ended early", exc_info=failure)

    def _recording(self, metadata: Metadata) -> StreamRecording | None:
        method = METHODS.get(self._path)
        if method is None or not self._recorder.wants(method, metadata):
            return None
        return StreamRecording(
            self._recorder,
            method,
            metadata,
            defer=self._defer,
            loop=asyncio.get_running_loop(),
        )


class _Answer:
    """The way back of one call."""

    def __init__(self, context: Any, call: Any, recording: StreamRecording | None) -> None:
        self._context = context
        self._call = call
        self._recording = recording
        self._told: tuple[tuple[str, str], ...] | None = None
        self.has_begun = False

    async def pass_on(self) -> None:
        """Pass on metadata, messages and the end.

        Raises
        ------
        AioRpcError
            When the other side ends the call with a status other than OK.

        """
        call, recording = self._call, self._recording
        initial = tuple(await call.initial_metadata())
        reading = asyncio.ensure_future(call.read())
        try:
            if not initial:
                await asyncio.wait({reading}, timeout=_BEGIN_S)
            if initial or not reading.done() or not _is_end(reading):
                await self._begin(initial)
            while (message := await reading) is not grpc.aio.EOF:
                await self._context.write(message)
                if recording is not None:
                    recording.response(message)
                reading = asyncio.ensure_future(call.read())
        finally:
            reading.cancel()
        await self._end()

    async def _begin(self, initial: tuple[tuple[str, str | bytes], ...]) -> None:
        self.has_begun = True
        if self._recording is not None:
            self._recording.initial(initial)
        await self._context.send_initial_metadata((*initial, *self.untold(initial)))

    async def _end(self) -> None:
        trailing = tuple(await self._call.trailing_metadata())
        if left := (*trailing, *self.untold(trailing)):
            self._context.set_trailing_metadata(left)
        if details := await self._call.details():
            self._context.set_details(details)
        if self._recording is not None:
            self._recording.end(OK, metadata=trailing)

    def untold(self, metadata: Metadata = ()) -> tuple[tuple[str, str], ...]:
        """Return what the client is to be told of the call's id; nothing the second time."""
        told, self._told = self._told, ()
        return returned_id(self._recording, metadata) if told is None else ()


def _is_end(reading: "asyncio.Future[Any]") -> bool:
    return reading.exception() is not None or reading.result() is grpc.aio.EOF


async def _send(
    requests: AsyncIterator[bytes], call: Any, recording: StreamRecording | None
) -> None:
    # What ends the call is told by its other side.
    with contextlib.suppress(
        grpc.aio.AioRpcError, grpc.aio.InternalError, asyncio.InvalidStateError
    ):
        write = await _writing(call)
        async for message in requests:
            if recording is not None:
                recording.request(message)
            await write(message)
        await call.done_writing()


async def _writing(call: Any) -> Callable[[bytes], Awaitable[None]]:
    """Return the function that writes messages.

    ``write`` of a call puts an internal error in the place of the status when the other side has
    ended the call meanwhile: of calls that were refused early, a third lost their status. What it
    calls does not; it has the same name in grpcio 1.60 and 1.85.
    """
    write = getattr(getattr(call, "_cython_call", None), "send_serialized_message", None)
    if write is None:
        return cast("Callable[[bytes], Awaitable[None]]", call.write)
    await call.wait_for_connection()
    return cast("Callable[[bytes], Awaitable[None]]", write)
