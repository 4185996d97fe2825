"""Ports of this machine for processes that a benchmark starts."""

import socket
import time

_START_S = 30.0


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        return int(chosen.getsockname()[1])


def await_port(port: int) -> None:
    """Return when somebody listens; raise ``OSError`` when nobody does in time."""
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
