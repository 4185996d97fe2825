"""The process of the API: queries, explanations, metrics, the console."""

import os
import socket

import uvicorn
import uvloop

from sidelight.adapters import EmbeddedDocuments, Inferences
from sidelight.service._api import create_app
from sidelight.service._context import Context
from sidelight.service._explaining import Explaining
from sidelight.service._ingest_client import IngestClient
from sidelight.service._process import say_ready
from sidelight.service._raw_events import RawEvents
from sidelight.service._run_folder import RunFolder
from sidelight.service._settings import Settings


class _Server(uvicorn.Server):
    """Says when it listens."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        say_ready()


def run_api(settings: Settings) -> None:
    """Serve the API on its Unix socket until SIGTERM."""
    folder = RunFolder(settings.data)
    documents = EmbeddedDocuments(settings.data)
    inferences = Inferences(settings.data, documents)
    context = Context(
        settings=settings,
        documents=documents,
        inferences=inferences,
        raw=RawEvents(settings.data, max_inflated_bytes=settings.limits.decompressed),
        explaining=Explaining(settings, documents, inferences),
        ingest=IngestClient(folder.ingest_socket),
    )
    folder.api_socket.unlink(missing_ok=True)
    config = uvicorn.Config(
        create_app(context),
        uds=str(folder.api_socket),
        log_level="warning",
        access_log=False,
        http="httptools",
        timeout_graceful_shutdown=5,
    )
    old_mask = os.umask(0o077)
    try:
        uvloop.run(_Server(config).serve())
    finally:
        os.umask(old_mask)
