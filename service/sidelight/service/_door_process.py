"""The process of the door."""

import errno
import logging
import sys
import time

import uvloop

from sidelight.logger import DoorLimits, DoorServer, serve_door
from sidelight.logger.errors import FolderInUse, JournalError
from sidelight.service._process import say_ready
from sidelight.service._run_folder import RunFolder
from sidelight.service._settings import Settings
from sidelight.service._supervisor import CANNOT_START

log = logging.getLogger(__name__)

# How long a former service may take to let go of the folder and of the port.
_PATIENCE_S = 15.0
_PAUSE_S = 0.05


def run_door(settings: Settings) -> None:
    """Take events until SIGTERM."""
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            uvloop.run(_serve(settings))
        except (FolderInUse, OSError) as error:
            if not _may_pass(error) or time.monotonic() > deadline:
                _give_up(error)
            time.sleep(_PAUSE_S)
        except JournalError as error:
            _give_up(error)
        else:
            return


async def _serve(settings: Settings) -> None:
    folder = RunFolder(settings.data)
    limits = settings.limits
    server = DoorServer(
        settings.data,
        settings.listen.host,
        settings.listen.port,
        api_socket=folder.api_socket,
        ingest_socket=folder.ingest_socket,
        limits=DoorLimits(
            max_body_bytes=limits.body,
            max_inflated_bytes=limits.decompressed,
            max_flight_bytes=limits.bytes_in_flight,
            min_free_bytes=limits.disk_free,
        ),
    )
    await serve_door(server, ready=lambda: say_ready(host=settings.listen.host, port=server.port))


def _may_pass(error: Exception) -> bool:
    return isinstance(error, FolderInUse) or getattr(error, "errno", None) == errno.EADDRINUSE


def _give_up(error: Exception) -> None:
    log.error("%s", error)
    sys.exit(CANNOT_START)
