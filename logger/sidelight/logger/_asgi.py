"""Capture inside an ASGI application: FastAPI, Starlette, BentoML and their like."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from sidelight.logger._body_copy import CopyBudget
from sidelight.logger._connections import Limits
from sidelight.logger._copied_exchange import CLIENT_GONE, FAILED, CopiedExchange
from sidelight.logger._emitter_thread import ThreadedEmitter
from sidelight.logger._in_process import SinkOption, emitter_of

log = logging.getLogger(__name__)

_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]
_App = Callable[[_Message, _Receive, _Send], Awaitable[None]]

_LIMITS: Final = Limits()
_SHUTDOWN: Final = ("lifespan.shutdown.complete", "lifespan.shutdown.failed")


class CaptureMiddleware:
    """Copy what an ASGI application is asked and answers, and hand it to an emitter.

    The application gets its messages and gives its answers one by one as without it; the only
    difference is the header ``X-Request-Id`` in answers to callers that gave no id. WebSockets
    pass untouched. At the shutdown that the lifespan tells, what was captured is delivered.

    Parameters
    ----------
    app : ASGI application
        What is captured.
    sink : str, callable or ThreadedEmitter
        The address of a collector or broker; or makes a sink; or an emitter to share.
    deployment : str, optional
        ``namespace/name`` of everything that passes; otherwise the path tells.
    spool : Path or str, optional
        Folder for what the sink does not take; shared by the processes of a host. Without it
        there is only memory.
    capture_limit : int, default 11 MiB
        Bytes of a body that are kept; of a longer one the digest and the length are told.

    Raises
    ------
    ValueError
        When an option cannot be used.

    Examples
    --------
    ``app.add_middleware(CaptureMiddleware, sink="http://collector:8090/", deployment="prod/iris")``

    """

    def __init__(
        self,
        app: _App,
        *,
        sink: SinkOption,
        deployment: str | None = None,
        spool: Path | str | None = None,
        capture_limit: int = _LIMITS.capture_limit,
    ) -> None:
        self.app = app
        self.emitter = emitter_of(sink, deployment=deployment, spool=spool)
        self._limit = capture_limit
        self._budget = CopyBudget(_LIMITS.max_captured_bytes)

    async def __call__(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        """Serve one connection; see the ASGI specification."""
        if scope["type"] == "http":
            call = self._begin(scope, receive, send)
            if call is not None:
                await call.serve(self.app, scope)
                return
        elif scope["type"] == "lifespan":
            send = _flushing(send, self.emitter)
        await self.app(scope, receive, send)

    def _begin(self, scope: _Message, receive: _Receive, send: _Send) -> "_Call | None":
        try:
            method, target, head = _head(scope)
            if not self.emitter.wants(method, target, head):
                return None
            exchange = CopiedExchange(
                self.emitter,
                method=method,
                target=target,
                head=head,
                limit=self._limit,
                budget=self._budget,
            )
        except Exception:
            self.emitter.tap_errors += 1
            log.exception("a request cannot be captured")
            return None
        return _Call(exchange, self.emitter, receive, send)


class _Call:
    """One request of the application, with its two ways."""

    __slots__ = ("_emitter", "_exchange", "_is_gone", "_receive", "_send")

    def __init__(
        self, exchange: CopiedExchange, emitter: ThreadedEmitter, receive: _Receive, send: _Send
    ) -> None:
        self._exchange = exchange
        self._emitter = emitter
        self._receive = receive
        self._send = send
        self._is_gone = False

    async def serve(self, app: _App, scope: _Message) -> None:
        try:
            await app(scope, self.receive, self.send)
        except asyncio.CancelledError:
            # The server cancels what nobody waits for any more.
            self._is_gone = True
            raise
        finally:
            # After a complete answer this says nothing new.
            if self._is_gone:
                self._exchange.end(CLIENT_GONE, aborted_by="client")
            else:
                self._exchange.end(FAILED, aborted_by="upstream" if self._exchange.status else "")

    async def receive(self) -> _Message:
        message = await self._receive()
        if message["type"] == "http.request":
            if body := message.get("body"):
                self._exchange.request.add(body)
        elif message["type"] == "http.disconnect":
            self._is_gone = True
        return message

    async def send(self, message: _Message) -> None:
        kind = message["type"]
        if kind == "http.response.start":
            message = self._begun(message)
        try:
            await self._send(message)
        except OSError:
            # So the specification has a server say that the client has gone.
            self._is_gone = True
            raise
        if kind == "http.response.body":
            self._passed(message)
        elif kind == "http.response.pathsend":
            # The server sends a file, which nobody here has seen.
            self._exchange.response.cut += _size_of(message)
            self._end()

    def _begun(self, message: _Message) -> _Message:
        exchange = self._exchange
        try:
            status, headers = message["status"], list(message.get("headers") or ())
            head = _response_head(status, headers)
            if own_id := exchange.identify(head):
                message = {**message, "headers": [*headers, (b"x-request-id", own_id)]}
            if not self._is_gone:
                exchange.answer(status, head)
        except Exception:
            # The server says what is wrong with such an answer.
            self._emitter.tap_errors += 1
            log.exception("the head of an answer cannot be captured")
        return message

    def _passed(self, message: _Message) -> None:
        if body := message.get("body"):
            self._exchange.response.add(body)
        if not message.get("more_body"):
            # Not when the application returns: its background tasks are none of the caller's.
            self._end()

    def _end(self) -> None:
        self._exchange.end(CLIENT_GONE, aborted_by="client" if self._is_gone else "")


def _size_of(message: _Message) -> int:
    try:
        return Path(message["path"]).stat().st_size
    except (OSError, KeyError):
        return 0


def _head(scope: _Message) -> tuple[bytes, bytes, bytes]:
    method = scope["method"].encode("latin-1")
    target = scope.get("raw_path") or quote(scope["path"]).encode()
    if query := scope.get("query_string"):
        target += b"?" + query
    version = scope.get("http_version", "1.1").encode("latin-1")
    line = b"%b %b HTTP/%b\r\n" % (method, target, version)
    return method, target, line + _lines(scope["headers"])


def _response_head(status: int, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    try:
        phrase = HTTPStatus(status).phrase.encode()
    except ValueError:
        phrase = b""
    return b"HTTP/1.1 %d %b\r\n" % (status, phrase) + _lines(headers)


def _lines(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    return b"".join([b"%b: %b\r\n" % (name, value) for name, value in headers]) + b"\r\n"


def _flushing(send: _Send, emitter: ThreadedEmitter) -> _Send:
    """Deliver before the server knows that it may end: it may then end by a signal."""

    async def send_flushed(message: _Message) -> None:
        if message["type"] in _SHUTDOWN:
            await _flush(emitter)
        await send(message)

    return send_flushed


async def _flush(emitter: ThreadedEmitter) -> None:
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:  # another library's loop; nothing else runs on it any more
        emitter.flush()
    else:
        await loop.run_in_executor(None, emitter.flush)
