"""The process of ``sidelight proxy``: the model's door, with the emitter behind it."""

import asyncio
import logging
import re
import resource
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self, cast
from urllib.parse import urlsplit

import uvloop

from sidelight.logger import (
    Capture,
    Connection,
    Connections,
    Emitter,
    HttpSink,
    Limits,
    Request,
    Respond,
    Spool,
    Upstream,
    problem,
    response,
)
from sidelight.logger.errors import SpoolError
from sidelight.service.errors import ConfigurationError, ServiceError

log = logging.getLogger(__name__)

_GRACE_S = 10.0
# A request that waits for another one's connection would not wait at the model's own door.
_MAX_CONNECTIONS = 16384
_MODES = ("batch", "binary")
_DEPLOYMENT = re.compile(r"[^/\x00-\x20\x7f]+/[^/\x00-\x20\x7f]+")
_PLAIN = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where to listen or to connect: a TCP address or the path of a Unix socket."""

    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        """Give the address as an option has it."""
        if self.path:
            return f"unix:{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @classmethod
    def read(cls, option: str, text: str) -> Self:
        """Read ``HOST:PORT`` or ``unix:PATH``; the option is named in the error."""
        path = text.removeprefix("unix:")
        if path and path != text:
            return cls(path=path)
        host, colon, port = text.rpartition(":")
        # Without brackets a colon within the host is a mistake, or the option is "unix:" alone.
        is_host = host and (":" not in host or (host[0] == "[" and host[-1] == "]"))
        if not (colon and is_host and port.isdecimal() and int(port) < 1 << 16):
            raise ConfigurationError(f"--{option}: expected HOST:PORT or unix:PATH, got {text!r}")
        return cls(host=host.strip("[]"), port=int(port))


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyOptions:
    """What the command line says, checked."""

    upstream: Address
    sink: str
    listen: Address
    deployment: str | None
    sink_mode: Literal["batch", "binary"]
    admin: Address
    spool: Path

    @classmethod
    def read(  # one parameter an option
        cls,
        *,
        upstream: str,
        sink: str,
        listen: str,
        deployment: str | None,
        sink_mode: str,
        admin: str,
        spool: Path,
    ) -> Self:
        """Check the options; raise ``ConfigurationError`` naming the wrong one."""
        if sink_mode not in _MODES:
            raise ConfigurationError(f"--sink-mode: expected batch or binary, got {sink_mode!r}")
        if deployment is not None and not _DEPLOYMENT.fullmatch(deployment):
            raise ConfigurationError(f"--deployment: expected NS/NAME, got {deployment!r}")
        _split("sink", sink, ("http", "https"), "http://HOST:PORT/")
        if not _PLAIN.fullmatch(sink):
            raise ConfigurationError(
                f"--sink: expected an address without blanks and percent-encoded, got {sink!r}"
            )
        admin_address = Address.read("admin", admin)
        if admin_address.host not in {"127.0.0.1", "localhost", "::1", ""}:
            raise ConfigurationError(
                f"--admin: expected a loopback address, got {admin}: there are no tokens yet"
            )
        return cls(
            upstream=_upstream_address(upstream),
            sink=sink,
            listen=Address.read("listen", listen),
            deployment=deployment,
            sink_mode=cast("Literal['batch', 'binary']", sink_mode),
            admin=admin_address,
            spool=spool,
        )


def _upstream_address(text: str) -> Address:
    if text.startswith("unix:"):
        return Address.read("upstream", text)
    host, port, path = _split("upstream", text, ("http",), "http://HOST:PORT or unix:PATH")
    if path.strip("/"):
        raise ConfigurationError(f"--upstream: expected no path behind HOST:PORT, got {text!r}")
    return Address(host=host, port=port or 80)


def _split(
    option: str, text: str, schemes: tuple[str, ...], expected: str
) -> tuple[str, int | None, str]:
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigurationError(
            f"--{option}: expected {expected}, got {text!r} ({error})"
        ) from error
    if parts.username is not None or parts.password is not None:
        # Neither is shown: a log is no place for a password.
        raise ConfigurationError(f"--{option}: expected {expected} without user and password")
    if parts.scheme not in schemes or not host:
        raise ConfigurationError(f"--{option}: expected {expected}, got {text!r}")
    return host, port, parts.path


class _RelayAll:
    """The model's door: every request goes on to the model."""

    def admit(self, method: bytes, target: bytes, head: bytes) -> int | bytes | None:  # noqa: ARG002
        return None

    def handle(self, request: Request, respond: Respond) -> None:  # noqa: ARG002
        respond(problem(404, "nothing is answered here"))


