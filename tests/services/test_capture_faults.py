"""Faults of the sink, the disk and the process of the proxy: the model's answers never notice."""

import contextlib
import http.client
import itertools
import re
import socket
import sys
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import orjson
import pytest
from tests.services.conftest import Proxy, wait_until
from tests.services.server_process import free_ports

from sidelight.service._demo_client import Metrics

N_CLIENTS = 4
# A limit that a slow machine does not reach, nor one that stands still for seconds.
PATIENCE_S = 180.0
MODEL = "/v2/models/m/infer"
FOUND = re.compile(rb"events found in the spool sink='sink' events=(\d+)")
STOPPED = re.compile(
    rb"stopped sink='sink' seen=(\d+) sent=(\d+) sampled_out=0 in_spool=(\d+) dropped=(\{.*\})"
)
_LIMITED = """
import resource, runpy
resource.setrlimit(resource.RLIMIT_FSIZE, (60000, 60000))
runpy.run_module("sidelight.service", run_name="__main__", alter_sys=True)
"""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: peers come and go here."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1

    def log_message(self, *_: Any) -> None:
        pass

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers["content-length"]))

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def serve(handler: type[Handler], port: int = 0) -> _Server:
    server = _Server(("127.0.0.1", port), handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    return server


class Sink:
    """A collector that goes wrong in one way as long as it is told to."""

    def __init__(self) -> None:
        (self.port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{self.port}/"
        self.fault = ""
        self.n_asked = 0
        self.ids: list[tuple[str, str]] = []
        self._server: _Server | None = None
        self._released = threading.Event()
        self._lock = threading.Lock()

    def break_down(self, fault: str) -> None:
        """Begin to fail; ``dead`` closes the port."""
        self.fault = fault
        if fault == "dead":
            self.close()
        elif self._server is None:
            self._open()

    def heal(self) -> None:
        self.fault = ""
        self._released.set()
        if self._server is None:
            self._open()

    def _open(self) -> None:
        sink = self

        class Answering(Handler):
            def do_POST(self) -> None:
                sink.take(self)

        self._server = serve(Answering, self.port)

    def take(self, request: Handler) -> None:
        self.n_asked += 1
        body = request.body()
        match self.fault:
            case "500":
                request.answer(500, b"no")
            case "429":
                request.answer(429, b"no", retry_after="1")
            case "garbage":
                request.wfile.write(b"\x00\x01 what\r\n\r\n")
                request.close_connection = True
            case "reset":
                option = b"\1\0\0\0\0\0\0\0"
                request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, option)
                request.close_connection = True
            case "slow":
                # An answer without an end: what was not taken must never look acknowledged.
                for byte in itertools.chain(b"HTTP/1.1 200 OK\r\nx: ", itertools.repeat(120)):
                    if self._released.wait(1):
                        break
                    request.wfile.write(bytes([byte]))
                    request.wfile.flush()
                request.close_connection = True
            case _:
                with self._lock:
                    self.ids += [
                        (each["id"], each["type"].rpartition(".")[2]) for each in orjson.loads(body)
                    ]
                request.answer(200, b"")

    def close(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


class Load:
    """Clients that ask the model one request after the other and look at every answer."""

    def __init__(self, proxy: Proxy) -> None:
        host, _, port = proxy.url.removeprefix("http://").partition(":")
        self.address = host, int(port)
        self.n_answered = Counter[int]()
        self.wrong: list[str] = []
        self._numbers = [itertools.count() for _ in range(N_CLIENTS)]
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    @property
    def n_all(self) -> int:
        return sum(self.n_answered.values())

    def start(self, n_requests: int | None = None) -> None:
        """Let each client send so many requests, or go on until ``stop``."""
        self._stop.clear()
        self._threads = [
            threading.Thread(target=self._ask, args=(client, n_requests), daemon=True)
            for client in range(N_CLIENTS)
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End after the answer that is awaited."""
        self._stop.set()
        self.finish()

    def finish(self) -> None:
        for thread in self._threads:
            thread.join(PATIENCE_S)
            assert not thread.is_alive()

    def run(self, n_requests: int) -> None:
        self.start(n_requests)
        self.finish()

    def _ask(self, client: int, n_requests: int | None) -> None:
        connection = http.client.HTTPConnection(*self.address, timeout=PATIENCE_S)
        numbers = self._numbers[client]
        lost = (OSError, http.client.HTTPException)
        with contextlib.closing(connection), contextlib.suppress(*lost):
            for number in itertools.islice(numbers, n_requests):
                body = b'{"inputs":[%d,%d]}' % (client, number)
                headers = {"x-request-id": f"{client}-{number}", "content-type": "application/json"}
                connection.request("POST", MODEL, body, headers)
                answer = connection.getresponse()
                if (answer.status, answer.read()) != (200, answer_to(body)):
                    self.wrong.append(f"{client}-{number} {answer.status}")
                self.n_answered[client] += 1
                if self._stop.is_set():
                    return


def answer_to(body: bytes) -> bytes:
    return b'{"outputs":[%b]}' % body


@pytest.fixture(scope="module")
def model() -> Iterator[str]:
    class Model(Handler):
        def do_POST(self) -> None:
            self.answer(200, answer_to(self.body()), content_type="application/json")

    server = serve(Model)
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def sink() -> Iterator[Sink]:
    sink = Sink()
    yield sink
    sink.heal()
    sink.close()


def by_client(ids: list[tuple[str, str]]) -> dict[int, list[tuple[int, str]]]:
    """Return what arrived of each client, without what came again behind an unclear answer."""
    found: dict[int, list[tuple[int, str]]] = defaultdict(list)
    for name, kind in dict.fromkeys(ids):
        client, _, number = name.partition("-")
        found[int(client)].append((int(number), kind))
    return found


def all_of(n_requests: int) -> list[tuple[int, str]]:
    return [(number, kind) for number in range(n_requests) for kind in ("request", "response")]


def check_account(metrics: Metrics) -> None:
    seen, sent, dropped = (
        metrics.total("capture_events_total", outcome=outcome, sink="sink")
        for outcome in ("seen", "sent", "dropped")
    )
    assert seen == sent + dropped + metrics.total("capture_pending_events", sink="sink")
    assert metrics.total("capture_tap_errors_total") == 0


def wait_sent(proxy: Proxy, n_events: int) -> None:
    def is_sent() -> bool:
        metrics = proxy.metrics()
        check_account(metrics)
        return metrics.total("capture_events_total", outcome="sent") >= n_events

    wait_until(is_sent, f"{n_events} events are sent", timeout_s=PATIENCE_S)


def wait_spooled(proxy: Proxy, n_events: int) -> None:
    wait_until(
        lambda: proxy.metrics().total("capture_spool_events") >= n_events,
        f"{n_events} events are in the spool",
        timeout_s=PATIENCE_S,
    )


@pytest.mark.parametrize("fault", ["dead", "slow", "reset", "500", "429", "garbage"])
def test_whatever_the_sink_does_answers_are_right_and_all_arrives_in_order(
    fault: str, sink: Sink, model: str, start_proxy: Callable[..., Proxy]
) -> None:
    sink.break_down(fault)
    proxy = start_proxy(upstream=model, sink=sink.url)
    load = Load(proxy)
    load.run(50)
    wait_spooled(proxy, 2 * 50 * N_CLIENTS)
    sink.heal()
    load.run(50)
    wait_sent(proxy, 2 * 100 * N_CLIENTS)

    assert load.wrong == []
    assert by_client(sink.ids) == {client: all_of(100) for client in range(N_CLIENTS)}
    assert proxy.stop() == 0


def test_a_proxy_that_is_killed_under_load_loses_only_what_was_not_spooled_yet(
    sink: Sink, model: str, start_proxy: Callable[..., Proxy]
) -> None:
    sink.break_down("dead")
    proxy = start_proxy(upstream=model, sink=sink.url)
    load = Load(proxy)
    load.run(50)
    wait_spooled(proxy, 2 * 50 * N_CLIENTS)
    load.start()
    wait_until(lambda: load.n_all > 120 * N_CLIENTS, "more is answered", timeout_s=PATIENCE_S)
    proxy.kill()
    load.stop()

    proxy.start(upstream=model, sink=sink.url)
    n_found = int(proxy.wait_for_log(FOUND)[1])
    assert proxy.metrics().total("capture_events_total", outcome="seen") == n_found
    sink.heal()
    wait_sent(proxy, n_found)

    assert load.wrong == []
    assert n_found >= 2 * 50 * N_CLIENTS
    assert len(set(sink.ids)) == n_found
    for client, arrived in by_client(sink.ids).items():
        # A beginning without a gap: what is missing is the last.
        n_arrived = (len(arrived) + 1) // 2
        assert n_arrived >= 50
        assert arrived == all_of(n_arrived)[: len(arrived)]
        assert n_arrived <= load.n_answered[client] + 1
    assert proxy.stop() == 0


@pytest.mark.parametrize("is_up", [True, False])
def test_a_proxy_that_is_stopped_under_load_ends_with_nothing_unexplained(
    sink: Sink, model: str, start_proxy: Callable[..., Proxy], *, is_up: bool
) -> None:
    if is_up:
        sink.heal()
    proxy = start_proxy(upstream=model, sink=sink.url)
    load = Load(proxy)
    load.start()
    wait_until(lambda: load.n_all > 100 * N_CLIENTS, "much is answered", timeout_s=PATIENCE_S)
    code = proxy.stop()
    load.stop()
    ended = STOPPED.search(proxy.log.read_bytes())
    assert ended is not None
    seen, sent, in_spool = map(int, ended.groups()[:3])

    assert code == 0
    assert load.wrong == []
    assert seen == sent + in_spool
    # A request that was in work when the client lost its connection may have been captured.
    assert 2 * load.n_all <= seen <= 2 * (load.n_all + N_CLIENTS)
    assert (in_spool == 0) == is_up

    sink.heal()
    proxy.start(upstream=model, sink=sink.url)
    wait_sent(proxy, in_spool)
    assert proxy.stop() == 0
    for client, arrived in by_client(sink.ids).items():
        assert arrived[: 2 * load.n_answered[client]] == all_of(load.n_answered[client])


def small(folder: Path, sink: Sink, model: str, **limits: str) -> Path:
    settings = {
        "upstream": model,
        "sinks": [{"name": "sink", "http": {"url": sink.url}, "memory": "100KiB", **limits}],
    }
    path = folder / "proxy.yaml"
    path.write_bytes(orjson.dumps({"proxy": settings}))
    return path


@pytest.mark.parametrize("full", ["bound", "refusal"])
def test_a_full_disk_costs_events_that_are_counted_and_no_answer(
    full: str, tmp_path: Path, sink: Sink, model: str, make_proxy: Callable[[], Proxy]
) -> None:
    sink.break_down("dead")
    proxy = make_proxy()
    limits = {"spool_max": "60KiB"} if full == "bound" else {}
    if full == "refusal":
        # No file of the proxy, its log included, grows beyond that.
        proxy.program = (sys.executable, "-P", "-c", _LIMITED)
    proxy.start(config=small(tmp_path, sink, model, **limits))
    reason = "spool_full" if full == "bound" else "spool_error"

    def dropped() -> int:
        return proxy.metrics().total("capture_events_total", outcome="dropped", reason=reason)

    load = Load(proxy)
    load.start()
    wait_until(lambda: dropped() > 100, f"{reason} is counted", timeout_s=PATIENCE_S)
    load.stop()
    check_account(proxy.metrics())
    assert proxy.metrics().total("capture_spool_bytes") <= 61_440
    sink.heal()
    # What was still in memory may be dropped as well until the sink is found to be back.
    wait_until(
        lambda: proxy.metrics().total("capture_pending_events") == 0,
        "all is sent or dropped",
        timeout_s=PATIENCE_S,
    )

    assert load.wrong == []
    metrics = proxy.metrics()
    check_account(metrics)
    assert metrics.total("capture_events_total", outcome="seen") == 2 * load.n_all
    # What came again behind an unclear answer was sent once.
    assert len(set(sink.ids)) == metrics.total("capture_events_total", outcome="sent")
    for arrived in by_client(sink.ids).values():
        assert arrived == sorted(arrived)
    assert proxy.stop() == 0


def test_a_byte_that_changed_in_the_spool_costs_one_event_that_is_counted(
    sink: Sink, model: str, start_proxy: Callable[..., Proxy]
) -> None:
    sink.break_down("dead")
    proxy = start_proxy(upstream=model, sink=sink.url)
    load = Load(proxy)
    load.run(50)
    wait_spooled(proxy, 2 * 50 * N_CLIENTS)
    proxy.kill()
    segment = min(proxy.spool.glob("*.spool1"))
    text = bytearray(segment.read_bytes())
    text[text.index(b'"id":"2-30"') + 8] ^= 1
    segment.write_bytes(bytes(text))

    sink.heal()
    proxy.start(upstream=model, sink=sink.url)
    n_all = 2 * 50 * N_CLIENTS
    wait_sent(proxy, n_all - 1)
    metrics = proxy.metrics()

    assert load.wrong == []
    assert int(proxy.wait_for_log(FOUND)[1]) == n_all
    assert metrics.total("capture_events_total", outcome="dropped", reason="spool_corrupt") == 1
    damaged = [each for each in all_of(50) if each != (30, "request")]
    assert by_client(sink.ids) == {
        client: damaged if client == 2 else all_of(50) for client in range(N_CLIENTS)
    }
    assert proxy.stop() == 0


def test_a_dead_sink_beside_a_healthy_one_is_not_noticed_there(
    tmp_path: Path, sink: Sink, model: str, make_proxy: Callable[[], Proxy]
) -> None:
    dead = Sink()
    sink.heal()
    settings = {
        "upstream": model,
        "sinks": [
            {"name": "dead", "http": {"url": dead.url}},
            {"name": "sink", "http": {"url": sink.url}},
        ],
    }
    path = tmp_path / "proxy.yaml"
    path.write_bytes(orjson.dumps({"proxy": settings}))
    proxy = make_proxy()
    proxy.start(config=path)
    load = Load(proxy)
    load.run(100)
    n_all = 2 * 100 * N_CLIENTS
    wait_sent(proxy, n_all)
    wait_until(
        lambda: proxy.metrics().total("capture_sink_openings_total", sink="dead") >= 1,
        "the circuit of the dead one opens",
        timeout_s=PATIENCE_S,
    )
    metrics = proxy.metrics()

    assert load.wrong == []
    assert by_client(sink.ids) == {client: all_of(100) for client in range(N_CLIENTS)}
    assert metrics.total("capture_pending_events", sink="dead") == n_all
    assert metrics.total("capture_pending_events", sink="sink") == 0
    assert metrics.total("capture_sink_openings_total", sink="sink") == 0
    assert proxy.stop() == 0
