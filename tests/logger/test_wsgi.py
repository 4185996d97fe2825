# ruff: noqa: ARG001 - the interface of WSGI has them all
import http.client
import io
import json
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from wsgiref.handlers import SimpleHandler
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest

from sidelight.logger._emitter import Emitter
from sidelight.logger._emitter_thread import ThreadedEmitter
from sidelight.logger._exchange import Exchange
from sidelight.logger._wsgi import CaptureWsgiMiddleware

PATIENCE_S = 60.0
App = Callable[..., Iterable[bytes]]


class Kept(ThreadedEmitter):
    """Keeps what it is offered."""

    def __init__(self) -> None:
        def refuse(folder: Path | None) -> Emitter:
            raise AssertionError("nothing is delivered here")

        super().__init__(refuse)
        self.exchanges: list[Exchange] = []
        self.arrived = threading.Condition()
        self.n_ids = 0

    def offer(self, exchange: Exchange) -> None:
        with self.arrived:
            self.exchanges.append(exchange)
            self.arrived.notify_all()

    def new_id(self) -> bytes:
        self.n_ids += 1
        return b"own-%d" % self.n_ids

    def one(self) -> Exchange:
        with self.arrived:
            assert self.arrived.wait_for(lambda: self.exchanges, PATIENCE_S)
            (exchange,) = self.exchanges
            return exchange


def environment(body: bytes = b"{}", **more: Any) -> dict[str, Any]:
    environ: dict[str, Any] = {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": "/v2/models/m/infer",
        "QUERY_STRING": "a=1",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "CONTENT_TYPE": "application/json",
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.input": io.BytesIO(body),
        **more,
    }
    environ.setdefault("SCRIPT_NAME", "")
    setup_testing_defaults(environ)
    del environ["HTTP_HOST"]
    return environ


def handled(app: App, environ: dict[str, Any]) -> bytes:
    """Return what the standard library's server writes for an application."""
    out = io.BytesIO()
    handler = SimpleHandler(environ["wsgi.input"], out, sys.stderr, environ)
    handler.run(app)
    return out.getvalue()


def both_ways(app: App, body: bytes = b"{}", **more: Any) -> tuple[bytes, bytes, Kept]:
    """Return the answer without and with capture, and what was captured."""
    tap = Kept()
    more.setdefault("HTTP_X_REQUEST_ID", "r1")
    capture = CaptureWsgiMiddleware(app, sink=tap)
    return handled(app, environment(body, **more)), handled(capture, environment(body, **more)), tap


def echo(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
    start_response("200 OK", [("X-A", "1")])
    return [body]


def test_both_bodies_and_heads_are_recorded_as_http_has_them() -> None:
    plain, captured, tap = both_ways(echo, b'{"a":1}')

    assert captured == plain
    exchange = tap.one()
    assert exchange.request_head == (
        b"POST /v2/models/m/infer?a=1 HTTP/1.1\r\nX-Request-Id: r1\r\n"
        b"Content-Type: application/json\r\nContent-Length: 7\r\n\r\n"
    )
    assert exchange.request_body == exchange.response_body == b'{"a":1}'
    assert exchange.response_head == b"HTTP/1.1 200 OK\r\nX-A: 1\r\n\r\n"
    assert (exchange.status, exchange.request_id, exchange.aborted_by) == (200, b"r1", "")


def test_an_answer_of_one_piece_keeps_the_length_that_the_server_reckons() -> None:
    plain, captured, _ = both_ways(echo)

    assert b"Content-Length: 2\r\n" in plain
    assert captured == plain


def test_a_caller_without_an_id_is_told_the_one_that_is_recorded() -> None:
    tap = Kept()
    answer = handled(CaptureWsgiMiddleware(echo, sink=tap), environment())

    assert b"\r\nX-Request-Id: own-1\r\n" in answer
    assert tap.one().request_id == b"own-1"


def test_a_target_is_recorded_as_it_was_sent_where_the_server_tells() -> None:
    tap = Kept()
    capture = CaptureWsgiMiddleware(echo, sink=tap)
    raw: dict[str, Any] = {"RAW_URI": "/v2/models/a%2Fb/infer"}
    for more in (raw, {"PATH_INFO": "/ü", "SCRIPT_NAME": "/s p"}):
        handled(capture, environment(**more))

    assert [one.target for one in tap.exchanges] == [b"/v2/models/a%2Fb/infer", b"/s%20p/%FC?a=1"]


def test_pieces_of_a_generator_go_out_one_by_one_and_it_is_closed() -> None:
    log: list[str] = []

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        # The head comes with the first piece.
        start_response("200 OK", [])
        try:
            for number in range(3):
                log.append(f"made {number}")
                yield b"%d" % number
        finally:
            log.append("closed")

    def start_response(status: str, _: Any) -> Callable[[bytes], None]:
        log.append(f"head {status}")
        return lambda _: None

    tap = Kept()
    answer = CaptureWsgiMiddleware(app, sink=tap)(environment(), start_response)
    assert log == []
    pieces = iter(answer)
    assert next(pieces) == b"0"
    assert log == ["head 200 OK", "made 0"]
    assert list(pieces) == [b"1", b"2"]
    answer.close()  # type: ignore[attr-defined] # PEP 3333

    assert log[-1] == "closed"
    assert tap.one().response_body == b"012"
    assert tap.one().status == 200


def test_what_is_written_at_once_is_recorded_with_the_rest() -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        write = start_response("200 OK", [])
        write(b"first ")
        return [b"second"]

    plain, captured, tap = both_ways(app)

    assert captured == plain
    assert tap.one().response_body == b"first second"


def test_a_second_head_with_an_error_replaces_the_first() -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [("X-A", "1")])
        try:
            environ["no such key"]
        except KeyError:
            start_response("503 Busy", [("X-B", "2")], sys.exc_info())
        return [b"sorry"]

    plain, captured, tap = both_ways(app)

    assert captured == plain
    assert tap.one().status == 503
    assert tap.one().response_head == b"HTTP/1.1 503 Busy\r\nX-B: 2\r\n\r\n"


