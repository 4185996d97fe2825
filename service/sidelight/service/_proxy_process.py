"""The process of ``sidelight proxy``: the model's door, with the emitter behind it."""

import asyncio
import gc
import logging
import resource
import signal
from collections.abc import Callable
from typing import Final

import uvloop

from sidelight.logger import Connection, Connections, Emitter, Upstream
from sidelight.logger.errors import SpoolError
from sidelight.service._proxy_address import Address
from sidelight.service._proxy_configuration import ProxyConfiguration
from sidelight.service._proxy_grpc import listen_for_grpc
from sidelight.service._proxy_metrics import ProxyState
from sidelight.service._proxy_parts import ProxyParts, build_parts, stranded
from sidelight.service._proxy_reload import Reloading
from sidelight.service._proxy_secrets import admin_token
from sidelight.service._proxy_services import Admin, RelayAll
from sidelight.service.errors import ServiceError

log = logging.getLogger(__name__)

# A request that waits for another one's connection would not wait at the model's own door.
_MAX_CONNECTIONS: Final = 16384
_BACKLOG: Final = 1024


def run_proxy(configuration: ProxyConfiguration) -> None:
    """Relay and capture until SIGTERM; what is not sent by then is in the spool.

    Raises
    ------
    ServiceError
        If the configuration is wrong, or an address or a spool cannot be had.

    """
    try:
        uvloop.run(_run(configuration))
    except SpoolError as error:
        raise ServiceError(str(error)) from error


async def _run(configuration: ProxyConfiguration) -> None:
    loop = asyncio.get_running_loop()
    stopping, hurrying, hung_up = asyncio.Event(), asyncio.Event(), asyncio.Event()
    # Before anything is read: what is asked for meanwhile is done afterwards.
    loop.add_signal_handler(signal.SIGTERM, stopping.set)
    loop.add_signal_handler(signal.SIGINT, _interrupted, stopping, hurrying)
    loop.add_signal_handler(signal.SIGHUP, hung_up.set)
    _open_files()
    proxy = Proxy(build_parts(configuration.read()))
    reloading = Reloading(configuration, proxy, proxy.state, asked=hung_up)
    await proxy.start()
    # What is here now stays: the collector need not look at it again while requests wait.
    gc.collect()
    gc.freeze()
    tasks = [loop.create_task(reloading.run()), loop.create_task(proxy.sweep())]
    await stopping.wait()
    # A reload in its middle is not cancelled: the flush waits for the outlets that it brings.
    await proxy.stop(hurrying)
    for task in tasks:
        task.cancel()


def _interrupted(stopping: asyncio.Event, hurrying: asyncio.Event) -> None:
    """Stop; a person who asks again does not want to wait for answers."""
    (hurrying if stopping.is_set() else stopping).set()