class _Admin:
    """Health and metrics of the proxy."""

    def __init__(self, emitter: Emitter, deployment: str | None) -> None:
        namespace, _, name = (deployment or "default/").partition("/")
        self._emitter = emitter
        self._namespace = namespace
        self._name = name

    def admit(self, method: bytes, target: bytes, head: bytes) -> int | bytes | None:  # noqa: ARG002
        route = target.partition(b"?")[0]
        if route not in {b"/healthz", b"/readyz", b"/metrics"}:
            return problem(404, "no such route", expected="/healthz, /readyz or /metrics")
        return 0 if method == b"GET" else problem(405, "only GET is answered here")

    def handle(self, request: Request, respond: Respond) -> None:
        if request.route == b"/metrics":
            text = self._emitter.accounting.prometheus(
                namespace=self._namespace, deployment=self._name
            )
            respond(response(200, body=text, content_type=b"text/plain; version=0.0.4"))
        else:
            respond(response(200, body=b'{"status":"ok"}', content_type=b"application/json"))


def run_proxy(options: ProxyOptions) -> None:
    """Relay and capture until SIGTERM; what is not sent by then is in the spool.

    Raises
    ------
    ServiceError
        If an address or the spool cannot be had.

    """
    try:
        uvloop.run(_run(options))
    except SpoolError as error:
        raise ServiceError(str(error)) from error


async def _run(options: ProxyOptions) -> None:
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    _open_files()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    emitter = Emitter(
        HttpSink(options.sink, mode=options.sink_mode),
        capture=Capture(deployment=options.deployment),
        spool=Spool(options.spool),
    )
    upstream = _upstream(options.upstream)
    connections, admin_connections, limits = Connections(), Connections(), Limits()
    relay, admin = _RelayAll(), _Admin(emitter, options.deployment)
    servers = [
        await _listen(
            "listen",
            options.listen,
            lambda: Connection(
                relay, upstream, tap=emitter, limits=limits, connections=connections
            ),
        )
    ]
    try:
        servers.append(
            await _listen(
                "admin",
                options.admin,
                lambda: Connection(admin, limits=limits, connections=admin_connections),
            )
        )
    except ServiceError:
        # uvloop waits for ever for a server that is open when its loop is closed.
        servers[0].close()
        raise
    await emitter.start()
    sweeper = loop.create_task(_sweep(connections, limits.idle_s))
    log.info("relaying", extra={"listen": _shown(servers[0]), "admin": _shown(servers[1])})
    await stopping.wait()
    servers[0].close()
    sweeper.cancel()
    started = loop.time()
    await connections.drain(_GRACE_S / 2)
    await upstream.close()
    await emitter.flush(max(1.0, _GRACE_S - (loop.time() - started)))
    servers[1].close()
    await admin_connections.drain(0)
    accounts = emitter.accounting.snapshot()
    log.info(
        "stopped",
        extra={
            "seen": accounts.seen,
            "sent": accounts.sent,
            "in_spool": accounts.spool_events,
            "dropped": dict(accounts.dropped),
        },
    )


def _open_files() -> None:
    """Take all the descriptors that the system grants: two for each request in work."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):  # some systems call their limit unlimited, and grant less
        log.info("the number of open files stays as it is", extra={"files": soft})


def _upstream(address: Address) -> Upstream:
    if address.path:
        return Upstream(path=address.path, max_connections=_MAX_CONNECTIONS)
    return Upstream(address.host, address.port, max_connections=_MAX_CONNECTIONS)


async def _listen(
    option: str, address: Address, connect: Callable[[], Connection]
) -> asyncio.Server:
    loop = asyncio.get_running_loop()
    try:
        if address.path:
            return await loop.create_unix_server(connect, address.path, backlog=1024)
        return await loop.create_server(connect, address.host, address.port, backlog=1024)
    except OSError as error:
        raise ServiceError(
            f"--{option}: cannot listen on {address}: {error.strerror or error}; "
            "choose an address of this machine that is free"
        ) from error


async def _sweep(connections: Connections, interval_s: float) -> None:
    while True:
        await asyncio.sleep(interval_s)
        connections.sweep()


def _shown(server: asyncio.Server) -> str:
    return str(server.sockets[0].getsockname())
