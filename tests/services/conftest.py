"""Runs ``sidelight serve`` and ``sidelight proxy`` as real processes, each over its own folder.

The classes are meant for annotations; a test gets them from ``start_service`` and ``start_proxy``.
"""

import contextlib
import re
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from tests.services.elastic_server import NARROW, ElasticServer, clients
from tests.services.kafka_server import KafkaServer
from tests.services.s3_server import S3Server

from sidelight.service._demo_client import Metrics

# Limits that a slow machine does not reach, nor one that stands still for seconds.
_START_S = 180.0
_STOP_S = 180.0
_DRAIN_S = 180.0
_ANSWER_S = 120.0
_POLL_S = 0.01
# Of one test with real servers.
_TEST_S = 1800
# -P: what happens to lie in the current folder is no module of ours.
_SIDELIGHT = (sys.executable, "-P", "-m", "sidelight.service")
_ANNOUNCED = re.compile(rb"listens on https?://[\d.]+:(\d+)/")
_RELAYING = re.compile(rb"127\.0\.0\.1', (\d+)\)")

# They run in environments of their own.
collect_ignore = ["elastic_round.py", "tritonclient_calls.py"]

Condition = Callable[[Metrics], bool]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give tests with servers more time than others, where they do not say how much they need."""
    for item in items:
        if item.path.parent == Path(__file__).parent and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(_TEST_S))


def wait_until(true: Callable[[], object], what: str, *, timeout_s: float) -> None:
    """Poll until something holds; fail with its name when it does not in time."""
    deadline = time.monotonic() + timeout_s
    while not true():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {timeout_s} s: {what}")
        time.sleep(_POLL_S)


def children_of(pid: int) -> dict[str, int]:
    """Return the child processes of a process by the last word of their command lines."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        pids = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return {command[-1]: int(child) for child in pids if (command := command_of(int(child)))}
    return {}


