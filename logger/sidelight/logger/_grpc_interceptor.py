"""Capture inside of a server of gRPC: interceptors that see messages as they are on the wire."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, Final

import grpc
import grpc.aio

from sidelight.logger._exchange import Exchange, Tap
from sidelight.logger._grpc_blocking import blocking_handler
from sidelight.logger._grpc_body import GrpcCounts, GrpcLimits
from sidelight.logger._grpc_defer import Defer
from sidelight.logger._grpc_method import METHODS
from sidelight.logger._grpc_recorder import Recorder
from sidelight.logger._grpc_servicing import awaiting_handler


class CaptureInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc] # grpc has no types
    """Capture the inferences that a server of ``grpc.aio`` answers.

    Handlers may be coroutines, generators or plain functions, which such a server runs in
    threads. Other methods than those of inferences are not touched. A call without an id gets
    one, which the caller finds in the metadata as ``x-request-id``.

    Parameters
    ----------
    tap : Tap
        Takes exchanges on the loop of the server: an ``Emitter`` that runs there, or a
        ``ThreadedEmitter``.
    limits : GrpcLimits, optional
        Bounds of what is kept.

    Attributes
    ----------
    counts : GrpcCounts
        What happened to calls and captures.

    Examples
    --------
    ``server = grpc.aio.server(interceptors=[CaptureInterceptor(emitter)])``

    """

    def __init__(self, tap: Tap, *, limits: GrpcLimits | None = None) -> None:
        self._recorder = Recorder(tap, limits=limits)
        self.counts: GrpcCounts = self._recorder.counts

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any
    ) -> Any:
        """Return the handler of a call, so that it records what it passes."""
        handler = await continuation(handler_call_details)
        method = METHODS.get(handler_call_details.method)
        if handler is None or method is None:
            return handler
        loop = asyncio.get_running_loop()
        if is_awaiting(behaviour_of(handler)):
            return awaiting_handler(handler, method, self._recorder, Defer.on(loop))
        return blocking_handler(handler, method, self._recorder, _from_threads(loop))


class BlockingCaptureInterceptor(grpc.ServerInterceptor):  # type: ignore[misc] # grpc has no types
    """Capture the inferences that a server of ``grpc`` with threads answers.

    Parameters
    ----------
    tap : Tap
        Takes exchanges from any thread: a ``ThreadedEmitter``.
    limits : GrpcLimits, optional
        Bounds of what is kept.

    Attributes
    ----------
    counts : GrpcCounts
        What happened to calls and captures.

    """

    def __init__(self, tap: Tap, *, limits: GrpcLimits | None = None) -> None:
        self._recorder = Recorder(tap, limits=limits)
        self.counts: GrpcCounts = self._recorder.counts

    def intercept_service(
        self, continuation: Callable[[Any], Any], handler_call_details: Any
    ) -> Any:
        """Return the handler of a call, so that it records what it passes."""
        handler = continuation(handler_call_details)
        method = METHODS.get(handler_call_details.method)
        if handler is None or method is None:
            return handler
        return blocking_handler(handler, method, self._recorder, _AT_ONCE)


def behaviour_of(handler: Any) -> Any:
    """Return the function of a handler, which has one of four shapes."""
    return (
        handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
    )


def is_awaiting(behaviour: Any) -> bool:
    """Whether a function runs on the loop; ``grpc.aio`` decides by the same."""
    return inspect.iscoroutinefunction(behaviour) or inspect.isasyncgenfunction(behaviour)


def _from_threads(loop: asyncio.AbstractEventLoop) -> Defer:
    return Defer(loop.call_soon_threadsafe, loop.call_soon_threadsafe)


def _now(offer: Callable[[Exchange], None], exchange: Exchange) -> None:
    offer(exchange)


_AT_ONCE: Final = Defer(_now, _now)
