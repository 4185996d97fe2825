"""What the benchmarks of the sidecar run beside it: models, a sink, nginx, and a naive peer."""

import asyncio
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, cast

import uvloop

# A module in the folder of this script.
from local_ports import await_port, free_port  # type: ignore[import-not-found]  # see above

ANSWER_BODY = (
    b'{"model_name":"flights","outputs":[{"name":"p","datatype":"FP32","data":[0.123456]}]}'
)
ANSWER = (
    b"HTTP/1.1 200 OK\r\ndate: Sat, 21 Nov 2026 12:00:00 GMT\r\nserver: uvicorn\r\n"
    b"content-length: %d\r\ncontent-type: application/json\r\n\r\n" % len(ANSWER_BODY)
) + ANSWER_BODY
_TICKS = os.sysconf("SC_CLK_TCK")
_FAILED = re.compile(r"Non-2xx.*|Socket errors.*")
_UNITS = {"us": 1.0, "ms": 1e3, "s": 1e6}

_LUA = """
local file = io.open("%s", "rb")
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = file:read("*a")
"""

# Keep-alive on both sides; what mirror copies goes to the sink, whose answer is not waited for.
# Bodies of a megabyte stay in memory: a file would make it easy to be faster.
_NGINX = """
worker_processes 1;
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr crit;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    client_max_body_size 0;
    client_body_buffer_size 2m;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    upstream model {{ server 127.0.0.1:{model}; keepalive 256; keepalive_requests 1000000000; }}
    upstream sink {{ server 127.0.0.1:{sink}; keepalive 256; keepalive_requests 1000000000; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{ mirror /mirror; proxy_pass http://model; }}
        location = /mirror {{ internal; proxy_pass http://sink$request_uri; }}
    }}
}}
"""


def v2_body(rows: int) -> bytes:
    """Give a V2 request of so many rows of 20 features."""
    values = (b"0.%08d" % (number * 4_321_987 % 10**8) for number in range(rows * 20))
    return b'{"inputs":[{"name":"input","shape":[%d,20],"datatype":"FP32","data":[%b]}]}' % (
        rows,
        b",".join(values),
    )


class _Model(asyncio.Protocol):
    """Answers each request when it is whole."""

    answer = ANSWER

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._data = b""
        self._skip = 0

    def data_received(self, data: bytes) -> None:
        if self._skip:
            skipped = min(self._skip, len(data))
            self._skip -= skipped
            data = data[skipped:]
            if not self._skip:
                self.asked()
        self._data += data
        while (end := self._data.find(b"\r\n\r\n")) >= 0:
            length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", self._data[: end + 2])
            end += 4 + (int(length[1]) if length else 0)
            self._skip = max(0, end - len(self._data))
            self._data = self._data[end:]
            if not self._skip:
                self.asked()

    def asked(self) -> None:
        self._transport.write(self.answer)


class _Sink(_Model):
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"


class _Streaming(_Model):
    """Says a first word at once and the rest later."""

    def asked(self) -> None:
        self._transport.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n"
            b"\r\n9\r\ndata: 0\n\n\r\n"
        )
        rest = b"9\r\ndata: 1\n\n\r\n0\r\n\r\n"
        asyncio.get_running_loop().call_later(0.005, self._transport.write, rest)


def _serve(port: int, make: Callable[[], asyncio.Protocol]) -> None:
    async def serve() -> None:
        server = await asyncio.get_running_loop().create_server(make, "127.0.0.1", port)
        await server.serve_forever()

    uvloop.run(serve())


def _serve_fastapi(port: int) -> None:
    import uvicorn  # noqa: PLC0415 - only its own process needs it
    from fastapi import FastAPI  # noqa: PLC0415 - only its own process needs it

    app = FastAPI()

    @app.post("/v2/models/flights/infer")
    async def infer(request: dict[str, Any]) -> dict[str, Any]:
        values = request["inputs"][0]["data"]
        return {"model_name": "flights", "outputs": [{"name": "p", "data": [sum(values)]}]}

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="error", loop="uvloop")


def _serve_naive(port: int, model: int, sink: int) -> None:
    """Do what is done without thought: a framework, a client, and a CloudEvent for each body."""
    import httpx  # noqa: PLC0415 - only its own process needs it
    import uvicorn  # noqa: PLC0415 - only its own process needs it
    from starlette.applications import Starlette  # noqa: PLC0415 - only its own process needs it
    from starlette.requests import Request  # noqa: PLC0415 - only its own process needs it
    from starlette.responses import Response  # noqa: PLC0415 - only its own process needs it
    from starlette.routing import Route  # noqa: PLC0415 - only its own process needs it

    limits = httpx.Limits(max_connections=None, max_keepalive_connections=256)
    client = httpx.AsyncClient(limits=limits, timeout=30, trust_env=False)
    sending: set[asyncio.Task[Any]] = set()

    async def post(body: bytes, headers: dict[str, str]) -> None:
        with suppress(httpx.HTTPError):
            await client.post(f"http://127.0.0.1:{sink}/", content=body, headers=headers)

    def emit(kind: str, body: bytes) -> None:
        headers = {
            "ce-specversion": "1.0",
            "ce-id": os.urandom(8).hex(),
            "ce-source": "naive",
            "ce-type": f"org.kubeflow.serving.inference.{kind}",
            "content-type": "application/json",
        }
        task = asyncio.create_task(post(body, headers))
        sending.add(task)
        task.add_done_callback(sending.discard)

    async def relay(request: Request) -> Response:
        body = await request.body()
        emit("request", body)
        url = f"http://127.0.0.1:{model}{request.url.path}"
        headers = {"content-type": request.headers["content-type"]}
        answer = await client.post(url, content=body, headers=headers)
        emit("response", answer.content)
        return Response(answer.content, answer.status_code, dict(answer.headers))

    app = Starlette(routes=[Route("/{path:path}", relay, methods=["POST"])])
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="critical", loop="uvloop")


