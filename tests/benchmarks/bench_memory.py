"""How much memory the proxy takes while its sink is dead: resident size against its bound.

    python tests/benchmarks/bench_memory.py [--requests 1200000] [--overflow spool|drop_oldest]

Needs ``wrk`` and says so when it is missing. 1,200,000 requests of 283 bytes are ten minutes at
2,000 a second; here they come as fast as the proxy takes them, which is harder on it. The proxy
runs as users run it, in front of a server that answers from memory; nobody listens at the address
of its sink. What is bounded are the events in memory; the promise is that bound and 64 MiB.
"""

import argparse
import asyncio
import json
import multiprocessing
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import cast

import uvloop

# A module in the folder of this script.
from local_ports import await_port, free_port  # type: ignore[import-not-found]  # see above

_MIB = 1 << 20
_BOUND_MIB = 64
_SLACK_MIB = 64
_BODY = (
    b'{"id":"flight-0","inputs":[{"name":"x","shape":[1,20],"datatype":"FP64","data":[%b]}]}'
    % (b",".join(b"%.7f" % (number / 7) for number in range(20)))
)
_SAID = b'{"outputs":[{"name":"y","shape":[1],"datatype":"FP64","data":[0.51234]}]}'
_ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (
    len(_SAID),
    _SAID,
)
_LUA = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = [[%s]]
"""
_SAMPLE = re.compile(r"^sidelight_capture_(\w+)\{([^}]*)\} (\S+)$", re.MULTILINE)


class _Model(asyncio.Protocol):
    """Answers each request when it is whole, from memory."""

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
            self._transport.write(_ANSWER)
        self._data = data


def _serve(port: int) -> None:
    async def serve() -> None:
        server = await asyncio.get_running_loop().create_server(_Model, "127.0.0.1", port)
        await server.serve_forever()

    uvloop.run(serve())


def _metrics(port: int) -> dict[str, float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    found: dict[str, float] = {}
    for name, labels, value in _SAMPLE.findall(text):
        outcome = re.search(r'outcome="(\w+)"', labels)
        key = f"{name} {outcome[1]}" if outcome else name
        found[key] = found.get(key, 0.0) + float(value)
    return found


def _resident_mib(pid: int, field: str = "VmRSS") -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(rf"{field}:\s+(\d+) kB", status)
    return int(found[1]) / 1024 if found else 0.0


def _measure(folder: Path, n_requests: int, overflow: str) -> None:
    model, door, admin, nobody = (free_port() for _ in range(4))
    config = folder / "proxy.yaml"
    sink = {
        "name": "sink",
        "http": {"url": f"http://127.0.0.1:{nobody}/"},
        "memory": _BOUND_MIB * _MIB,
        "overflow": overflow,
    }
    config.write_text(
        json.dumps(
            {
                "proxy": {
                    "upstream": f"http://127.0.0.1:{model}",
                    "listen": f"127.0.0.1:{door}",
                    "admin": f"127.0.0.1:{admin}",
                    "spool": str(folder / "spool"),
                    "sinks": [sink],
                }
            }
        )
    )
    script = folder / "post.lua"
    script.write_text(_LUA % _BODY.decode())
    started: list[subprocess.Popen[bytes]] = []
    child = multiprocessing.get_context("spawn").Process(target=_serve, args=(model,), daemon=True)
    child.start()
    try:
        await_port(model)
        log = (folder / "proxy.log").open("wb")
        program = (sys.executable, "-P", "-m", "sidelight.service", "proxy")
        started.append(subprocess.Popen([*program, "--config", str(config)], stderr=log))
        await_port(door)
        proxy = started[0].pid
        print(f"{len(_BODY)} bytes, overflow {overflow}; idle {_resident_mib(proxy):.0f} MiB")
        wrk = (
            "wrk",
            "-t1",
            "-c32",
            "-d3600",
            "-s",
            str(script),
            f"http://127.0.0.1:{door}/v2/models/m/infer",
        )
        begun = time.monotonic()
        started.append(subprocess.Popen(wrk, stdout=subprocess.DEVNULL))
        shown = 0.0
        while (n_seen := _metrics(admin)["events_total seen"] / 2) < n_requests:
            if n_seen >= shown:
                shown += n_requests / 10
                found = _metrics(admin)
                print(
                    f"{n_seen:>10,.0f} requests  resident {_resident_mib(proxy):6.1f} MiB  events: "
                    f"{found['pending_bytes'] / _MIB:5.1f} MiB in memory, "
                    f"{found['spool_bytes'] / _MIB:6.1f} MiB in the spool, "
                    f"{found.get('events_total dropped', 0):9,.0f} dropped",
                    flush=True,
                )
            time.sleep(0.2)
        elapsed = time.monotonic() - begun
        peak = _resident_mib(proxy, "VmHWM")
        print(
            f"{n_seen:,.0f} requests at {n_seen / elapsed:,.0f}/s: at most {peak:.1f} MiB; "
            f"bound {_BOUND_MIB} + {_SLACK_MIB} = {_BOUND_MIB + _SLACK_MIB} MiB: "
            f"{'within' if peak <= _BOUND_MIB + _SLACK_MIB else 'ABOVE'}"
        )
    finally:
        for process in reversed(started):
            process.kill()
            process.wait()
        child.kill()
        child.join()


def main() -> None:
    """Measure once with the policy that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--requests", type=int, default=1_200_000)
    parser.add_argument(
        "--overflow", default="spool", choices=["spool", "drop_newest", "drop_oldest"]
    )
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        print("wrk is not installed; nothing is measured")
        return
    with tempfile.TemporaryDirectory() as folder:
        _measure(Path(folder), options.requests, options.overflow)


if __name__ == "__main__":
    main()
