# ruff: noqa: ARG001, ARG002 - the interface of ASGI has them all
import asyncio
import contextlib
import hashlib
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import BackgroundTasks, FastAPI, Request
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from sidelight.logger._asgi import CaptureMiddleware
from sidelight.logger._emitter import Emitter
from sidelight.logger._emitter_thread import ThreadedEmitter
from sidelight.logger._exchange import Exchange
from sidelight.logger._selection import Selection
from sidelight.logger._sink_http import HttpSink

PATIENCE_S = 60.0
Message = dict[str, Any]


class Kept(ThreadedEmitter):
    """Keeps what it is offered."""

    def __init__(self) -> None:
        def refuse(folder: Path | None) -> Emitter:
            raise AssertionError("nothing is delivered here")

        super().__init__(refuse, selection=Selection())
        self.exchanges: list[Exchange] = []
        self.arrived = threading.Condition()
        self.n_flushes = 0

    def offer(self, exchange: Exchange) -> None:
        with self.arrived:
            self.exchanges.append(exchange)
            self.arrived.notify_all()

    def new_id(self) -> bytes:
        return b"own-1"

    def flush(self, grace_s: float | None = None) -> bool:
        self.n_flushes += 1
        return True

    def one(self) -> Exchange:
        with self.arrived:
            assert self.arrived.wait_for(lambda: self.exchanges, PATIENCE_S)
            (exchange,) = self.exchanges
            return exchange


class Wire:
    """A server of the ASGI interface that a test drives message by message."""

    def __init__(
        self, *messages: Message, headers: list[tuple[bytes, bytes]] | None = None
    ) -> None:
        self.messages = list(messages) or [{"type": "http.request", "body": b"{}"}]
        self.sent: list[Message] = []
        self.scope: Message = {
            "type": "http",
            "http_version": "1.1",
            "method": "POST",
            "path": "/v2/models/m/infer",
            "raw_path": b"/v2/models/m/infer",
            "query_string": b"a=1",
            "headers": headers or [],
        }
        self.error: OSError | None = None

    async def receive(self) -> Message:
        return self.messages.pop(0) if self.messages else {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if self.error is not None:
            raise self.error
        self.sent.append(message)

    def serve(self, app: Callable[..., Awaitable[None]], tap: Kept, **options: Any) -> None:
        capture = CaptureMiddleware(app, sink=tap, **options)
        asyncio.run(_awaited(capture(self.scope, self.receive, self.send)))  # type: ignore[arg-type] # of messages


async def _awaited(work: Awaitable[None]) -> None:
    await work


async def echo(scope: Any, receive: Any, send: Any) -> None:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-a", b"1")]})
    for piece in (body, b"!"):
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body"})


def test_both_bodies_and_heads_are_recorded_as_http_has_them() -> None:
    tap = Kept()
    wire = Wire(
        {"type": "http.request", "body": b'{"a"', "more_body": True},
        {"type": "http.request", "body": b":1}"},
        headers=[(b"x-request-id", b"r1"), (b"content-type", b"application/json")],
    )
    wire.serve(echo, tap)

    exchange = tap.one()
    assert exchange.request_head == (
        b"POST /v2/models/m/infer?a=1 HTTP/1.1\r\n"
        b"x-request-id: r1\r\ncontent-type: application/json\r\n\r\n"
    )
    assert exchange.request_body == b'{"a":1}'
    assert exchange.response_head == b"HTTP/1.1 200 OK\r\nx-a: 1\r\n\r\n"
    assert exchange.response_body == b'{"a":1}!'
    assert (exchange.status, exchange.request_id, exchange.aborted_by) == (200, b"r1", "")
    assert exchange.latency_ms > 0
    assert exchange.finished_ns > exchange.started_ns


def test_the_answer_goes_out_message_by_message_as_it_came() -> None:
    wire = Wire(headers=[(b"ce-id", b"r1")])
    wire.serve(echo, Kept())

    assert wire.sent == [
        {"type": "http.response.start", "status": 200, "headers": [(b"x-a", b"1")]},
        {"type": "http.response.body", "body": b"{}", "more_body": True},
        {"type": "http.response.body", "body": b"!", "more_body": True},
        {"type": "http.response.body"},
    ]


def test_a_caller_without_an_id_is_told_the_one_that_is_recorded() -> None:
    tap, wire = Kept(), Wire()
    wire.serve(echo, tap)

    assert wire.sent[0]["headers"] == [(b"x-a", b"1"), (b"x-request-id", b"own-1")]
    assert tap.one().request_id == b"own-1"


def test_the_id_in_the_body_is_the_callers() -> None:
    tap, wire = Kept(), Wire({"type": "http.request", "body": b'{"id":"body-id","inputs":[]}'})
    wire.serve(echo, tap)

    assert wire.sent[0]["headers"] == [(b"x-a", b"1")]
    assert tap.one().request_id == b"body-id"


def test_an_id_that_the_application_tells_itself_is_kept() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"X-Request-Id", b"its-own")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"1"})

    tap, wire = Kept(), Wire()
    wire.serve(app, tap)

    assert wire.sent[0]["headers"] == [(b"X-Request-Id", b"its-own")]
    assert tap.one().request_id == b"its-own"