def test_every_head_of_an_answer_tells_the_same_id() -> None:
    told: list[Any] = []

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [])
        start_response("500 Oops", [], (None, None, None))
        return [b""]

    def begin(_: str, headers: Any, *__: Any) -> Callable[[bytes], None]:
        told.append(headers)
        return lambda _: None

    tap = Kept()
    list(CaptureWsgiMiddleware(app, sink=tap)(environment(), begin))

    assert told == [[("X-Request-Id", "own-1")]] * 2
    assert tap.one().request_id == b"own-1"


def test_an_error_before_the_answer_is_raised_untouched_and_recorded_as_500() -> None:
    error = RuntimeError("secret")

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        environ["wsgi.input"].read()
        raise error

    tap = Kept()
    with pytest.raises(RuntimeError) as caught:
        CaptureWsgiMiddleware(app, sink=tap)(environment(b"in"), lambda *_: lambda _: None)

    assert caught.value is error
    assert (tap.one().status, tap.one().request_body) == (500, b"in")


def test_an_error_within_the_answer_keeps_the_status_that_was_sent() -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [])
        yield b"half"
        raise KeyError("x")

    tap = Kept()
    answer = iter(CaptureWsgiMiddleware(app, sink=tap)(environment(), lambda *_: lambda _: None))
    assert next(answer) == b"half"
    with pytest.raises(KeyError):
        next(answer)

    assert (tap.one().status, tap.one().aborted_by) == (200, "upstream")
    assert tap.one().response_body == b"half"


@pytest.mark.parametrize(("n_taken", "status"), [(0, 499), (1, 200)])
def test_a_server_that_stops_in_the_middle_means_that_the_client_left(
    n_taken: int, status: int
) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [])
        yield b"1"
        yield b"2"

    tap = Kept()
    answer = CaptureWsgiMiddleware(app, sink=tap)(environment(), lambda *_: lambda _: None)
    for _ in range(n_taken):
        next(answer)  # type: ignore[call-overload] # it is its own iterator
    answer.close()  # type: ignore[attr-defined] # PEP 3333

    assert (tap.one().status, tap.one().aborted_by) == (status, "client")
    assert tap.one().response_body == b"1" * n_taken


def test_the_applications_iterable_is_closed_once_however_it_ends() -> None:
    class Result:
        n_closed = 0

        def __iter__(self) -> Iterator[bytes]:
            return iter([b"1"])

        def close(self) -> None:
            self.n_closed += 1

    result = Result()

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [])
        return result

    both_ways(app)

    assert result.n_closed == 2  # once without capture, once with


