"""The service and the proxy of the demo, kept alive as a pod would."""

import contextlib
import random
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

_PORTS = range(20_000, 32_768)
_RESTART_S = 0.1
_STOP_S = 20.0


def free_ports(number: int) -> list[int]:
    """Return different TCP ports of the loopback address that nobody listens on now.

    They are below those that Linux gives to outgoing connections: any client on the machine could
    take one of those before our command listens.
    """
    found: list[int] = []
    for port in random.sample(_PORTS, len(_PORTS)):
        if len(found) == number:
            break
        with contextlib.suppress(OSError), socket.socket() as taken:
            taken.bind(("127.0.0.1", port))
            found.append(port)
    return found


class KeptProcess:
    """A ``sidelight`` command that is started again when it dies; a context manager.

    Parameters
    ----------
    arguments : sequence of str
        After ``sidelight``.
    ready_url : str
        Answers with success when the command works.
    log : Path
        Where its output goes.

    """

    def __init__(self, *arguments: str, ready_url: str, log: Path) -> None:
        self._command = [sys.executable, "-P", "-m", "sidelight.service", *arguments]
        self._ready_url = ready_url
        self._log = log.open("ab")
        self._stopping = threading.Event()
        self.restarts = 0
        self._process = self._start()
        self._keeper = threading.Thread(target=self._keep, daemon=True)
        self._keeper.start()

    @property
    def pid(self) -> int:
        """Process id; another one after a restart."""
        return self._process.pid

    def wait_ready(self, *, timeout_s: float = 30.0) -> None:
        """Return when the command works.

        Raises
        ------
        TimeoutError
            If it does not in time; its output stands in the log.

        """
        pause = threading.Event()
        for _ in range(int(timeout_s / 0.05)):
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(self._ready_url, timeout=2).is_success:
                    return
            pause.wait(0.05)
        raise TimeoutError(f"{' '.join(self._command[3:5])} is not ready; see {self._log.name}")

    def stop(self) -> None:
        """End the command as SIGTERM does, and wait for it."""
        self._stopping.set()
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._keeper.join()
        self._log.close()

    def _start(self) -> "subprocess.Popen[bytes]":
        # A session of its own: Ctrl-C is for the demo, which stops the others in order.
        return subprocess.Popen(  # noqa: S603 - our own command
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )

    def _keep(self) -> None:
        while True:
            self._process.wait()
            if self._stopping.wait(_RESTART_S):
                return
            self.restarts += 1
            self._process = self._start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
