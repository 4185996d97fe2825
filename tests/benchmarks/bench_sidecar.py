"""What the whole sidecar costs beside nginx with ``mirror``: CPU per request, in one run.

    python tests/benchmarks/bench_sidecar.py [--seconds 3] [--rounds 3]

Needs ``wrk`` and ``nginx`` (with the mirror module, which is built in) and says so when one is
missing. The proxy runs as users run it, with its emitter and spool, and sends both bodies of each
exchange as CloudEvents; nginx sends a copy of the request only. Behind both is the same server
that answers from memory, and the same kind of server takes what they send. Rounds alternate
between the two, so that a slow moment of the machine meets both; the CPU time is that of their own
processes, so it holds on a busy machine where requests per second do not.
"""

import argparse
import asyncio
import multiprocessing
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import cast

import uvloop

# The same request and answer, made in one place; a script beside this one.
from bench_proxy import _ANSWER, _request  # type: ignore[import-not-found]  # see above

_HEAD, _, _BODY = _request(None).partition(b"\r\n\r\n")
_TICKS = os.sysconf("SC_CLK_TCK")
_START_S = 20.0
_RATE = re.compile(r"(\d+) requests in")
_FAILED = re.compile(r"Non-2xx.*|Socket errors.*")

_LUA = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = [[%s]]
"""

# Keep-alive on both sides; what mirror copies goes to the sink, whose answer is not waited for.
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
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    upstream model {{ server 127.0.0.1:{model}; keepalive 256; keepalive_requests 1000000000; }}
    upstream sink {{ server 127.0.0.1:{sink}; keepalive 256; keepalive_requests 1000000000; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            mirror /mirror;
            proxy_pass http://model;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }}
        location = /mirror {{
            internal;
            proxy_pass http://sink$request_uri;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }}
    }}
}}
"""


class _Server(asyncio.Protocol):
    """Answers each request when it is whole."""

    answer = _ANSWER

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._data = b""

    def data_received(self, data: bytes) -> None:
        data = self._data + data if self._data else data
        while (end := data.find(b"\r\n\r\n")) >= 0:
            length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", data[: end + 2])
            end += 4 + (int(length[1]) if length else 0)
            if len(data) < end:
                break
            data = data[end:]
            self._transport.write(self.answer)
        self._data = data


class _Sink(_Server):
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"


def _serve(port: int, make: Callable[[], asyncio.Protocol]) -> None:
    async def serve() -> None:
        server = await asyncio.get_running_loop().create_server(make, "127.0.0.1", port)
        await server.serve_forever()

    uvloop.run(serve())


def _free_port() -> int:
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        port: int = chosen.getsockname()[1]
        return port


def _await_port(port: int) -> None:
    deadline = time.monotonic() + _START_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


@contextmanager
def _running(*command: str) -> Iterator[int]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        yield process.pid
    finally:
        process.terminate()
        process.communicate(timeout=15)


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _load(port: int, connections: int, seconds: float, script: Path) -> int:
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "-s", str(script)]
    url = f"http://127.0.0.1:{port}/v2/models/flights/infer"
    text = subprocess.run([*command, url], capture_output=True, text=True, check=True).stdout
    if failed := _FAILED.search(text):
        raise SystemExit(f"requests failed: {failed[0]}")
    found = _RATE.search(text)
    assert found, text
    return int(found[1])


def _measure(seconds: float, rounds: int) -> None:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        model, sink, nginx, proxy, admin = (_free_port() for _ in range(5))
        for port, make in ((model, _Server), (sink, _Sink)):
            server = multiprocessing.Process(target=_serve, args=(port, make), daemon=True)
            server.start()
            stack.callback(server.terminate)
            _await_port(port)
        script = folder / "request.lua"
        script.write_text(_LUA % _BODY.decode())
        settings = folder / "nginx.conf"
        settings.write_text(_NGINX.format(folder=folder, model=model, sink=sink, port=nginx))
        pids = {
            "nginx": stack.enter_context(_running("nginx", "-p", str(folder), "-c", str(settings))),
            "proxy": stack.enter_context(
                _running(
                    *(sys.executable, "-m", "sidelight.service", "proxy"),
                    *("--upstream", f"http://127.0.0.1:{model}", "--sink"),
                    *(f"http://127.0.0.1:{sink}/", "--listen", f"127.0.0.1:{proxy}"),
                    *("--admin", f"127.0.0.1:{admin}", "--spool", str(folder / "spool")),
                )
            ),
        }
        ports = {"nginx": nginx, "proxy": proxy}
        for name, port in ports.items():
            _await_port(port)
            _load(port, 4, 1, script)
            print(f"{name} warm")
        for connections in (16, 64):
            costs: dict[str, list[float]] = {"nginx": [], "proxy": []}
            for _ in range(rounds):
                for name, port in ports.items():
                    began = _cpu_s(pids[name])
                    count = _load(port, connections, seconds, script)
                    # What was captured must have been sent as well to count in full.
                    time.sleep(0.5)
                    costs[name].append((_cpu_s(pids[name]) - began) / count * 1e6)
            _report(connections, costs)


def _report(connections: int, costs: dict[str, list[float]]) -> None:
    ratios = [ours / theirs for ours, theirs in zip(costs["proxy"], costs["nginx"], strict=True)]
    print(
        f"{connections} connections, {len(_BODY)} bytes: "
        f"proxy {statistics.median(costs['proxy']):.1f} us a request, "
        f"nginx with mirror {statistics.median(costs['nginx']):.1f} us, "
        f"ratio {statistics.median(ratios):.2f} (from {min(ratios):.2f} to {max(ratios):.2f})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    missing = [name for name in ("wrk", "nginx") if shutil.which(name) is None]
    if missing:
        print(f"not measured: {' and '.join(missing)} must be installed")
        return
    _measure(options.seconds, options.rounds)


if __name__ == "__main__":
    main()
