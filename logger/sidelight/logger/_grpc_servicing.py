"""Handlers of ``grpc.aio`` that run on the loop, wrapped so that a recording sees their bytes."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import grpc.aio

from sidelight.logger._grpc_body import GrpcCounts
from sidelight.logger._grpc_defer import Defer
from sidelight.logger._grpc_forwarding import code_number, code_of_cancelled
from sidelight.logger._grpc_head import Metadata
from sidelight.logger._grpc_method import Method
from sidelight.logger._grpc_recorder import (
    Recorder,
    Recording,
    returned_id,
)
from sidelight.logger._grpc_status import OK, UNKNOWN
from sidelight.logger._grpc_stream import StreamRecording


def awaiting_handler(handler: Any, method: Method, recorder: Recorder, defer: Defer) -> Any:
    """Return a handler that does what the other does, and records it.

    It takes and gives bytes: the other's messages are made and written in it.
    """
    calls = _Calls(handler, method, recorder, defer)
    if handler.unary_unary:
        return grpc.unary_unary_rpc_method_handler(calls.unary_unary)
    if handler.unary_stream:
        return grpc.unary_stream_rpc_method_handler(calls.unary_stream)
    if handler.stream_unary:
        return grpc.stream_unary_rpc_method_handler(calls.stream_unary)
    return grpc.stream_stream_rpc_method_handler(calls.stream_stream)


class _Calls:
    def __init__(self, handler: Any, method: Method, recorder: Recorder, defer: Defer) -> None:
        self._handler = handler
        self._decode: Callable[[bytes], Any] = handler.request_deserializer or _same
        self._encode: Callable[[Any], bytes] = handler.response_serializer or _same
        self._method = method
        self._recorder = recorder
        self._defer = defer

    async def unary_unary(self, request: bytes, context: Any) -> bytes:
        metadata = context.invocation_metadata()
        recording = self._recorder.call(self._method.path.decode(), metadata, request, self._defer)
        watched = _Context(context, self._decode, self._encode, recording, self._recorder.counts)
        async with watched:
            answer = await self._handler.unary_unary(self._decode(request), watched)
            return await watched.answer(answer)
        raise AssertionError("a context does not swallow")

    async def unary_stream(self, request: bytes, context: Any) -> None:
        watched = self._streaming(context)
        async with watched:
            watched.asked(request)
            await _answered(self._handler.unary_stream, self._decode(request), watched)

    async def stream_unary(self, _: Any, context: Any) -> bytes:
        watched = self._streaming(context)
        async with watched:
            answer = await self._handler.stream_unary(watched.requests(), watched)
            return await watched.answer(answer)
        raise AssertionError("a context does not swallow")

    async def stream_stream(self, _: Any, context: Any) -> None:
        watched = self._streaming(context)
        async with watched:
            await _answered(self._handler.stream_stream, watched.requests(), watched)

    def _streaming(self, context: Any) -> "_Context":
        metadata = context.invocation_metadata()
        recording = None
        if self._recorder.wants(self._method, metadata):
            recording = StreamRecording(
                self._recorder,
                self._method,
                metadata,
                defer=self._defer,
                loop=asyncio.get_running_loop(),
            )
        return _Context(context, self._decode, self._encode, recording, self._recorder.counts)


async def _answered(behaviour: Any, asked: Any, watched: "_Context") -> None:
    """Run a handler of either kind: a generator of answers, or one that writes them."""
    answers = behaviour(asked, watched)
    if hasattr(answers, "__aiter__"):
        async for message in answers:
            await watched.write(message)
    else:
        await answers


class _Context:
    """The context that a servicer is given: it takes note of what goes through it."""

    def __init__(
        self,
        context: Any,
        decode: Callable[[bytes], Any],
        encode: Callable[[Any], bytes],
        recording: Recording | None,
        counts: GrpcCounts,
    ) -> None:
        self._context = context
        self._decode = decode
        self._encode = encode
        self._recording = recording
        self._counts = counts
        self._initial: Metadata | None = None
        self._trailing: tuple[tuple[str, str | bytes], ...] = ()
        self._code = OK

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    async def __aenter__(self) -> None:
        self._counts.called()

    async def __aexit__(self, _: object, error: BaseException | None, __: object) -> None:
        self._counts.ended()
        code, aborted_by = self._code, ""
        if isinstance(error, asyncio.CancelledError):
            code, aborted_by = code_of_cancelled(self._context), "client"
        elif error is not None and code == OK:
            code = UNKNOWN
            self._tell_behind()
        self._end(code, aborted_by)

    def _end(self, code: int, aborted_by: str) -> None:
        if self._recording is not None:
            self._recording.initial(self._initial or ())
            self._recording.end(code, metadata=self._trailing, aborted_by=aborted_by)

    def asked(self, message: bytes) -> None:
        """Take note of a request."""
        if self._recording is not None:
            self._recording.request(message)

    async def requests(self) -> AsyncIterator[Any]:
        """Yield the requests of a stream."""
        while (message := await self.read()) is not grpc.aio.EOF:
            yield message

    async def answer(self, message: Any) -> bytes:
        """Return the bytes of the only answer, with what the caller is told before it."""
        if self._code != OK:
            # The server discards the message and sends the status alone.
            self._tell_behind()
            return b""
        raw = self._encode(message)
        await self._begin()
        if self._recording is not None:
            self._recording.response(raw)
        return raw

    async def read(self) -> Any:
        raw = await self._context.read()
        if raw is grpc.aio.EOF:
            return raw
        self.asked(raw)
        return self._decode(raw)

    async def write(self, message: Any) -> None:
        raw = self._encode(message)
        await self._begin()
        await self._context.write(raw)
        if self._recording is not None:
            self._recording.response(raw)

    async def _begin(self) -> None:
        if self._initial is None and self._told():
            await self.send_initial_metadata(())

    async def send_initial_metadata(self, metadata: Metadata) -> None:
        self._initial = tuple(metadata)
        told = returned_id(self._recording, self._initial)
        await self._context.send_initial_metadata((*self._initial, *told))

    def set_trailing_metadata(self, metadata: Metadata) -> None:
        self._trailing = tuple(metadata)
        self._context.set_trailing_metadata(self._trailing)

    def set_code(self, code: Any) -> None:
        self._code = code_number(code)
        self._context.set_code(code)

    async def abort(self, code: Any, details: str = "", trailing_metadata: Metadata = ()) -> None:
        self._code = code_number(code)
        self._trailing = tuple(trailing_metadata) or self._trailing
        await self._context.abort(code, details, (*self._trailing, *self._told()))

    async def abort_with_status(self, status: Any) -> None:
        await self.abort(status.code, status.details, status.trailing_metadata)

    def _told(self) -> tuple[tuple[str, str], ...]:
        """Return the id that the caller does not know yet."""
        return returned_id(self._recording, self._trailing) if self._initial is None else ()

    def _tell_behind(self) -> None:
        """Tell the id behind a failure, which has nothing in front."""
        if told := self._told():
            self._context.set_trailing_metadata((*self._trailing, *told))


def _same(message: Any) -> Any:
    return message