def test_long_bodies_pass_whole_and_are_recorded_cut_with_their_digest() -> None:
    body = bytes(range(256)) * 8
    tap, wire = Kept(), Wire({"type": "http.request", "body": body})
    wire.serve(echo, tap, capture_limit=100)

    assert b"".join(one.get("body", b"") for one in wire.sent) == body + b"!"
    exchange = tap.one()
    assert exchange.request_body == exchange.response_body == body[:100]
    assert (exchange.request_cut, exchange.response_cut) == (1948, 1949)
    assert exchange.request_digest == hashlib.sha256(body).digest()
    assert exchange.response_digest == hashlib.sha256(body + b"!").digest()


def test_a_body_that_nobody_read_to_its_end_counts_as_cut() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 413})
        await send({"type": "http.response.body"})

    tap = Kept()
    wire = Wire(
        {"type": "http.request", "body": b"12345", "more_body": True},
        headers=[(b"content-length", b"12")],
    )
    wire.serve(app, tap)

    assert (tap.one().request_body, tap.one().request_cut) == (b"12345", 7)


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        pytest.param("GET", "/v2/models/m", [], id="read"),
        pytest.param("POST", "/healthz", [], id="probe"),
        pytest.param("POST", "/v2/x", [(b"sidelight-skip", b"true")], id="marked"),
        pytest.param("POST", "/v2/x", [(b"seldon-skip-logging", b"true")], id="seldon"),
    ],
)
def test_what_is_no_inference_passes_untouched(
    method: str, path: str, headers: list[tuple[bytes, bytes]]
) -> None:
    tap, wire = Kept(), Wire(headers=headers)
    wire.scope |= {"method": method, "path": path, "raw_path": path.encode()}
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.extend((receive, send))
        await echo(scope, receive, send)

    wire.serve(app, tap)

    assert seen == [wire.receive, wire.send]
    assert tap.exchanges == []


def test_an_error_before_the_answer_is_raised_untouched_and_recorded_as_500() -> None:
    error = RuntimeError("secret of the application")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        raise error

    tap, wire = Kept(), Wire()
    with pytest.raises(RuntimeError) as caught:
        wire.serve(app, tap)

    assert caught.value is error
    exchange = tap.one()
    assert (exchange.status, exchange.request_body, exchange.response_head) == (500, b"{}", b"")


def test_an_error_within_the_answer_keeps_the_status_that_was_sent() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise KeyError("x")

    tap = Kept()
    with pytest.raises(KeyError):
        Wire().serve(app, tap)

    exchange = tap.one()
    assert (exchange.status, exchange.response_body) == (200, b"half")
    assert exchange.aborted_by == "upstream"


def test_a_client_that_leaves_before_the_answer_is_recorded_as_499() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    tap = Kept()
    Wire().serve(app, tap)

    assert (tap.one().status, tap.one().aborted_by) == (499, "client")


def test_an_answer_to_a_client_that_has_left_is_recorded_as_499() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        assert (await receive())["type"] == "http.disconnect"
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"into the void"})

    tap = Kept()
    Wire().serve(app, tap)

    assert (tap.one().status, tap.one().aborted_by) == (499, "client")