@pytest.mark.parametrize(
    "read",
    [
        pytest.param(lambda stream: stream.read(), id="at-once"),
        pytest.param(lambda stream: b"".join(iter(lambda: stream.read(3), b"")), id="in-pieces"),
        pytest.param(lambda stream: b"".join(iter(stream.readline, b"")), id="by-line"),
        pytest.param(lambda stream: b"".join(stream.readlines()), id="lines"),
        pytest.param(b"".join, id="iterated"),
        pytest.param(lambda stream: io.BufferedReader(stream).read(), id="buffered"),
        pytest.param(lambda stream: b"".join(iter(lambda: stream.read1(4), b"")), id="read1"),
        pytest.param(lambda stream: (stream.read(5), stream.seek(0), stream.read())[2], id="again"),
        pytest.param(
            lambda stream: (stream.read(5), stream.seek(0), stream.read(3) + stream.read())[2],
            id="again-in-pieces",
        ),
    ],
)
def test_the_request_is_recorded_however_it_is_read(read: Callable[[Any], bytes]) -> None:
    body = b"one\ntwo\nthree"

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        got = read(environ["wsgi.input"])
        start_response("200 OK", [])
        return [got]

    plain, captured, tap = both_ways(app, body)

    assert plain.endswith(body)
    assert captured == plain
    assert tap.one().request_body == body


def test_a_body_that_nobody_read_counts_as_cut() -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        environ["wsgi.input"].read(2)
        start_response("413 Too Large", [])
        return []

    _, _, tap = both_ways(app, b"12345")

    assert (tap.one().request_body, tap.one().request_cut) == (b"12", 3)


def test_the_middleware_keeps_to_the_specification_on_both_sides() -> None:
    tap = Kept()
    app = validator(CaptureWsgiMiddleware(validator(_valid), sink=tap))

    answer = handled(app, environment())

    assert answer.endswith(b"42")
    assert tap.one().response_body == b"42"


def _valid(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    environ["wsgi.input"].read(2)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"4", b"2"]


@pytest.mark.parametrize(
    "more",
    [
        pytest.param({"REQUEST_METHOD": "GET"}, id="read"),
        pytest.param({"PATH_INFO": "/healthz"}, id="probe"),
        pytest.param({"HTTP_SIDELIGHT_SKIP": "true"}, id="marked"),
    ],
)
def test_what_is_no_inference_passes_untouched(more: dict[str, Any]) -> None:
    tap, result = Kept(), [b"x"]
    environ = environment(**more)
    stream = environ["wsgi.input"]

    answer = CaptureWsgiMiddleware(lambda *_: result, sink=tap)(environ, lambda *_: lambda _: None)

    assert answer is result
    assert environ["wsgi.input"] is stream
    assert tap.exchanges == []


def test_a_request_that_breaks_the_rules_is_left_to_the_application() -> None:
    tap, environ = Kept(), environment()
    del environ["REQUEST_METHOD"]

    answer = CaptureWsgiMiddleware(lambda *_: [b"x"], sink=tap)(environ, lambda *_: lambda _: None)

    assert answer == [b"x"]
    assert tap.tap_errors == 1


def test_an_answer_that_breaks_the_rules_is_left_to_the_server() -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response("fine", None)
        return [b"x"]

    given: list[Any] = []

    def begin(*head: Any) -> Callable[[bytes], None]:
        given.append(head)
        return lambda _: None

    CaptureWsgiMiddleware(app, sink=Kept())(environment(), begin)

    assert given == [("fine", None)]


# --- under a real server ---


class _Silent(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as in the standard library
        pass


@pytest.fixture
def serve() -> Iterator[Callable[[App], http.client.HTTPConnection]]:
    servers: list[tuple[WSGIServer, threading.Thread]] = []
    clients: list[http.client.HTTPConnection] = []

    def start(app: App) -> http.client.HTTPConnection:
        server = make_server("127.0.0.1", 0, app, handler_class=_Silent)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        servers.append((server, thread))
        clients.append(
            http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=PATIENCE_S)
        )
        return clients[-1]

    yield start
    for client in clients:
        client.close()
    for server, thread in servers:
        server.shutdown()
        thread.join(PATIENCE_S)
        server.server_close()


def test_models_under_a_server_are_answered_and_recorded(
    serve: Callable[[App], http.client.HTTPConnection],
) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        rows = json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
        start_response("200 OK", [("Content-Type", "application/json")])
        return [json.dumps({"predictions": [sum(row) for row in rows["instances"]]}).encode()]

    tap = Kept()
    client = serve(CaptureWsgiMiddleware(app, sink=tap))
    client.request("POST", "/v1/models/sums:predict", body=b'{"instances": [[1, 2]]}')
    answer = client.getresponse()

    assert json.loads(answer.read()) == {"predictions": [3]}
    assert answer.headers["x-request-id"] == "own-1"
    assert tap.one().target == b"/v1/models/sums:predict"
    assert json.loads(tap.one().response_body) == {"predictions": [3]}