def command_of(pid: int) -> list[str]:
    """Return the words of a command line; none when the process is gone or a zombie."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")[:-1]
    return []


class Command:
    """A ``sidelight`` command that runs until it is stopped or killed; its output goes to a log."""

    def __init__(self, log: Path) -> None:
        self.log = log
        # Another installation has another one.
        self.program: tuple[str, ...] = _SIDELIGHT
        self.client = httpx.Client(timeout=_ANSWER_S)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def spawn(self, *arguments: str) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self.program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.log.parent,
                start_new_session=True,
            )

    def wait_for_log(self, pattern: re.Pattern[bytes]) -> re.Match[bytes]:
        """Return the first match in the log; fail when the command ends before it."""
        return self.wait_for_logs(pattern, 1)[0]

    def wait_for_logs(self, pattern: re.Pattern[bytes], n_matches: int) -> list[re.Match[bytes]]:
        """Return the matches in the log once they are so many; fail when the command ends first."""
        found: list[re.Match[bytes]] = []

        def search() -> bool:
            self._must_run()
            found[:] = pattern.finditer(self.log.read_bytes())
            return len(found) >= n_matches

        wait_until(search, f"{pattern.pattern!r} in {self.log.name}", timeout_s=_START_S)
        return found

    def _must_run(self) -> None:
        if not self.is_running:
            pytest.fail(f"the command ended before it was ready; see {self.log.name}")

    def wait_ready(self, url: str) -> None:
        """Return when a URL answers 200; fail when the command ends before it."""

        def ready() -> bool:
            self._must_run()
            with contextlib.suppress(httpx.TransportError):
                return self.client.get(url, timeout=30).status_code == 200
            return False

        wait_until(ready, f"{url} answers 200", timeout_s=_START_S)

    def stop(self) -> int:
        """End the command as SIGTERM does; return its exit code."""
        self.terminate()
        return self.wait()

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def send_signal(self, number: signal.Signals) -> None:
        assert self._process is not None, "not started"
        self._process.send_signal(number)

    def wait(self, timeout_s: float = _STOP_S) -> int:
        """Return the exit code at the end of the command; ``TimeoutExpired`` when none comes."""
        assert self._process is not None, "not started"
        return self._process.wait(timeout_s)

    def kill(self) -> None:
        """Send SIGKILL to the command itself, and wait for its end."""
        assert self._process is not None, "not started"
        self._process.kill()
        self._process.wait(_STOP_S)

    def close(self) -> None:
        """Leave nothing behind, whatever a test did; the log is shown when it failed."""
        self.client.close()
        if self._process is not None:
            children = children_of(self._process.pid)
            if self.is_running:
                self.kill()
            _wait_gone(children)
        if self.log.exists():
            print(f"--- {self.log.name} ---\n{self.log.read_text(errors='replace')}")


def _wait_gone(children: Mapping[str, int]) -> None:
    # They end by themselves, since their standard input has ended.
    wait_until(
        lambda: not any(command_of(pid)[-1:] == [role] for role, pid in children.items()),
        f"{children} end after their supervisor",
        timeout_s=_STOP_S,
    )


class Service(Command):
    """``sidelight serve`` over one data folder; keeps its port when it is started again."""

    def __init__(
        self,
        folder: Path,
        config: Mapping[str, Any] | None = None,
        certificate: Path | None = None,
    ) -> None:
        super().__init__(folder / "serve.log")
        self._scheme = "http"
        if certificate is not None:
            self._scheme = "https"
            self.client.close()
            authorities = ssl.create_default_context(cafile=str(certificate))
            self.client = httpx.Client(timeout=_ANSWER_S, verify=authorities)
        self.data = folder / "data"
        self.port = 0
        self._config = folder / "sidelight.yaml"
        # JSON is YAML.
        self._config.write_bytes(orjson.dumps(config or {}))

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start, or start again; return when it is ready."""
        n_before = len(_ANNOUNCED.findall(self.log.read_bytes())) if self.log.exists() else 0
        self.spawn(
            *("serve", "--config", str(self._config)),
            *("--port", str(self.port), "--data", str(self.data)),
        )
        # Until it says so, the processes of one that was killed may still answer for it.
        self.port = int(self.wait_for_logs(_ANNOUNCED, n_before + 1)[-1][1])
        self.wait_ready(f"{self.url}/readyz")

    def children(self) -> dict[str, int]:
        """Return the processes under the supervisor: door, consumer, api, and soon detection."""
        return children_of(self.pid)

    def all_children(self) -> dict[str, int]:
        """Return them when detection works, too, which is started when the others are ready."""

        def is_detecting() -> bool:
            # Whoever stood still for long is not ready for a moment, and says so with 503.
            answer = self.client.get(f"{self.url}/readyz")
            return answer.status_code == 200 and bool(answer.json()["detection"])

        wait_until(is_detecting, "the service detects", timeout_s=_START_S)
        return self.children()

    def post(
        self, body: bytes | str, headers: Mapping[str, str], path: str = "/"
    ) -> httpx.Response:
        """Send an event, or whatever else, to the door."""
        return self.client.post(self.url + path, content=body, headers=dict(headers))

    def get(self, path: str, **parameters: Any) -> Any:
        """Return the JSON of a route that must answer 200."""
        answer = self.client.get(self.url + path, params=parameters)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def get_all(self, path: str, **parameters: Any) -> list[dict[str, Any]]:
        """Return the items of all pages."""
        items: list[dict[str, Any]] = []
        cursor: dict[str, str] = {}
        while True:
            page = self.get(path, limit=1000, **parameters, **cursor)
            items += page["items"]
            if page["next"] is None:
                return items
            cursor = {"cursor": page["next"]}

    def metrics(self) -> Metrics:
        answer = self.client.get(f"{self.url}/metrics")
        assert answer.status_code == 200, answer.text
        return Metrics(answer.text)

    def wait_for(self, true: Condition, what: str, *, timeout_s: float = _DRAIN_S) -> Metrics:
        """Return the metrics for which a condition holds; fail when it never does."""
        found: list[Metrics] = []

        def holds() -> bool:
            with contextlib.suppress(httpx.TransportError):
                found[:] = [self.metrics()]
                return true(found[0])
            return False

        wait_until(holds, what, timeout_s=timeout_s)
        return found[0]

    def wait_stored(self, n_inferences: int) -> list[dict[str, Any]]:
        """Return all inferences once so many can be found; fail when there are more."""

        def stored(metrics: Metrics) -> bool:
            return metrics.total("inferences_total") >= n_inferences

        self.wait_for(stored, f"{n_inferences} inferences are counted")
        items: list[dict[str, Any]] = []

        def found() -> bool:
            items[:] = self.get_all("/v1/inferences")
            return len(items) >= n_inferences

        wait_until(found, f"{n_inferences} inferences can be found", timeout_s=_DRAIN_S)
        assert len(items) == n_inferences
        return items

    def command(self, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run ``query`` or ``verify`` over the data folder."""
        return run_command(name, "--data", str(self.data), *arguments)


def run_command(*arguments: str, timeout_s: float = _STOP_S) -> subprocess.CompletedProcess[str]:
    """Run a ``sidelight`` command to its end."""
    return subprocess.run(
        [*_SIDELIGHT, *arguments], capture_output=True, text=True, timeout=timeout_s, check=False
    )


class Proxy(Command):
    """``sidelight proxy`` in front of a model server.

    Attributes
    ----------
    patient : Path
        The configuration that it has unless another one is given: a grace that is never over
        before everything is done, on whatever machine.

    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "proxy.log")
        self.spool = folder / "spool"
        self.patient = folder / "patient.yaml"
        self.patient.write_text("proxy: {grace: 2m}")
        self.url = self.admin_url = ""

    def start(self, **options: str | Path | None) -> None:
        """Start with these options: ``upstream, sink, deployment, config, ...``."""
        options = {"config": self.patient, **options}
        given = {name: str(value) for name, value in options.items() if value is not None}
        n_before = len(self._told())
        self.spawn(
            "proxy",
            *(word for name, value in given.items() for word in (f"--{name}", value)),
            *("--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--spool", str(self.spool)),
        )

        def told() -> list[bytes]:
            self._must_run()
            return self._told()[n_before:]

        wait_until(lambda: len(told()) == 2, "the proxy tells its ports", timeout_s=_START_S)
        self.url, self.admin_url = (f"http://127.0.0.1:{int(port)}" for port in told())
        self.wait_ready(f"{self.admin_url}/readyz")

    def wait_for_metrics(self, true: Condition) -> None:
        """Return when a condition holds for the metrics."""
        wait_until(lambda: true(self.metrics()), "what its metrics tell", timeout_s=_DRAIN_S)

    def wait_for_requests(self, n_requests: int) -> None:
        """Return when so many requests have come in."""
        self.wait_for_metrics(lambda metrics: metrics.total("capture_requests_total") >= n_requests)

    def wait_until_stopping(self) -> None:
        """Return when it is not ready any more, or gone."""

        def is_stopping() -> bool:
            with contextlib.suppress(httpx.TransportError):
                return self.client.get(f"{self.admin_url}/readyz").status_code != 200
            return True

        wait_until(is_stopping, "the proxy is stopping", timeout_s=_STOP_S)

    def hang_up(self) -> None:
        """Have the configuration read again."""
        self.send_signal(signal.SIGHUP)

    def _told(self) -> list[bytes]:
        return _RELAYING.findall(self.log.read_bytes()) if self.log.exists() else []

    def metrics(self) -> Metrics:
        answer = self.client.get(f"{self.admin_url}/metrics")
        assert answer.status_code == 200, answer.text
        return Metrics(answer.text)


