"""Real servers that tests start, kill and start again, prepared once and kept in a cache."""

import contextlib
import fcntl
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

_POLL_S = 0.02
# Limits that a slow machine does not reach, nor one that stands still for seconds.
_START_S = 240.0
_STOP_S = 120.0
_given_ports: set[int] = set()


def cached(name: str, prepare: Callable[[Path], None]) -> Path:
    """Return a folder of the test cache that ``prepare`` has filled, now or long ago.

    A folder is visible only when it is whole, and several runs do not prepare it at once.
    """
    default = Path.home() / ".cache" / "sidelight-tests"
    cache = Path(os.environ.get("SIDELIGHT_TEST_CACHE", default))
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f".{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        folder = cache / name
        if not folder.exists():
            with tempfile.TemporaryDirectory(dir=cache) as temporary:
                made = Path(temporary) / name
                made.mkdir()
                prepare(made)
                made.rename(folder)
    return folder


def run(*command: str | Path, timeout_s: float = 1200.0) -> None:
    """Run a tool that prepares or configures a server; fail with what it said."""
    done = subprocess.run(
        list(command), capture_output=True, text=True, timeout=timeout_s, check=False
    )
    if done.returncode:
        pytest.fail(f"{command[0]} ended with {done.returncode}:\n{done.stdout}{done.stderr}")


def needed(program: str) -> str:
    """Return the path of a program; without it there is no such test, but on a build server."""
    found = shutil.which(program)
    if found is None:
        missing = f"{program} is not installed; this test starts a real server with it"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    return found


def free_ports(n_ports: int) -> list[int]:
    """Return ports below those that clients get.

    A client that keeps on connecting to a dead server could otherwise be given the server's port
    as its own, and the server not come back. No port is given twice: who got it may not listen yet.
    """
    found: list[int] = []
    while len(found) < n_ports:
        port = random.randint(20000, 31999)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            if port not in _given_ports:
                _given_ports.add(port)
                found.append(port)
    return found


class ServerProcess:
    """One process of a server; its output goes to a log.

    Parameters
    ----------
    command : sequence of str or Path
    folder : Path
        Where it runs and where its log is.
    environment : mapping of str to str, optional
        Beside the own one.

    """

    def __init__(
        self,
        command: Sequence[str | Path],
        folder: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.log = folder / "server.log"
        self._command = [str(word) for word in command]
        self._folder = folder
        self._environment = {**os.environ, **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, is_ready: Callable[[bytes], bool], *, timeout_s: float = _START_S) -> None:
        """Start, and return when ``is_ready`` says so of what it has told since then."""
        with self.log.open("ab") as log:
            told = log.tell()
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._folder,
                env=self._environment,
                start_new_session=True,
            )
        deadline = time.monotonic() + timeout_s
        while not is_ready(self.log.read_bytes()[told:]):
            if self._process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"the server did not start:\n{self.tail()}")
            time.sleep(_POLL_S)

    def tail(self, n_characters: int = 4000) -> str:
        """Return the end of the log."""
        return self.log.read_text(errors="replace")[-n_characters:]

    def signal(self, number: signal.Signals) -> None:
        """Send a signal: ``SIGSTOP`` makes a server that is there and does not answer."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def stop(self) -> None:
        """End it as SIGTERM does, or harder when that takes too long."""
        self.signal(signal.SIGTERM)
        self._wait()

    def kill(self) -> None:
        """End it with SIGKILL."""
        self.signal(signal.SIGKILL)
        self._wait()

    def _wait(self) -> None:
        if self._process is not None:
            try:
                self._process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
