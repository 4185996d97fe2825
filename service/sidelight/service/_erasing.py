"""How an erasure is ordered: of the running service, or done here when none runs."""

import socket
import time
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Final

from sidelight.adapters import EmbeddedDocuments, Lake, place_of
from sidelight.logger._checkpoint import Checkpoint
from sidelight.logger._segments import SegmentWriter
from sidelight.logger._segments_folder import FolderLock
from sidelight.logger.errors import FolderInUse, JournalError
from sidelight.service._access_log import AccessLog
from sidelight.service._erasure_archive import Append
from sidelight.service._erasure_orders import ErasureAnswer, ErasureOrder, ErasureOrders
from sidelight.service._query_store import refuse_without_search
from sidelight.service._run_folder import RunFolder
from sidelight.service._settings import Settings
from sidelight.service._signing import signer_of
from sidelight.service._stage_erasing import ErasingStage
from sidelight.service.errors import ConfigurationError, ServiceError

_PATIENCE_S: Final = 600.0
_DOOR_S: Final = 10.0
_PAUSE_S: Final = 0.01


def through_door(data: Path) -> Append:
    """Return what has the running door keep a request."""
    path = str(RunFolder(data).ingest_socket)

    def append(head: bytes, body: bytes) -> None:
        try:
            with socket.socket(socket.AF_UNIX) as door:
                door.settimeout(_DOOR_S)
                door.connect(path)
                door.sendall(head + body)
                answer = door.recv(4096)
        except OSError as error:
            raise JournalError(f"the door does not answer: {error.strerror or error}") from error
        if not answer.startswith(b"HTTP/1.1 200"):
            raise JournalError(f"the door answered {answer[9:12].decode('latin-1')}")

    return append


def erase(
    settings: Settings,
    order: ErasureOrder,
    tell: Callable[[ErasureAnswer], object] = lambda _: None,
) -> ErasureAnswer:
    """Have an order worked off, by the running service or without one.

    Parameters
    ----------
    settings : Settings
        Of the folder; a running service uses its own.
    order : ErasureOrder
        What is to go.
    tell : callable, optional
        Called with what a running service tells of it meanwhile.

    Raises
    ------
    ServiceError
        When it was refused, or could not be done.
    JournalError
        When the folder cannot be used.

    """
    orders = ErasureOrders(settings.data)
    try:
        # Somebody else who holds it works off orders; otherwise nobody can begin meanwhile.
        with closing(FolderLock(settings.data, "state")):
            pass
    except FolderInUse:
        orders.ask(order)
        return orders.wait(order, patience_s=_PATIENCE_S, tell=tell).checked()
    return _erased_here(settings, order, orders).checked()


def _erased_here(settings: Settings, order: ErasureOrder, orders: ErasureOrders) -> ErasureAnswer:
    # Imported here: whoever asks a running service needs none of it.
    from sidelight.service._stages import open_stages  # noqa: PLC0415

    if place_of(settings.data / "lake") is not None:
        raise ConfigurationError(
            "--data: the lake of this folder is in a bucket, which only the service empties",
            hint="start the service, and erase while it runs",
        )
    if (settings.data / "state.db").exists():
        with closing(EmbeddedDocuments(settings.data)) as documents:
            refuse_without_search(settings, documents)
    with ExitStack() as open_things:
        writer = _writer(settings)
        open_things.callback(writer.close)
        journals, documents, stages = open_stages(settings, open_things)
        eraser = ErasingStage(
            journals,
            documents,
            Lake(settings.data),
            settings,
            stages,
            lambda head, body: (writer.write(head, body).result(), None)[1],
        )
        orders.ask(order)
        while True:
            worked = [stage.step(time.time_ns()) for stage in (*stages, eraser)]
            if (answer := orders.answer(order.id)) is not None:
                return answer
            if eraser.failure:
                with suppress(OSError):
                    orders.forget(order.id)
                raise ServiceError(
                    eraser.failure, hint="ask again; what was begun is finished then"
                )
            if not any(worked):
                time.sleep(_PAUSE_S)


def _writer(settings: Settings) -> SegmentWriter:
    signer = signer_of(settings)
    checkpoint = Checkpoint.load(settings.data)
    if checkpoint is not None and checkpoint.key and checkpoint.key not in signer.trusted:
        raise ConfigurationError(
            "audit.signing_key: expected the key that signed the archive, got another one",
            hint="give the service's own configuration with --config",
        )
    return SegmentWriter(settings.data, signer=signer, watch=AccessLog(settings.data).watch)