class Proxy:
    """The listeners and what is behind them.

    Parameters
    ----------
    parts : ProxyParts
        What the configuration says.

    Attributes
    ----------
    parts : ProxyParts
        In use now.
    state : ProxyState
        What there is to tell.

    """

    def __init__(self, parts: ProxyParts) -> None:
        self.parts = parts
        self.state = ProxyState(connections=Connections(), upstream=_upstream(parts))
        self._former: list[Upstream] = []
        self._emitter = Emitter(
            parts.outlets,
            capture=parts.capture,
            sampling=parts.sampling,
            selection=parts.selection,
        )
        self._relay = RelayAll()
        self._admin = Admin(
            self._emitter,
            self.state,
            lambda: self.parts.settings.deployment,
            admin_token(parts.settings),
        )
        self._admin_connections = Connections()
        self._servers: list[asyncio.Server] = []

    async def start(self) -> None:
        """Listen, and begin to deliver."""
        settings = self.parts.settings
        if (token := admin_token(settings)) is not None:
            token()  # said now, and not at the first scrape
        for folder in stranded(settings):
            log.warning("events of a sink that is not configured wait", extra={"folder": folder})
        shown = {}
        try:
            if settings.upstream is not None:
                shown["listen"] = await self._listen("listen", settings.listen, self._connection)
            self.state.grpc = await listen_for_grpc(settings, self._emitter)
            if self.state.grpc is not None:
                shown["grpc"] = self.state.grpc.address
            shown["admin"] = await self._listen("admin", settings.admin, self._admin_connection)
        except ServiceError:
            # uvloop waits for ever for a server that is open when its loop is closed.
            for server in self._servers:
                server.close()
            if self.state.grpc is not None:
                await self.state.grpc.close()
            raise
        await self._emitter.start()
        log.info("relaying", extra=shown)

    async def apply(self, parts: ProxyParts) -> None:
        """Use other parts; connections that are open keep their upstream and their bounds."""
        before, self.parts = self.parts, parts
        self._emitter.reconfigure(
            capture=parts.capture, sampling=parts.sampling, selection=parts.selection
        )
        if (before.settings.upstream, before.settings.tls) != (
            parts.settings.upstream,
            parts.settings.tls,
        ):
            if self.state.upstream is not None:
                self._former.append(self.state.upstream)
            self.state.upstream = _upstream(parts)
        try:
            await self._emitter.replace_outlets(parts.outlets)
        except SpoolError as error:
            raise ServiceError(str(error)) from error

    async def stop(self, hurrying: asyncio.Event) -> None:
        """Answer what is in work, send what waits, and end within the grace.

        Parameters
        ----------
        hurrying : asyncio.Event
            When it is set, no answer is waited for any more.

        """
        loop = asyncio.get_running_loop()
        started, grace_s = loop.time(), self.parts.settings.grace
        self.state.is_stopping = True
        *doors, admin = self._servers
        for server in doors:
            server.close()
        await self._drain(grace_s / 2, hurrying)
        for upstream in (*self._former, self.state.upstream):
            if upstream is not None:
                await upstream.close()
        await self._emitter.flush(max(grace_s / 4, grace_s - (loop.time() - started)))
        admin.close()
        await self._admin_connections.drain(0)
        for name, accounts in self._emitter.accounts().items():
            log.info(
                "stopped",
                extra={
                    "sink": name,
                    "seen": accounts.seen,
                    "sent": accounts.sent,
                    "sampled_out": accounts.sampled_out,
                    "in_spool": accounts.spool_events,
                    "dropped": {reason: n for reason, n in accounts.dropped.items() if n},
                },
            )

    async def sweep(self) -> None:
        """End connections that are silent for long, until cancelled."""
        while True:
            await asyncio.sleep(self.parts.limits.idle_s)
            self.state.connections.sweep()

    async def _drain(self, grace_s: float, hurrying: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        answering = loop.create_task(self._answer(grace_s))
        hurry = loop.create_task(hurrying.wait())
        await asyncio.wait({answering, hurry}, return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        if not answering.done():
            answering.cancel()
            await self._answer(0)

    async def _answer(self, grace_s: float) -> None:
        """Answer what is in work on both doors, and cut what is left after the grace."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.state.connections.drain(grace_s))
            if self.state.grpc is not None:
                group.create_task(self.state.grpc.drain(grace_s))

    def _connection(self) -> Connection:
        return Connection(
            self._relay,
            self.state.upstream,
            tap=self._emitter,
            limits=self.parts.limits,
            connections=self.state.connections,
        )

    def _admin_connection(self) -> Connection:
        return Connection(
            self._admin, limits=self.parts.limits, connections=self._admin_connections
        )

    async def _listen(self, key: str, text: str, connect: Callable[[], Connection]) -> str:
        loop, address = asyncio.get_running_loop(), Address.read(text)
        try:
            if address.path:
                server = await loop.create_unix_server(connect, address.path, backlog=_BACKLOG)
            else:
                server = await loop.create_server(
                    connect, address.host, address.port, backlog=_BACKLOG
                )
        except OSError as error:
            raise ServiceError(
                f"--{key}: cannot listen on {address}: {error.strerror or error}; "
                "choose an address of this machine that is free"
            ) from error
        self._servers.append(server)
        return str(server.sockets[0].getsockname())


def _upstream(parts: ProxyParts) -> Upstream | None:
    text = parts.settings.upstream
    if text is None:
        return None
    address = Address.read_upstream(text)
    if address.path:
        return Upstream(path=address.path, max_connections=_MAX_CONNECTIONS)
    tls = parts.settings.tls
    return Upstream(
        address.host,
        address.port,
        tls=parts.upstream_tls,
        server_name=tls.server_name if tls is not None else None,
        max_connections=_MAX_CONNECTIONS,
    )


def _open_files() -> None:
    """Take all the descriptors that the system grants: two for each request in work."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):  # some systems call their limit unlimited, and grant less
        log.info("the number of open files stays as it is", extra={"files": soft})