def test_a_server_that_cannot_send_any_more_says_that_the_client_left() -> None:
    wire, tap = Wire(), Kept()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        wire.error = OSError("gone")
        await send({"type": "http.response.body", "body": b"x", "more_body": True})

    with pytest.raises(OSError, match="gone"):
        wire.serve(app, tap)

    assert (tap.one().status, tap.one().aborted_by) == (200, "client")


def test_a_cancelled_request_is_recorded_as_499() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise asyncio.CancelledError

    tap = Kept()
    with pytest.raises(asyncio.CancelledError):
        Wire().serve(app, tap)

    assert tap.one().status == 499


def test_an_application_that_gives_no_answer_is_recorded_as_500() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()

    tap = Kept()
    Wire().serve(app, tap)

    assert tap.one().status == 500


def test_a_file_that_the_server_sends_is_counted_but_not_seen(tmp_path: Path) -> None:
    file = tmp_path / "answer"
    file.write_bytes(b"x" * 77)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.pathsend", "path": str(file)})

    tap = Kept()
    Wire().serve(app, tap)

    assert (tap.one().status, tap.one().response_cut, tap.one().aborted_by) == (200, 77, "")


def test_an_answer_that_breaks_the_rules_is_left_to_the_server() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "headers": 5})

    tap, wire = Kept(), Wire()
    wire.serve(app, tap)

    assert wire.sent == [{"type": "http.response.start", "headers": 5}]
    assert tap.tap_errors == 1


def test_a_request_that_breaks_the_rules_is_left_to_the_application() -> None:
    tap, wire = Kept(), Wire()
    del wire.scope["headers"]
    wire.serve(echo, tap)

    assert wire.sent[0]["status"] == 200
    assert tap.tap_errors == 1


def test_the_shutdown_of_the_lifespan_delivers_before_it_is_told() -> None:
    tap = Kept()
    sent: list[tuple[str, int]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})

    async def send(message: Any) -> None:
        sent.append((message["type"], tap.n_flushes))

    capture = CaptureMiddleware(app, sink=tap)
    asyncio.run(_awaited(capture({"type": "lifespan"}, Wire().receive, send)))

    assert sent == [("lifespan.startup.complete", 0), ("lifespan.shutdown.complete", 1)]


def test_settings_of_its_own_do_not_go_with_an_emitter_that_has_them() -> None:
    with pytest.raises(ValueError, match="emitter"):
        CaptureMiddleware(echo, sink=Kept(), deployment="a/b")