@contextmanager
def _running(*command: str) -> Iterator[int]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process.pid
    finally:
        process.terminate()
        process.communicate(timeout=15)


class Peers:
    """Starts what is asked for; `close` ends all of it.

    Attributes
    ----------
    ports, pids : dict
        By the name that each was started with.
    """

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        self.ports: dict[str, int] = {}
        self.pids: dict[str, int] = {}
        self._beside: tuple[str, ...] = ()
        self.sink = self._process("sink", _serve, _Sink)

    def give_a_core(self, name: str) -> None:
        """Let a peer have the first core for itself, and all others, with wrk, the rest."""
        first, *rest = sorted(os.sched_getaffinity(0))
        for other, pid in self.pids.items():
            os.sched_setaffinity(pid, {first} if other == name else rest)
        self._beside = ("taskset", "-c", ",".join(map(str, rest)))

    def close(self) -> None:
        self._stack.close()

    def _process(self, name: str, serve: Callable[..., None], *options: Any) -> int:
        port: int = free_port()
        process = multiprocessing.Process(target=serve, args=(port, *options), daemon=True)
        process.start()
        self._stack.callback(process.terminate)
        await_port(port)
        assert process.pid is not None
        self.ports[name], self.pids[name] = port, process.pid
        return port

    def model(self, name: str = "direct") -> int:
        """Start a server that answers from memory."""
        return self._process(name, _serve, _Model)

    def streaming(self) -> int:
        """Start a server that answers in two chunks, the second later."""
        return self._process("direct", _serve, _Streaming)

    def fastapi(self) -> int:
        """Start a model behind FastAPI."""
        return self._process("direct", _serve_fastapi)

    def naive(self, model: int) -> None:
        """Start the naive sidecar."""
        self._process("naive", _serve_naive, model, self.sink)

    def nginx(self, model: int) -> None:
        """Start nginx with mirror."""
        port = free_port()
        settings = self._folder / "nginx.conf"
        settings.write_text(
            _NGINX.format(folder=self._folder, model=model, sink=self.sink, port=port)
        )
        command = ("nginx", "-p", str(self._folder), "-c", str(settings))
        self.pids["nginx"] = self._stack.enter_context(_running(*command))
        self.ports["nginx"] = port
        await_port(port)

    def sidecar(self, model: int) -> None:
        """Start the sidecar as users do."""
        port = free_port()
        command = (
            *(sys.executable, "-m", "sidelight.service", "proxy"),
            *("--upstream", f"http://127.0.0.1:{model}"),
            *("--sink", f"http://127.0.0.1:{self.sink}/", "--listen", f"127.0.0.1:{port}"),
            *("--admin", f"127.0.0.1:{free_port()}", "--spool", str(self._folder / "spool")),
        )
        self.pids["sidecar"] = self._stack.enter_context(_running(*command))
        self.ports["sidecar"] = port
        await_port(port)

    def cpu_s(self, name: str) -> float:
        """CPU time of a peer so far, user and system, seconds."""
        text = Path(f"/proc/{self.pids[name]}/stat").read_text()
        fields = text.rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def load(self, name: str, connections: int, seconds: float, body: bytes) -> "Load":
        """Ask a peer as fast as it answers."""
        data, script = self._folder / "request", self._folder / "request.lua"
        data.write_bytes(body)
        script.write_text(_LUA % data)
        url = f"http://127.0.0.1:{self.ports[name]}/v2/models/flights/infer"
        command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--latency"]
        command += ["--timeout", "30s", "-s", str(script)]
        text = subprocess.run(
            [*self._beside, *command, url],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        if failed := _FAILED.search(text):
            raise SystemExit(f"{name}: requests failed: {failed[0]}")
        return Load(text)


class Load:
    """What wrk says: requests, how many a second, and the latencies in microseconds."""

    def __init__(self, text: str) -> None:
        self.count = int(_found(r"(\d+) requests in", text)[1])
        self.rate = float(_found(r"Requests/sec: +([\d.]+)", text)[1])
        self.p50_us, self.p99_us = (
            float(found[1]) * _UNITS[found[2]]
            for found in (_found(rf" {share}% +([\d.]+)(us|ms|s)", text) for share in (50, 99))
        )


def _found(pattern: str, text: str) -> re.Match[str]:
    found = re.search(pattern, text)
    assert found, text
    return found


def missing() -> list[str]:
    """Name the programs that must be installed and are not."""
    return [name for name in ("wrk", "nginx") if shutil.which(name) is None]
