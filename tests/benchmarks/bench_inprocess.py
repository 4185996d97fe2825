"""What capture inside the model's process costs: each way beside the same call without it.

For each way: microseconds of the caller's thread for one call, then of the whole process with the
thread of the emitter (encoding and a sink that takes everything). The best of five rounds, in
which both ways take turns.

    python tests/benchmarks/bench_inprocess.py
"""

import asyncio
import io
import json
import platform
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from sidelight.logger import (
    CapturedEvent,
    CaptureMiddleware,
    CaptureWsgiMiddleware,
    Delivery,
    captured,
)

N_CALLS = 4000
N_ROUNDS = 5
ANSWER = json.dumps(
    {"model_name": "m", "outputs": [{"name": "y", "shape": [1], "datatype": "FP64", "data": [0.5]}]}
).encode()


def request(n_rows: int) -> bytes:
    data = [round(value, 8) for value in np.random.default_rng(0).normal(size=20 * n_rows)]
    tensor = {"name": "x", "shape": [n_rows, 20], "datatype": "FP64", "data": data}
    return json.dumps({"inputs": [tensor]}).encode()


class Nowhere:
    """A sink that takes everything."""

    async def send(self, events: Sequence[CapturedEvent]) -> Delivery:
        return Delivery(n_taken=len(events))

    async def close(self) -> None:
        pass


async def asgi_model(scope: Any, receive: Any, send: Any) -> None:  # noqa: ARG001 - ASGI's interface
    await receive()
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": ANSWER})


def asgi(app: Any, body: bytes) -> Callable[[], None]:
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "path": "/v2/models/m/infer",
        "raw_path": b"/v2/models/m/infer",
        "query_string": b"",
        "headers": [
            (b"host", b"127.0.0.1:8080"),
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
        ],
    }

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body}

    async def send(message: Any) -> None:
        pass

    async def calls() -> None:
        for _ in range(N_CALLS):
            await app(scope, receive, send)

    return lambda: asyncio.run(calls())


def wsgi_model(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
    start_response("200 OK", [("Content-Type", "application/json")])
    return [ANSWER]


def wsgi(app: Any, body: bytes) -> Callable[[], None]:
    def write(data: bytes) -> None:
        pass

    def calls() -> None:
        for _ in range(N_CALLS):
            environ = {
                "REQUEST_METHOD": "POST",
                "PATH_INFO": "/v2/models/m/infer",
                "SERVER_PROTOCOL": "HTTP/1.1",
                "CONTENT_TYPE": "application/json",
                "CONTENT_LENGTH": str(len(body)),
                "HTTP_HOST": "127.0.0.1:8080",
                "wsgi.input": io.BytesIO(body),
            }
            answer = app(environ, lambda *_: write)
            for _piece in answer:
                pass
            if hasattr(answer, "close"):
                answer.close()

    return calls


def function_model(x: Any) -> Any:
    return x[:, 0]


def function(predict: Any, rows: Any) -> Callable[[], None]:
    def calls() -> None:
        for _ in range(N_CALLS):
            predict(rows)

    return calls


def measure(calls: Callable[[], None]) -> tuple[float, float]:
    """Return microseconds of this thread and of the process for one call."""
    thread, process = time.thread_time(), time.process_time()
    calls()
    return (
        (time.thread_time() - thread) / N_CALLS * 1e6,
        (time.process_time() - process) / N_CALLS * 1e6,
    )


def compare(name: str, bare: Callable[[], None], capturing: Callable[[], None], tap: Any) -> None:
    without, with_capture = [], []
    for _ in range(N_ROUNDS):
        without.append(measure(bare))
        with_capture.append(measure(capturing))
        tap.flush()
    (before, before_all), (after, after_all) = map(_best, (without, with_capture))
    print(
        f"{name:24} {before:8.1f} {after:8.1f} {after - before:+8.1f} us"
        f"   whole process {after_all - before_all:+8.1f} us"
    )


def _best(figures: list[tuple[float, float]]) -> tuple[float, float]:
    return min(one[0] for one in figures), min(one[1] for one in figures)


def main() -> None:
    print(f"{platform.machine()}, Python {platform.python_version()}, {N_CALLS} calls a round")
    print(f"{'caller, per call':24} {'without':>8} {'with':>8}")
    for n_rows in (1, 64):
        body = request(n_rows)
        asgi_capture = CaptureMiddleware(asgi_model, sink=Nowhere, deployment="a/b")
        compare(
            f"ASGI {len(body)} bytes",
            asgi(asgi_model, body),
            asgi(asgi_capture, body),
            asgi_capture.emitter,
        )
        wsgi_capture = CaptureWsgiMiddleware(wsgi_model, sink=Nowhere, deployment="a/b")
        compare(
            f"WSGI {len(body)} bytes",
            wsgi(wsgi_model, body),
            wsgi(wsgi_capture, body),
            wsgi_capture.emitter,
        )
        tap = asgi_capture.emitter
        rows = np.random.default_rng(0).normal(size=(n_rows, 20))
        predict = captured(sink=tap)(function_model)
        compare(
            f"decorator {n_rows}x20 array",
            function(function_model, rows),
            function(predict, rows),
            tap,
        )
        listed = rows.tolist()
        compare(
            f"decorator {n_rows}x20 lists",
            function(len, listed),
            function(captured(sink=tap)(len), listed),
            tap,
        )


if __name__ == "__main__":
    main()
