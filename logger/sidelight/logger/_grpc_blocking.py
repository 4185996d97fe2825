"""Handlers that run in threads, wrapped so that a recording sees their bytes."""

from collections.abc import Callable, Iterator
from typing import Any

import grpc

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


def blocking_handler(handler: Any, method: Method, recorder: Recorder, defer: Defer) -> Any:
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

    def unary_unary(self, request: bytes, context: Any) -> bytes:
        metadata = context.invocation_metadata()
        path = self._method.path.decode()
        recording = self._recorder.call(path, metadata, request, self._defer)
        watched = _Context(context, recording, self._recorder.counts)
        with watched:
            answer = self._handler.unary_unary(self._decode(request), watched)
            return watched.answer(self._encode, answer)
        raise AssertionError("a context does not swallow")

    def unary_stream(self, request: bytes, context: Any) -> Iterator[bytes]:
        watched = self._streaming(context)
        with watched:
            watched.asked(request)
            for message in self._handler.unary_stream(self._decode(request), watched):
                yield watched.answer(self._encode, message)

    def stream_unary(self, requests: Iterator[bytes], context: Any) -> bytes:
        watched = self._streaming(context)
        with watched:
            answer = self._handler.stream_unary(self._requests(requests, watched), watched)
            return watched.answer(self._encode, answer)
        raise AssertionError("a context does not swallow")

    def stream_stream(self, requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        watched = self._streaming(context)
        with watched:
            asked = self._requests(requests, watched)
            for message in self._handler.stream_stream(asked, watched):
                yield watched.answer(self._encode, message)

    def _requests(self, requests: Iterator[bytes], watched: "_Context") -> Iterator[Any]:
        for message in requests:
            watched.asked(message)
            yield self._decode(message)

    def _streaming(self, context: Any) -> "_Context":
        metadata = context.invocation_metadata()
        recording = None
        if self._recorder.wants(self._method, metadata):
            recording = StreamRecording(self._recorder, self._method, metadata, defer=self._defer)
        return _Context(context, recording, self._recorder.counts)


class _Context:
    """The context that a servicer is given: it takes note of what goes through it."""

    def __init__(self, context: Any, recording: Recording | None, counts: GrpcCounts) -> None:
        self._context = context
        self._recording = recording
        self._counts = counts
        self._initial: Metadata | None = None
        self._trailing: tuple[tuple[str, str | bytes], ...] = ()
        self._code = OK
        self._has_ended = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def __enter__(self) -> None:
        self._counts.called()

    def __exit__(self, kind: type[BaseException] | None, _: object, __: object) -> None:
        self._counts.ended()
        code, aborted_by = self._code, ""
        if kind is GeneratorExit or not self._is_active():
            code, aborted_by = code_of_cancelled(self._context), "client"
        elif kind is not None and code == OK:
            code = UNKNOWN
            self._tell_behind()
        if self._recording is not None:
            self._recording.initial(self._initial or ())
            self._recording.end(code, metadata=self._trailing, aborted_by=aborted_by)

    def _is_active(self) -> bool:
        # A call that was aborted is no longer active either; in a server of grpc.aio the context
        # of a thread cannot tell.
        is_active = getattr(self._context, "is_active", None)
        return self._code != OK or is_active is None or bool(is_active())

    def asked(self, message: bytes) -> None:
        """Take note of a request."""
        if self._recording is not None:
            self._recording.request(message)

    def answer(self, encode: Callable[[Any], bytes], message: Any) -> bytes:
        """Return the bytes of an answer, with what the caller is told before the first."""
        if self._code != OK:
            # The server discards the message and sends the status alone.
            self._tell_behind()
            return b""
        raw = encode(message)
        if self._initial is None and self._told():
            self.send_initial_metadata(())
        if self._recording is not None:
            self._recording.response(raw)
        return raw

    def send_initial_metadata(self, metadata: Metadata) -> None:
        self._initial = tuple(metadata)
        told = returned_id(self._recording, self._initial)
        self._context.send_initial_metadata((*self._initial, *told))

    def set_trailing_metadata(self, metadata: Metadata) -> None:
        # A server of grpc.aio 1.60 lets a handler in a thread go on after `abort`.
        if not self._has_ended:
            self._trailing = tuple(metadata)
            self._context.set_trailing_metadata(self._trailing)

    def set_code(self, code: Any) -> None:
        if not self._has_ended:
            self._code = code_number(code)
            self._context.set_code(code)

    def abort(self, code: Any, details: str = "", *trailing: Metadata) -> None:
        self._code = code_number(code)
        if trailing:
            self._trailing = tuple(trailing[0])
        self._tell_behind()
        self._has_ended = True
        self._context.abort(code, details)

    def abort_with_status(self, status: Any) -> None:
        self._code = code_number(status.code)
        self._trailing = tuple(status.trailing_metadata or ()) or self._trailing
        self._tell_behind()
        self._has_ended = True
        self._context.abort(status.code, status.details)

    def _told(self) -> tuple[tuple[str, str], ...]:
        """Return the id that the caller does not know yet."""
        return returned_id(self._recording, self._trailing) if self._initial is None else ()

    def _tell_behind(self) -> None:
        """Tell the id behind a failure, which has nothing in front."""
        if self._has_ended:
            return
        if told := self._told():
            self._context.set_trailing_metadata((*self._trailing, *told))
        elif self._trailing:
            self._context.set_trailing_metadata(self._trailing)


def _same(message: Any) -> Any:
    return message
