"""The process of the door."""

import asyncio
import errno
import logging
import sys
import time
from typing import NoReturn

import uvloop

from sidelight.logger import DoorLimits, DoorServer, serve_door
from sidelight.logger.errors import FolderInUse, JournalError
from sidelight.service._access import tokens_required
from sidelight.service._access_log import AccessLog
from sidelight.service._door_tls import DoorTls
from sidelight.service._ingest_gate import IngestGate
from sidelight.service._process import say_ready
from sidelight.service._retirement import retire_when_asked
from sidelight.service._run_folder import RunFolder
from sidelight.service._sealing import sealing
from sidelight.service._settings import Settings
from sidelight.service._settings_access import ListenTlsSettings
from sidelight.service._signing import signer_of
from sidelight.service._supervisor import CANNOT_START
from sidelight.service.errors import ConfigurationError

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
    tls = _tls(settings.listen.tls)
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
        gate=_gate(settings),
        tls=None if tls is None else tls.context,
        signer=signer_of(settings),
        watch=AccessLog(settings.data).watch,
        sealing=sealing(settings),
    )
    scheme = "http" if settings.listen.tls is None else "https"
    keeping: list[asyncio.Task[None]] = []

    def ready() -> None:
        say_ready(host=settings.listen.host, port=server.port, scheme=scheme)
        if tls is not None:
            keeping.append(asyncio.create_task(tls.follow()))
        raw_retention_s = settings.audit.raw_retention
        if raw_retention_s is not None:
            work = retire_when_asked(settings.data, server, raw_retention_s=raw_retention_s)
            keeping.append(asyncio.create_task(work))

    try:
        await serve_door(server, ready=ready)
    finally:
        for task in keeping:
            task.cancel()


def _gate(settings: Settings) -> IngestGate | None:
    return IngestGate(settings) if tokens_required(settings) or settings.quotas else None


def _tls(settings: ListenTlsSettings | None) -> DoorTls | None:
    if settings is None:
        return None
    try:
        return DoorTls(settings)
    except ConfigurationError as error:
        _give_up(error)


def _may_pass(error: Exception) -> bool:
    return isinstance(error, FolderInUse) or getattr(error, "errno", None) == errno.EADDRINUSE


def _give_up(error: Exception) -> NoReturn:
    log.error("%s", error)
    sys.exit(CANNOT_START)
