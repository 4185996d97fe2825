"""Entry of the processes under the supervisor: ``python -m sidelight.service._process ROLE``.

The settings come as one line on standard input. Its end says that the supervisor is gone, however
it ended, and the process stops as on SIGTERM: nobody is left holding the port or the data folder.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable

import orjson

from sidelight.service._logging import configure_logging
from sidelight.service._settings import Settings


def _run_door(settings: Settings) -> None:
    from sidelight.service._door_process import run_door  # noqa: PLC0415 - each role its imports

    run_door(settings)


def _run_consumer(settings: Settings) -> None:
    from sidelight.service._consumer_process import run_consumer  # noqa: PLC0415 - as above

    run_consumer(settings)


def _run_api(settings: Settings) -> None:
    from sidelight.service._api_process import run_api  # noqa: PLC0415 - as above

    run_api(settings)


ROLES: dict[str, Callable[[Settings], None]] = {
    "door": _run_door,
    "consumer": _run_consumer,
    "api": _run_api,
}


def say_ready(**facts: object) -> None:
    """Tell the supervisor that the process works, in one JSON line on standard output."""
    sys.stdout.buffer.write(orjson.dumps(facts) + b"\n")
    sys.stdout.buffer.flush()


def _follow_parent() -> None:
    # Not through sys.stdin: its lock, held here, would be wanted at the end of the interpreter.
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _first_line() -> bytes:
    line = b""
    while not line.endswith(b"\n") and (data := os.read(0, 1)):
        line += data
    return line


def main() -> None:
    """Run one role until SIGTERM."""
    configure_logging()
    settings = Settings(**orjson.loads(_first_line()))
    threading.Thread(target=_follow_parent, daemon=True).start()
    # Ctrl-C reaches the whole process group; the supervisor alone decides the order of the stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ROLES[sys.argv[1]](settings)


if __name__ == "__main__":
    main()