class Receiver:
    """A model and a sink in one: answers everything, remembers events.

    A request that is no event waits until it may be answered, which it may at first.
    """

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.asked = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.path == "/":
                    receiver.events += orjson.loads(body)
                else:
                    receiver.asked.set()
                    assert receiver.may_answer.wait(_TEST_S)
                self.send_response(200)
                self.send_header("content-length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def start_service(
    tmp_path: Path,
) -> Iterator[Callable[..., Service]]:
    """Start ``serve``: ``start_service(name="a", config={...})``; each name has its own folder."""
    services: list[Service] = []

    def start(
        name: str = "service",
        config: Mapping[str, Any] | None = None,
        program: tuple[str, ...] = _SIDELIGHT,
        certificate: Path | None = None,
    ) -> Service:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        service = Service(folder, config, certificate)
        service.program = program
        services.append(service)
        service.start()
        return service

    yield start
    for service in services:
        service.close()


@pytest.fixture
def service(start_service: Callable[..., Service]) -> Service:
    """A running service with no configuration at all."""
    return start_service()


@pytest.fixture
def make_proxy(tmp_path: Path) -> Iterator[Callable[[], Proxy]]:
    """Make proxies that are not started yet; each has its own folder."""
    proxies: list[Proxy] = []

    def make() -> Proxy:
        folder = tmp_path / f"proxy{len(proxies)}"
        folder.mkdir()
        proxies.append(Proxy(folder))
        return proxies[-1]

    yield make
    for proxy in proxies:
        proxy.close()


@pytest.fixture
def start_proxy(make_proxy: Callable[[], Proxy]) -> Callable[..., Proxy]:
    """Start ``proxy`` with these options: ``start_proxy(upstream=URL, sink=URL, ...)``."""

    def start(**options: Any) -> Proxy:
        proxy = make_proxy()
        proxy.start(**options)
        return proxy

    return start


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    """A running broker; who kills it starts it again."""
    server = KafkaServer(tmp_path_factory.mktemp("kafka"))
    server.start()
    yield server
    server.close()


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A running object store; who kills it starts it again."""
    server = S3Server(tmp_path_factory.mktemp("s3"))
    server.start()
    yield server
    server.close()


@pytest.fixture(scope="session", params=["elasticsearch", "opensearch"])
def search_server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ElasticServer]:
    """A running server with its client in reach; who kills it starts it again."""
    sys.path.append(str(clients()))
    server = ElasticServer(request.param, tmp_path_factory.mktemp(request.param), NARROW)
    server.start()
    yield server
    server.close()
    sys.path.remove(str(clients()))


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A model and a sink in one."""
    receiver = Receiver()
    yield receiver
    receiver.close()
