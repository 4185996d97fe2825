"""Capture inside of real servers: gunicorn with forked workers, uvicorn with workers of its own."""

import concurrent.futures
import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from tests.services.conftest import wait_until
from tests.services.server_process import ServerProcess, cached, free_ports, run

from sidelight.logger._spool_segment import scan

if TYPE_CHECKING:
    from tests.services.conftest import Service

_GUNICORN = "gunicorn==23.0.0"
_PREDICT = "/v2/models/sums/infer"
# Limits that a slow machine does not reach, nor one that stands still for seconds.
_PATIENCE_S = 180.0
_APPLICATIONS = """
import json, os

from sidelight.logger import CaptureMiddleware, CaptureWsgiMiddleware, captured

options = {"sink": os.environ["SINK"], "deployment": "prod/sums", "spool": os.environ["SPOOL"]}

def answer(body):
    (tensor,) = json.loads(body)["inputs"]
    output = {"name": "sum", "shape": [1], "datatype": "FP64", "data": [sum(tensor["data"])]}
    return json.dumps({"model_name": "sums", "outputs": [output], "pid": os.getpid()}).encode()

def of_wsgi(environ, start_response):
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    start_response("200 OK", [("Content-Type", "application/json")])
    return [answer(body) if body else b"ready"]

async def of_asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        for kind in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{kind}.complete"})
        return
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer(body) if body else b"ready"})

wsgi = CaptureWsgiMiddleware(of_wsgi, **options)
asgi = CaptureMiddleware(of_asgi, **options)
for one in (wsgi, asgi):
    # Everything is to be delivered at the end, on however slow a machine.
    one.emitter._grace_s = 60.0
"""


class Application:
    """An application under a server, and its environment."""

    def __init__(self, folder: Path, sink: str) -> None:
        folder.mkdir()
        (folder / "application.py").write_text(_APPLICATIONS)
        self.spool = folder / "spool"
        self.n_started = 0
        self._folder = folder
        self._sink = sink
        self._process: ServerProcess | None = None

    def start(self, *command: str | Path, path: Path | None = None) -> None:
        (port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{port}"
        words = [str(word).replace("PORT", str(port)) for word in command]
        found = os.pathsep.join(map(str, filter(None, [self._folder, path])))
        self._process = ServerProcess(
            words,
            self._folder,
            {"PYTHONPATH": found, "SINK": self._sink, "SPOOL": str(self.spool)},
        )
        self._process.start(lambda _: self._is_ready())

    def _is_ready(self) -> bool:
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(self.url, timeout=30).text == "ready"
        return False

    def ask(self, n_requests: int) -> dict[str, int]:
        """Return the process that answered, by the id that the answer told."""

        def one(number: int) -> tuple[str, int]:
            tensor = {"name": "x", "shape": [1, 2], "datatype": "FP64", "data": [number, 0.5]}
            # A connection of its own: any worker may take it.
            answer = httpx.post(self.url + _PREDICT, json={"inputs": [tensor]}, timeout=_PATIENCE_S)
            document = answer.json()
            assert document["outputs"][0]["data"] == [number + 0.5]
            return answer.headers["x-request-id"], document["pid"]

        with concurrent.futures.ThreadPoolExecutor(8) as threads:
            answers = dict(threads.map(one, range(n_requests)))
        assert len(answers) == n_requests
        return answers

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop()

    def kill(self, pids: set[int]) -> None:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, 9)


@pytest.fixture
def application(tmp_path: Path) -> Iterator[Callable[[str], Application]]:
    running: list[Application] = []

    def make(sink: str) -> Application:
        running.append(Application(tmp_path / f"application{len(running)}", sink))
        return running[-1]

    yield make
    for one in running:
        one.stop()


def _gunicorn() -> Path:
    def prepare(folder: Path) -> None:
        run(sys.executable, "-m", "pip", "install", "-q", "--target", folder, _GUNICORN)

    return cached(_GUNICORN.replace("==", "-"), prepare)


def _start_gunicorn(application: Application, *options: str) -> None:
    application.start(
        *(sys.executable, "-m", "gunicorn", "application:wsgi", "--bind", "127.0.0.1:PORT"),
        *("--workers", "3", "--timeout", "300", "--graceful-timeout", "100", *options),
        path=_gunicorn(),
    )


def _stored(service: "Service", n_inferences: int) -> list[dict[str, Any]]:
    items = service.wait_stored(n_inferences)
    assert {item["orphan"] for item in items} == {None}
    assert {item["deployment"] for item in items} == {"prod/sums"}
    for item in items:
        (row,) = item["rows"]
        assert row["outputs"] == {"sum": row["features"]["x_0"] + 0.5}
    return items


@pytest.mark.parametrize(
    "options",
    [
        pytest.param((), id="processes"),
        pytest.param(("--threads", "4"), id="threads"),
        pytest.param(("--preload",), id="loaded-before-the-fork"),
        pytest.param(("--max-requests", "20"), id="workers-replaced"),
    ],
)
def test_everything_that_forked_workers_answered_is_stored(
    service: "Service", application: Callable[[str], Application], options: tuple[str, ...]
) -> None:
    model = application(f"{service.url}/")
    _start_gunicorn(model, *options)

    answers = model.ask(150)
    # On a slow machine the others are still being loaded.
    deadline = time.monotonic() + _PATIENCE_S
    while len(set(answers.values())) == 1:
        assert time.monotonic() < deadline, "one process answers everything"
        answers |= model.ask(10)
    model.stop()

    assert {item["request_id"] for item in _stored(service, len(answers))} == set(answers)
    assert not list(model.spool.rglob("*.spool1"))


def test_uvicorns_workers_deliver_before_they_end_by_their_signal(
    service: "Service", application: Callable[[str], Application]
) -> None:
    model = application(f"{service.url}/")
    model.start(
        *(sys.executable, "-m", "uvicorn", "application:asgi"),
        *("--host", "127.0.0.1", "--port", "PORT", "--workers", "2"),
        # Nobody is taken for dead who only stands still.
        *("--timeout-worker-healthcheck", "300"),
    )

    answers = model.ask(100)
    model.stop()

    assert {item["request_id"] for item in _stored(service, 100)} == set(answers)


def test_what_killed_workers_had_spooled_is_delivered_by_others(
    service: "Service", application: Callable[[str], Application]
) -> None:
    model = application(f"{service.url}/")
    service.kill()
    _start_gunicorn(model)
    answers = model.ask(60)
    # Within a second what cannot be sent is on the disk.
    _wait_spooled(model, 120)

    model.kill(set(answers.values()))
    service.start()

    # gunicorn starts other workers; the first captured request starts the thread of one.
    more = model.ask(30)
    items = _stored(service, 90)
    assert {item["request_id"] for item in items} == set(answers) | set(more)


def _wait_spooled(model: Application, n_events: int) -> None:
    def n_spooled() -> int:
        return sum(
            len(list(scan(path.read_bytes(), salt=int(path.stem.partition("-")[2], 16))))
            for path in model.spool.rglob("*.spool1")
        )

    wait_until(
        lambda: n_spooled() >= n_events, f"{n_events} events are spooled", timeout_s=_PATIENCE_S
    )
