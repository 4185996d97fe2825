"""SIGHUP under load: what is captured changes, no request fails, every event has its account."""

import asyncio
import re
import ssl
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import httpx
import orjson
import pytest
from tests.services.conftest import wait_until

_ANSWER = b'{"predictions":[0.5]}'
_OUTCOMES = ("sent", "sampled_out", "dropped")
# Limits that a slow machine does not reach, nor one that stands still for seconds.
_ANSWER_S = 120.0
_PATIENCE_S = 180.0


@dataclass
class _Received:
    """What one sink was sent, in the order of its arrival."""

    url: str
    events: list[dict[str, Any]] = field(default_factory=list)


_Take = Callable[[Any, bytes], bytes]
"""Takes headers and body of a request and gives the body of the answer."""


def _server(take: _Take, tls: ssl.SSLContext | None) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Head and body of an answer go at once.
        wbufsize = -1

        def do_POST(self) -> None:
            answer = take(self.headers, self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    servers: list[ThreadingHTTPServer] = []

    def start(take: _Take, tls: ssl.SSLContext | None = None) -> str:
        servers.append(_server(take, tls))
        return f"http://127.0.0.1:{servers[-1].server_address[1]}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def receiver(serve: Any) -> Callable[[], _Received]:
    def start() -> _Received:
        received = _Received("")

        def take(_: Any, body: bytes) -> bytes:
            received.events += orjson.loads(body)
            return b""

        received.url = f"{serve(take)}/"
        return received

    return start


class _Load:
    """Requests on several connections, one after the other on each, until it is stopped."""

    def __init__(self, url: str, n_connections: int = 6) -> None:
        self.statuses: Counter[object] = Counter()
        self.n_sent = 0
        self._url = url
        self._n_connections = n_connections
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join(_PATIENCE_S)
        assert not self._thread.is_alive()

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(self._n_connections):
                group.create_task(self._ask())

    async def _ask(self) -> None:
        async with httpx.AsyncClient(timeout=_ANSWER_S) as client:
            while not self._is_over.is_set():
                self.n_sent += 1
                body = {"instances": [{"name": f"n-{self.n_sent}", "age": 30}]}
                try:
                    answer = await client.post(f"{self._url}/v1/models/m:predict", json=body)
                    self.statuses[answer.status_code, answer.content == _ANSWER] += 1
                except httpx.HTTPError as error:
                    self.statuses[type(error).__name__] += 1


class _Configured:
    """A proxy with a file that can be changed while it runs."""

    def __init__(self, proxy: Any, path: Path) -> None:
        self.proxy = proxy
        self._path = path
        self._n_reloads = 0

    def change(self, section: Any) -> str:
        """Write the file, have it read again, return the outcome."""
        before = self._reloads()
        self._path.write_bytes(section if isinstance(section, bytes) else _file(section))
        self.proxy.hang_up()
        changed: list[str] = []

        def happened() -> bool:
            changed[:] = [name for name, n in self._reloads().items() if n > before[name]]
            return bool(changed)

        _wait_until(happened)
        return changed[0]

    def wait_for_exchanges(self, n_more: int) -> None:
        """Return when so many more went by."""
        until = self.proxy.metrics().total("capture_exchanges_total") + n_more
        _wait_until(lambda: self.proxy.metrics().total("capture_exchanges_total") >= until)

    def account(self, sink: str) -> dict[str, int]:
        metrics = self.proxy.metrics()
        account = {
            outcome: metrics.total("capture_events_total", sink=sink, outcome=outcome)
            for outcome in ("seen", *_OUTCOMES)
        }
        account["pending"] = metrics.total("capture_pending_events", sink=sink)
        return account

    def wait_until_sent(self, sink: str) -> dict[str, int]:
        _wait_until(lambda: not self.account(sink)["pending"])
        return self.account(sink)

    def _reloads(self) -> dict[str, int]:
        metrics = self.proxy.metrics()
        return {
            outcome: metrics.total("capture_reloads_total", outcome=outcome)
            for outcome in ("applied", "partly", "refused")
        }


def _wait_until(true: Callable[[], bool]) -> None:
    wait_until(true, "what a test waits for", timeout_s=_PATIENCE_S)


def _post(url: str, headers: dict[str, str] | None = None) -> httpx.Response:
    return httpx.post(url, json={"instances": [[1]]}, headers=headers, timeout=_ANSWER_S)


def _file(section: Any) -> bytes:
    return orjson.dumps({"proxy": section})


def _sink(name: str, received: _Received, **more: Any) -> dict[str, Any]:
    return {"name": name, "http": {"url": received.url}, **more}


@pytest.fixture
def configured(
    serve: Any, start_proxy: Any, tmp_path: Path
) -> Callable[[dict[str, Any]], _Configured]:
    def start(section: dict[str, Any]) -> _Configured:
        path = tmp_path / "sidelight.yaml"
        section.setdefault("upstream", serve(lambda *_: _ANSWER))
        path.write_bytes(_file(section))
        return _Configured(start_proxy(config=path), path)

    return start


def _assert_exact(account: dict[str, int]) -> None:
    assert account["seen"] == account["pending"] + sum(account[name] for name in _OUTCOMES)


def test_a_new_configuration_takes_effect_under_load_and_no_request_fails(
    configured: Any, receiver: Any
) -> None:
    first, second, third = receiver(), receiver(), receiver()
    section: dict[str, Any] = {"sinks": [_sink("first", first), _sink("second", second)]}
    running = configured(section)

    with _Load(running.proxy.url) as load:
        running.wait_for_exchanges(100)
        none = running.change(section | {"sampling": {"rate": 0}})
        running.wait_for_exchanges(100)
        half = running.change(section | {"sampling": {"rate": 0.5}})
        running.wait_for_exchanges(200)
        swapped = running.change(
            section | {"sinks": [_sink("first", first), _sink("third", third)]}
        )
        running.wait_for_exchanges(100)
    n_requests = load.n_sent

    assert (none, half, swapped) == ("applied",) * 3
    assert load.statuses == {(200, True): n_requests}
    for name, received in (("first", first), ("second", second), ("third", third)):
        account = running.wait_until_sent(name)
        _assert_exact(account)
        assert account["dropped"] == 0
        assert account["sent"] == len(received.events)
        keys = {(event["id"], event["type"]) for event in received.events}
        assert len(keys) == len(received.events)
    assert running.account("first")["seen"] == 2 * n_requests
    assert running.account("first")["sampled_out"] > 0
    assert 0 < running.account("third")["seen"] < 2 * n_requests
    assert {event["samplingrate"] for event in first.events} == {"1", "0.5"}


def test_a_rule_of_redaction_holds_for_everything_that_comes_after_the_reload(
    configured: Any, receiver: Any
) -> None:
    received = receiver()
    section = {"sinks": [_sink("only", received)]}
    rule = {"column": "name", "on": "request", "action": "mask", "text": "***"}
    running = configured(section)

    with _Load(running.proxy.url) as load:
        running.wait_for_exchanges(100)
        outcome = running.change(section | {"redaction": {"rules": [rule]}})
        n_before = load.n_sent
        running.wait_for_exchanges(200)
    running.wait_until_sent("only")
    names = [
        event["data"]["instances"][0]["name"]
        for event in received.events
        if "instances" in event["data"]
    ]
    shown = [int(name.removeprefix("n-")) for name in names if name != "***"]

    assert outcome == "applied"
    assert load.statuses == {(200, True): load.n_sent}
    assert len(names) == load.n_sent
    assert 0 < len(shown) < len(names)
    assert max(shown) <= n_before


def test_a_wrong_file_changes_nothing(configured: Any, receiver: Any) -> None:
    received = receiver()
    section = {"sinks": [_sink("only", received)]}
    running = configured(section)

    with _Load(running.proxy.url) as load:
        running.wait_for_exchanges(50)
        outcomes = {
            running.change(wrong)
            for wrong in (
                section | {"samplin": {"rate": 0}},
                section | {"sinks": [{"name": "only"}]},
                {"sampling": {"rate": 0}},
                b"proxy: [",
                b"\xff\xfe",
                b"",
            )
        }
        running.wait_for_exchanges(50)
        invalid = running.proxy.metrics().total("capture_config_valid")
        repaired = running.change(section)
    account = running.wait_until_sent("only")

    assert outcomes == {"refused"}
    assert load.statuses == {(200, True): load.n_sent}
    assert account["seen"] == account["sent"] == 2 * load.n_sent == len(received.events)
    assert (invalid, repaired) == (0, "applied")
    assert running.proxy.metrics().total("capture_config_valid") == 1
    said = re.compile(rb"proxy\.samplin: unknown key; did you mean sampling\?")
    assert running.proxy.wait_for_log(said)


def test_a_key_that_needs_a_restart_keeps_its_value_and_the_others_change(
    configured: Any, receiver: Any
) -> None:
    received = receiver()
    section = {"sinks": [_sink("only", received)]}
    running = configured(section)
    answered = _post(f"{running.proxy.url}/v1/models/m:predict")

    # The options of the command line win over the file, so it is the spool that can be changed.
    outcome = running.change(
        section | {"grpc": {"upstream": "127.0.0.1:1"}, "sampling": {"rate": 0}}
    )
    answered_again = _post(f"{running.proxy.url}/v1/models/m:predict")

    assert outcome == "partly"
    assert (answered.status_code, answered_again.status_code) == (200, 200)
    assert running.wait_until_sent("only") == {
        "seen": 4,
        "sent": 2,
        "sampled_out": 2,
        "dropped": 0,
        "pending": 0,
    }
    assert running.proxy.wait_for_log(re.compile(b"key='proxy.grpc'"))


def test_the_id_that_a_caller_is_told_is_that_of_the_events_until_it_is_turned_off(
    configured: Any, receiver: Any
) -> None:
    received = receiver()
    section = {"sinks": [_sink("only", received)]}
    running = configured(section)
    url = f"{running.proxy.url}/v1/models/m:predict"

    told = _post(url).headers["x-request-id"]
    given = _post(url, {"X-Request-Id": "mine"})
    running.change(section | {"request_id": False})
    untold = _post(url)
    running.wait_until_sent("only")

    assert "x-request-id" not in given.headers
    assert "x-request-id" not in untold.headers
    assert [event["id"] for event in received.events][:4] == [told, told, "mine", "mine"]
    assert len({event["id"] for event in received.events}) == 3


def test_new_connections_go_to_a_new_upstream_and_those_that_are_open_stay(
    configured: Any, receiver: Any, serve: Any
) -> None:
    received = receiver()
    section = {"sinks": [_sink("only", received)]}
    running = configured(section)
    url = f"{running.proxy.url}/v1/models/m:predict"
    other = serve(lambda *_: b"{}")

    with httpx.Client(timeout=_ANSWER_S) as kept:
        before = kept.post(url, json={"instances": [[1]]}).content
        outcome = running.change(section | {"upstream": other})
        after = kept.post(url, json={"instances": [[1]]}).content
        fresh = _post(url).content

    assert outcome == "applied"
    assert (before, after, fresh) == (_ANSWER, _ANSWER, b"{}")
    assert running.wait_until_sent("only")["sent"] == 6


def test_an_upstream_is_spoken_to_by_tls_and_its_certificate_is_checked(
    configured: Any, receiver: Any, serve: Any, tmp_path: Path
) -> None:
    key, certificate = _certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    model = serve(lambda *_: b'{"by":"tls"}', context).replace("http:", "https:")
    received = receiver()
    section: dict[str, Any] = {"sinks": [_sink("only", received)]}
    running = configured(section)
    url = f"{running.proxy.url}/v1/models/m:predict"

    running.change(section | {"upstream": model})
    unknown = _post(url)
    tls = {"ca": str(certificate), "server_name": "model.test"}
    outcome = running.change(section | {"upstream": model, "tls": tls})
    known = _post(url)
    running.wait_until_sent("only")

    assert unknown.status_code == 502
    assert outcome == "applied"
    assert (known.status_code, known.content) == (200, b'{"by":"tls"}')
    statuses = [event.get("statuscode") for event in received.events]
    assert statuses == [None, "502", None, "200"]


def _certificate(folder: Path) -> tuple[Path, Path]:
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    command = (
        *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
        *("-subj", "/CN=model.test", "-addext", "subjectAltName=DNS:model.test"),
        *("-keyout", str(key), "-out", str(certificate)),
    )
    subprocess.run(command, check=True, capture_output=True)
    return key, certificate


def test_a_storm_of_signals_costs_no_request_and_the_last_file_wins(
    configured: Any, receiver: Any
) -> None:
    received = receiver()
    section = {"sinks": [_sink("only", received)]}
    running = configured(section)

    with _Load(running.proxy.url) as load:
        for _ in range(500):
            running.proxy.hang_up()
        running.wait_for_exchanges(100)
        last = running.change(section | {"sampling": {"rate": 0}})
        # The outcome may be that of the storm; that of the file follows.
        _wait_until(lambda: running.account("only")["sampled_out"] > 0)
    seen = running.wait_until_sent("only")
    status = running.proxy.stop()

    assert last == "applied"
    assert load.statuses == {(200, True): load.n_sent}
    assert seen["seen"] == 2 * load.n_sent
    assert status == 0


def test_a_token_that_was_changed_in_its_file_is_sent_without_a_reload(
    configured: Any, serve: Any, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text("first-token")
    tokens: list[str] = []

    def take(headers: Any, _: bytes) -> bytes:
        tokens.append(headers["authorization"])
        return b""

    http = {"url": f"{serve(take)}/", "headers_from": {"Authorization": str(token)}}
    section = {"sinks": [{"name": "only", "http": http}]}
    running = configured(section)

    for value in ("first-token", "second-token"):
        token.write_text(value)
        _post(f"{running.proxy.url}/v1/models/m:predict")
        running.wait_until_sent("only")

    assert tokens == ["first-token", "second-token"]
    assert b"-token" not in running.proxy.log.read_bytes()
