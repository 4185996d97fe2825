"""The process of the API: queries, explanations, metrics, the console."""

import asyncio
import logging
import os
import socket
import sys
import threading
from collections.abc import Callable

import uvicorn
import uvloop
from fastapi import FastAPI

from sidelight.adapters import AdapterError, EmbeddedDocuments
from sidelight.logger.errors import JournalError
from sidelight.service._api import create_app
from sidelight.service._context import Context
from sidelight.service._explaining import Explaining
from sidelight.service._ingest_client import IngestClient
from sidelight.service._process import say_ready
from sidelight.service._query_store import open_query_store
from sidelight.service._raw_events import RawEvents
from sidelight.service._run_folder import RunFolder
from sidelight.service._settings import Settings
from sidelight.service._supervisor import CANNOT_START
from sidelight.service.errors import ConfigurationError

log = logging.getLogger(__name__)

_PREPARED_WITHIN_S = 2.0


class _Server(uvicorn.Server):
    """Says when it listens and is prepared for questions."""

    def __init__(self, config: uvicorn.Config, prepare: Callable[[threading.Event], None]) -> None:
        super().__init__(config)
        self._prepare = prepare

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        # A store that does not answer holds up neither the start nor the end.
        prepared = threading.Event()
        threading.Thread(target=self._prepare, args=[prepared], daemon=True).start()
        await asyncio.to_thread(prepared.wait, _PREPARED_WITHIN_S)
        say_ready()


def run_api(settings: Settings) -> None:
    """Serve the API on its Unix socket until SIGTERM."""
    folder = RunFolder(settings.data)
    documents = EmbeddedDocuments(settings.data)
    try:
        inferences = open_query_store(settings, documents)
    except (AdapterError, ConfigurationError) as error:
        log.error("%s", error)  # noqa: TRY400 - a sentence for a person, no traceback
        sys.exit(CANNOT_START)
    context = Context(
        settings=settings,
        documents=documents,
        inferences=inferences,
        raw=RawEvents(settings.data, documents, max_inflated_bytes=settings.limits.decompressed),
        explaining=Explaining(settings, documents, inferences),
        ingest=IngestClient(folder.ingest_socket),
    )
    folder.api_socket.unlink(missing_ok=True)
    app = create_app(context)
    config = uvicorn.Config(
        app,
        uds=str(folder.api_socket),
        log_level="warning",
        access_log=False,
        http="httptools",
        timeout_graceful_shutdown=5,
    )
    old_mask = os.umask(0o077)
    try:
        uvloop.run(_Server(config, lambda done: _prepare(app, context, done)).serve())
    finally:
        os.umask(old_mask)


def _prepare(app: FastAPI, context: Context, prepared: threading.Event) -> None:
    """Do what the first request would wait for: 0.1 s for the routes, 0.3 s for the first row.

    The newest inference loads what all of them need. The oldest one is in a file that holds many,
    which is read in another way than what came a moment ago; nobody waits for that.
    """
    try:
        app.openapi()
        _ask_once(context, "-time")
    finally:
        prepared.set()
    _ask_once(context, "time")


def _ask_once(context: Context, order: str) -> None:
    try:
        items, _ = context.inferences.find(limit=1, order=order)
        if items:
            context.inferences.get(items[0].id)
    except (AdapterError, JournalError) as error:
        log.debug("nothing could be prepared", extra={"reason": type(error).__name__})