@pytest.mark.parametrize(
    "options", [{"sink": "ftp://x/"}, {"sink": "http://x/", "deployment": "a"}]
)
def test_what_cannot_work_is_refused_at_once(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        CaptureMiddleware(echo, **options)


# --- in frameworks ---


def ask(app: FastAPI, **options: Any) -> httpx.Response:
    async def work() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://model") as client:
            return await client.post("/predict", **options)

    return asyncio.run(work())


def test_fastapi_models_are_captured_by_one_line() -> None:
    tap, app = Kept(), FastAPI()
    app.add_middleware(CaptureMiddleware, sink=tap)
    order: list[str] = []

    @app.post("/predict")
    async def predict(request: Request, tasks: BackgroundTasks) -> dict[str, float]:
        tasks.add_task(lambda: order.append(f"task, {len(tap.exchanges)} recorded"))
        return {"y": sum((await request.json())["x"])}

    answer = ask(app, json={"x": [1, 2.5]})

    assert answer.json() == {"y": 3.5}
    assert answer.headers["x-request-id"] == "own-1"
    exchange = tap.one()
    assert json.loads(exchange.request_body) == {"x": [1, 2.5]}
    assert json.loads(exchange.response_body) == {"y": 3.5}
    # A background task is none of the caller's time.
    assert order == ["task, 1 recorded"]


def test_an_error_of_a_fastapi_model_is_recorded_and_answered_as_without() -> None:
    tap, app = Kept(), FastAPI()
    app.add_middleware(CaptureMiddleware, sink=tap)

    @app.post("/predict")
    def predict() -> None:
        raise ZeroDivisionError

    answer = ask(app)

    assert (answer.status_code, answer.text) == (500, "Internal Server Error")
    assert tap.one().status == 500


def test_websockets_pass_untouched() -> None:
    tap, wire = Kept(), Wire()
    wire.scope["type"] = "websocket"
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.extend((scope, receive, send))

    wire.serve(app, tap)

    assert seen == [wire.scope, wire.receive, wire.send]
    assert tap.exchanges == []


# --- under a real server ---


@contextlib.contextmanager
def served(app: Any) -> Iterator[str]:
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            thread.join(0.005)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(PATIENCE_S)


def test_a_stream_is_passed_piece_by_piece_and_its_client_may_leave() -> None:
    tap = Kept()
    went_on = threading.Event()

    async def pieces() -> AsyncIterator[bytes]:
        yield b"data: 1\n\n"
        assert await asyncio.to_thread(went_on.wait, PATIENCE_S)
        yield b"data: 2\n\n"
        # Until its client has left.
        while True:
            await asyncio.sleep(0.005)
            yield b"data: more\n\n"

    async def stream(request: Request) -> Response:
        return StreamingResponse(pieces(), media_type="text/event-stream")

    app = Starlette(routes=[Route("/stream", stream, methods=["POST"])])
    app.add_middleware(CaptureMiddleware, sink=tap)
    with served(app) as url, httpx.Client(timeout=PATIENCE_S) as client:
        with client.stream("POST", f"{url}/stream", content=b"{}") as answer:
            parts = answer.iter_raw()
            # The first piece is here before the second is made.
            assert next(parts) == b"data: 1\n\n"
            went_on.set()
            assert next(parts).startswith(b"data: 2\n\n")
        exchange = tap.one()

    assert (exchange.status, exchange.aborted_by) == (200, "client")
    assert exchange.response_body.startswith(b"data: 1\n\ndata: 2\n\n")


class _Collector(BaseHTTPRequestHandler):
    events: list[Message]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        type(self).events += json.loads(body)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as in the standard library
        pass


@pytest.fixture
def collector() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Collector", (_Collector,), {"events": []}))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join(PATIENCE_S)
    server.server_close()


async def _answer(request: Request) -> Response:
    await request.body()
    return PlainTextResponse("42")


@pytest.fixture
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the end of a server wait for its events for as long as no machine stalls."""
    emitter: Any = ThreadedEmitter.__init__
    sink: Any = HttpSink.__init__
    monkeypatch.setitem(emitter.__kwdefaults__, "grace_s", PATIENCE_S)
    monkeypatch.setitem(sink.__kwdefaults__, "timeout_s", PATIENCE_S)


@pytest.mark.usefixtures("_patient")
def test_everything_is_with_the_collector_when_the_server_has_ended(
    collector: ThreadingHTTPServer, tmp_path: Path
) -> None:
    app = Starlette(routes=[Route("/v2/models/m/infer", _answer, methods=["POST"])])
    app.add_middleware(
        CaptureMiddleware,
        sink=f"http://127.0.0.1:{collector.server_address[1]}/",
        deployment="prod/answers",
        spool=tmp_path / "spool",
    )
    with served(app) as url:
        told = {
            httpx.post(f"{url}/v2/models/m/infer", json=[number], timeout=PATIENCE_S).headers[
                "x-request-id"
            ]
            for number in range(20)
        }

    events = collector.RequestHandlerClass.events  # type: ignore[attr-defined] # of the class above
    assert len(told) == 20
    assert len(events) == 40
    assert {event["id"] for event in events} == told
    assert {event["inferenceservicename"] for event in events} == {"answers"}
    assert sorted(event["data"][0] for event in events if event.get("data")) == list(range(20))


@pytest.mark.usefixtures("_patient")
def test_a_dead_sink_changes_nothing_for_the_caller(tmp_path: Path) -> None:
    app = Starlette(routes=[Route("/v2/models/m/infer", _answer, methods=["POST"])])
    # Port 9 is "discard", and nobody listens there.
    app.add_middleware(CaptureMiddleware, sink="http://127.0.0.1:9/", spool=tmp_path)
    with served(app) as url:
        answers = [
            httpx.post(f"{url}/v2/models/m/infer", json=1, timeout=PATIENCE_S).text
            for _ in range(20)
        ]

    assert answers == ["42"] * 20
    assert list(tmp_path.rglob("*.spool1"))
