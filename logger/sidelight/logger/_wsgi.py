"""Capture inside a WSGI application: Flask, Django, and the MLflow scoring server's kind."""

import logging
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from sidelight.logger._body_copy import BodyCopy, CopyBudget
from sidelight.logger._connections import Limits
from sidelight.logger._copied_exchange import CLIENT_GONE, FAILED, CopiedExchange
from sidelight.logger._in_process import SinkOption, emitter_of

log = logging.getLogger(__name__)

_Environ = dict[str, Any]
_Write = Callable[[bytes], object]
_StartResponse = Callable[..., _Write]
_App = Callable[[_Environ, _StartResponse], Iterable[bytes]]

_LIMITS: Final = Limits()
_SAFE: Final = "/!$&'()*+,;=:@~"


class CaptureWsgiMiddleware:
    """Copy what a WSGI application is asked and answers, and hand it to an emitter.

    Parameters, errors and the one difference that callers see are those of ``CaptureMiddleware``.

    Parameters
    ----------
    app : WSGI application
        What is captured.
    sink : str, callable or ThreadedEmitter
        The address of a collector or broker; or makes a sink; or an emitter to share.
    deployment : str, optional
        ``namespace/name`` of everything that passes; otherwise the path tells.
    spool : Path or str, optional
        Folder for what the sink does not take; shared by the processes of a host.
    capture_limit : int, default 11 MiB
        Bytes of a body that are kept; of a longer one the digest and the length are told.

    Raises
    ------
    ValueError
        When an option cannot be used.

    Examples
    --------
    ``app.wsgi_app = CaptureWsgiMiddleware(app.wsgi_app, sink="http://collector:8090/")``

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

    def __call__(self, environ: _Environ, start_response: _StartResponse) -> Iterable[bytes]:
        """Answer one request; see PEP 3333."""
        exchange = self._begin(environ)
        if exchange is None:
            return self.app(environ, start_response)
        begin = _Begin(exchange, start_response)
        try:
            result = self.app(environ, begin)
        except BaseException:
            exchange.end(FAILED, aborted_by="upstream" if exchange.status else "")
            raise
        if hasattr(result, "__len__"):
            return _SizedAnswer(result, exchange)
        return _Answer(result, exchange)

    def _begin(self, environ: _Environ) -> CopiedExchange | None:
        try:
            method, target, head = _head(environ)
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
            environ["wsgi.input"] = _Input(environ["wsgi.input"], exchange.request)
        except Exception:
            self.emitter.tap_errors += 1
            log.exception("a request cannot be captured")
            return None
        return exchange


class _Begin:
    """``start_response``: notes the last head, and copies what is given to ``write``."""

    __slots__ = ("_exchange", "_start_response")

    def __init__(self, exchange: CopiedExchange, start_response: _StartResponse) -> None:
        self._exchange = exchange
        self._start_response = start_response

    def __call__(self, status: str, headers: list[tuple[str, str]], *exc_info: Any) -> _Write:
        exchange = self._exchange
        given = headers
        try:
            head = _response_head(status, headers)
            if own_id := exchange.identify(head):
                given = [*headers, ("X-Request-Id", own_id.decode())]
            number = int(status[:3])
        except Exception:
            # The server says what is wrong with such an answer.
            log.exception("the head of an answer cannot be captured")
            return self._start_response(status, headers, *exc_info)
        write = self._start_response(status, given, *exc_info)
        exchange.answer(number, head)

        def write_copied(data: bytes) -> None:
            write(data)
            exchange.response.add(data)

        return write_copied


class _Answer:
    """The application's iterable, with a copy of what the server takes from it."""

    def __init__(self, result: Iterable[bytes], exchange: CopiedExchange) -> None:
        self._result = result
        self._rest: Iterator[bytes] | None = None
        self._exchange = exchange

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        exchange = self._exchange
        try:
            if self._rest is None:
                self._rest = iter(self._result)
            data = next(self._rest)
        except StopIteration:
            exchange.end()
            raise
        except BaseException:
            exchange.end(FAILED, aborted_by="upstream" if exchange.status else "")
            raise
        if data:
            exchange.response.add(data)
        return data

    def close(self) -> None:
        """End what the server does not ask for any more."""
        # The server stops in the middle when nobody listens any more.
        self._exchange.end(CLIENT_GONE, aborted_by="client")
        close = getattr(self._result, "close", None)
        if close is not None:
            close()


class _SizedAnswer(_Answer):
    """An answer whose length servers ask for: one of a single piece needs no chunks."""

    def __len__(self) -> int:
        return len(self._result)  # type: ignore[arg-type]  # asked before it was made


class _Input:
    """``wsgi.input``, with a copy of what the application reads for the first time."""

    def __init__(self, stream: Any, body: BodyCopy) -> None:
        self._stream = stream
        self._body = body
        self._place = 0
        self._end = 0

    def read(self, *size: int) -> bytes:
        return self._copied(self._stream.read(*size))

    def readline(self, *size: int) -> bytes:
        return self._copied(self._stream.readline(*size))

    def readlines(self, *hint: int) -> list[bytes]:
        return [self._copied(line) for line in self._stream.readlines(*hint)]

    def __iter__(self) -> Iterator[bytes]:
        for line in self._stream:
            yield self._copied(line)

    # The rest is what some servers have beside what PEP 3333 asks for.

    def read1(self, *size: int) -> bytes:
        return self._copied(self._stream.read1(*size))

    def readinto(self, buffer: bytearray | memoryview) -> int:
        size: int = self._stream.readinto(buffer)
        self._copied(bytes(buffer[:size]))
        return size

    def seek(self, *place: int) -> int:
        self._place = self._stream.seek(*place)
        return self._place

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _copied(self, data: bytes) -> bytes:
        self._place += len(data)
        n_new = self._place - self._end
        if n_new > 0:
            self._body.add(data[-n_new:] if n_new < len(data) else data)
            self._end = self._place
        return data


def _head(environ: _Environ) -> tuple[bytes, bytes, bytes]:
    method = environ["REQUEST_METHOD"].encode("latin-1")
    # As it was sent, where the server tells that: gunicorn, then uWSGI and waitress.
    target = environ.get("RAW_URI") or environ.get("REQUEST_URI")
    if not target:
        path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
        target = quote(path.encode("latin-1"), safe=_SAFE) or "/"
        if query := environ.get("QUERY_STRING"):
            target += f"?{query}"
    headers = [
        (name[5:].replace("_", "-").title(), value)
        for name, value in environ.items()
        if name.startswith("HTTP_") and isinstance(value, str)
    ]
    for name, key in (("Content-Type", "CONTENT_TYPE"), ("Content-Length", "CONTENT_LENGTH")):
        if value := environ.get(key):
            headers.append((name, value))
    version = environ.get("SERVER_PROTOCOL", "HTTP/1.1")
    line = f"{environ['REQUEST_METHOD']} {target} {version}\r\n"
    return method, target.encode("latin-1"), _encoded(line, headers)


def _response_head(status: str, headers: Iterable[tuple[str, str]]) -> bytes:
    return _encoded(f"HTTP/1.1 {status}\r\n", headers)


def _encoded(line: str, headers: Iterable[tuple[str, str]]) -> bytes:
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers])
    return f"{line}{lines}\r\n".encode("latin-1")
