"""Entry of the processes under the supervisor: ``python -m sidelight.service._process ROLE``.

The settings come as one line on standard input. Its end says that the supervisor is gone, however
it ended, and the process ends at once: nobody is left holding the port or the data folder.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable

import orjson

from sidelight.service._logging import configure_logging
from sidelight.service._settings import Settings

Role = Callable[[Settings], None]

# The door answers senders and the API people; what follows can wait for both. Where there is one
# core, rows are stored before they are judged.
_NICENESS = {"consumer": 5, "detection": 7}


def _role(name: str) -> Role:
    """Return what a process does; each role imports what it needs, and only that."""
    if name == "door":
        from sidelight.service._door_process import run_door  # noqa: PLC0415

        return run_door
    if name == "consumer":
        from sidelight.service._consumer_process import run_consumer  # noqa: PLC0415

        return run_consumer
    if name == "detection":
        from sidelight.service._detection_process import run_detection  # noqa: PLC0415

        return run_detection
    from sidelight.service._api_process import run_api  # noqa: PLC0415

    return run_api


def say_ready(**facts: object) -> None:
    """Tell the supervisor that the process works, in one JSON line on standard output."""
    # A supervisor killed meanwhile is no error here: the end of standard input stops the process.
    with contextlib.suppress(BrokenPipeError):
        os.write(1, orjson.dumps(facts) + b"\n")


def _follow_parent() -> None:
    # Not through sys.stdin: its lock, held here, would be wanted at the end of the interpreter.
    while os.read(0, 4096):
        pass
    # The supervisor was killed: its successor waits for the port and the folder. What was
    # acknowledged is safe at any moment, so there is nothing to do but to let go of them.
    os._exit(0)


def _first_line() -> bytes:
    line = b""
    while not line.endswith(b"\n") and (data := os.read(0, 1)):
        line += data
    return line


def main() -> None:
    """Run one role until SIGTERM."""
    configure_logging()
    # Ctrl-C reaches the whole process group; the supervisor alone decides the order of the stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # From the first import on.
    os.nice(_NICENESS.get(sys.argv[1], 0))
    run = _role(sys.argv[1])
    line = _first_line()
    if not line:
        return
    settings = Settings(**orjson.loads(line))
    threading.Thread(target=_follow_parent, daemon=True).start()
    run(settings)


if __name__ == "__main__":
    main()
