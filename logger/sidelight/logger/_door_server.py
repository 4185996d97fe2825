"""The process of the door: sockets, the journal's writer, and a clean end."""

import asyncio
import gc
import logging
import os
import signal
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import orjson

from sidelight.logger._checkpoint import SealedSegment, Watch
from sidelight.logger._connections import Connections, Limits
from sidelight.logger._door import Door, DoorLimits
from sidelight.logger._door_connection import DoorConnection, TakesEvents
from sidelight.logger._door_gate import Gate, GatedDoor
from sidelight.logger._door_heads import LearnedHeads
from sidelight.logger._http import Request, Respond, response
from sidelight.logger._segments import SEGMENT_BYTES, Deliver, SegmentWriter
from sidelight.logger._segments_signature import Signer
from sidelight.logger._upstream import Upstream

# Doors without erasure need not wait for what it takes.
if TYPE_CHECKING:
    from sidelight.logger._sealing import SealingJournal

log = logging.getLogger(__name__)

COUNTERS_ROUTE: Final = b"/door"
_API_HINT: Final = "the API is being started, or started again; ask again in some seconds"
# Much may be written in half a second: the room must not be gone when it is looked at next.
_WATCH_S: Final = 0.1
# What a kill leaves without a signature, of events and of the access log. A checkpoint costs some
# milliseconds, of an archive of a terabyte 60: it has a hundredth of the time at most.
_SIGN_S: Final = 10.0
_LOOK_S: Final = 1.0
_SIGN_PAUSES: Final = 100
_GRACE_S: Final = 10.0


class DoorServer:
    """Serves the door on TCP and, for the processes beside it, on a Unix socket.

    Parameters
    ----------
    data : Path
        The data folder.
    host, port : str, int
        Where to listen; port 0 takes a free one.
    api_socket : Path, optional
        Unix socket that gets every request that is not the door's; without one they are
        answered with 404.
    ingest_socket : Path, optional
        Unix socket on which the same door is open without a gate, and ``GET /door`` gives its
        counters as JSON.
    limits : DoorLimits, optional
        Bounds.
    segment_bytes : int, default 128 MiB
        Size of a segment.
    gate : Gate, optional
        Decides who may send what over TCP.
    tls : ssl.SSLContext, optional
        For TCP.
    signer : Signer, optional
        Signs the checkpoints of the journal.
    watch : callable, optional
        Looks at the access log, whose end each signed checkpoint states.
    sync : callable, optional
        Makes a file durable; default ``os.fdatasync``.
    sealing : callable of (journal, deliver), optional
        Returns what stands between the door and the journal and seals events.

    """

    def __init__(  # noqa: PLR0913 - one parameter a part
        self,
        data: Path,
        host: str,
        port: int,
        *,
        api_socket: Path | None = None,
        ingest_socket: Path | None = None,
        limits: DoorLimits | None = None,
        segment_bytes: int = SEGMENT_BYTES,
        gate: Gate | None = None,
        tls: ssl.SSLContext | None = None,
        signer: Signer | None = None,
        watch: Watch | None = None,
        sync: Callable[[int], None] | None = None,
        sealing: "Callable[[SegmentWriter, Deliver], SealingJournal] | None" = None,
    ) -> None:
        self._data = data
        self._seal = sealing
        self._sealing: SealingJournal | None = None
        self._address = (host, port)
        self._api_socket = api_socket
        self._ingest_socket = ingest_socket
        self._limits = limits if limits is not None else DoorLimits()
        self._segment_bytes = segment_bytes
        self._gate = gate
        self._tls = tls
        self._signer = signer
        self._watch = watch
        self._sync = sync
        self._connection_limits = Limits(
            max_collected_bytes=self._limits.max_flight_bytes,
            has_few_statuses=True,
            takes_absolute_form=True,
        )
        self._connections = Connections()
        self._heads = LearnedHeads()
        self._servers: list[asyncio.Server] = []
        self._timers: list[asyncio.Task[None]] = []
        self._upstream: Upstream | None = None

    @property
    def port(self) -> int:
        """The TCP port that is listened on."""
        return int(self._servers[0].sockets[0].getsockname()[1])

    async def start(self) -> None:
        """Recover the journal, then open the sockets.

        Raises
        ------
        FolderInUse, FolderTooNew, JournalDamaged, JournalFull, JournalError
            When the journal cannot be had.
        OSError
            When an address cannot be listened on; the journal is closed again.

        """
        loop = asyncio.get_running_loop()
        self._writer = SegmentWriter(
            self._data,
            segment_bytes=self._segment_bytes,
            deliver=loop.call_soon_threadsafe,
            # Everything that one turn of the loop has read is one group.
            gather=loop.call_soon,
            signer=self._signer,
            sync=self._sync,
            watch=self._watch,
        )
        try:
            if self._seal is not None:
                self._sealing = self._seal(self._writer, loop.call_soon_threadsafe)
            self._door = Door(self._sealing or self._writer, self._limits)
            self._watch_disk()
            await self._listen(loop)
        except BaseException:
            await self.stop(grace_s=0)
            raise
        self._timers = [
            loop.create_task(_every(_WATCH_S, self._watch_disk)),
            loop.create_task(self._keep_signed()),
            loop.create_task(_every(self._connection_limits.idle_s, self._connections.sweep)),
        ]

    async def stop(self, *, grace_s: float = _GRACE_S) -> None:
        """Accept nothing more, finish what is in flight, seal the journal."""
        for server in self._servers:
            server.close()
        for timer in self._timers:
            timer.cancel()
        await self._connections.drain(grace_s)
        if self._upstream is not None:
            await self._upstream.close()
        # In a thread: the last groups still answer through the loop.
        if self._sealing is not None:
            await asyncio.to_thread(self._sealing.close)
        await asyncio.to_thread(self._writer.close)
        if self._ingest_socket is not None:
            self._ingest_socket.unlink(missing_ok=True)

    def retire(self, reasons: Mapping[str, str]) -> list[SealedSegment]:
        """Delete segments of the archive on purpose, as ``SegmentWriter`` says; in any thread."""
        return self._writer.retire(reasons)

    def seal_begun_before(self, time_ns: int) -> None:
        """Have a new segment begun when this one is that old; in any thread."""
        self._writer.seal_begun_before(time_ns)

    def snapshot(self) -> dict[str, Any]:
        """Return the counters of door, journal and connections, ready for JSON."""
        writer, connections = self._writer, self._connections
        recovery = writer.recovery
        return {
            **self._door.snapshot(),
            "erased_again": 0 if self._sealing is None else self._sealing.erased_again,
            "journal": {
                "end": writer.end,
                "groups": writer.groups,
                "failed_groups": writer.failed_groups,
                "largest_group": writer.largest_group,
                "sync_seconds": writer.sync_seconds,
                "cut_bytes": recovery.cut_bytes,
                "lost_records": recovery.lost_records,
                "damaged": list(recovery.damaged),
            },
            "connections": {
                "open": len(connections),
                "requests": connections.requests,
                "refused": connections.refused,
                "upstream_errors": connections.upstream_errors,
            },
        }

    async def _listen(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._api_socket is not None:
            self._upstream = Upstream(path=str(self._api_socket), hint=_API_HINT)
        outside = self._door if self._gate is None else GatedDoor(self._door, self._gate)
        host, port = self._address
        self._servers.append(
            await loop.create_server(
                lambda: self._connection(outside), host, port, backlog=1024, ssl=self._tls
            )
        )
        if self._ingest_socket is not None:
            inside = _Inside(self._door, self.snapshot)
            self._ingest_socket.unlink(missing_ok=True)
            self._servers.append(
                await loop.create_unix_server(
                    lambda: self._connection(inside), str(self._ingest_socket)
                )
            )
            self._ingest_socket.chmod(0o600)

    def _connection(self, door: TakesEvents) -> DoorConnection:
        return DoorConnection(
            door,
            self._heads,
            self._upstream,
            limits=self._connection_limits,
            connections=self._connections,
        )

    async def _keep_signed(self) -> None:
        unsigned_s = 0.0
        while True:
            pause_s = min(_SIGN_S, max(_LOOK_S, _SIGN_PAUSES * self._writer.sign_seconds))
            await asyncio.sleep(pause_s)
            unsigned_s += pause_s
            is_due = unsigned_s >= _SIGN_S
            if is_due:
                unsigned_s = 0.0
            # In a thread: it waits for whoever writes to the access log.
            await asyncio.to_thread(self._writer.sign_progress, for_events=is_due)

    def _watch_disk(self) -> None:
        try:
            disk = os.statvfs(self._data / "raw")
            low = disk.f_bavail * disk.f_frsize < self._limits.min_free_bytes
        except OSError:
            # Deleted, or its disk is gone: nothing is stored then, whatever an open file says.
            low = True
        if self._writer.is_lost:
            low = True
        if low != self._door.is_disk_low:
            log.warning("room on the disk of the journal", extra={"low": low})
        self._door.is_disk_low = low


class _Inside:
    """The door for the processes beside it, with its counters."""

    def __init__(self, door: Door, snapshot: Callable[[], dict[str, Any]]) -> None:
        self._door = door
        self._snapshot = snapshot

    def admit(self, method: bytes, target: bytes, head: bytes) -> int | bytes | None:
        if method == b"GET" and target == COUNTERS_ROUTE:
            return 0
        return self._door.admit(method, target, head)

    def take(self, target: bytes, head: bytes, body: bytes, respond: Respond) -> bool:
        return self._door.take(target, head, body, respond)

    def handle(self, request: Request, respond: Respond) -> None:
        if request.method == b"GET":
            counters = orjson.dumps(self._snapshot())
            respond(response(200, body=counters, content_type=b"application/json"))
        else:
            self._door.handle(request, respond)


async def serve_door(server: DoorServer, *, ready: Callable[[], object] | None = None) -> None:
    """Run a door until SIGTERM or SIGINT, then end it cleanly.

    Parameters
    ----------
    server : DoorServer
        Not started yet.
    ready : callable, optional
        Called when the sockets are open.

    """
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    await server.start()
    # What is there now stays; the collector need not look at it again and again.
    gc.collect()
    gc.freeze()
    try:
        if ready is not None:
            ready()
        await stopping.wait()
    finally:
        await server.stop()


async def _every(seconds: float, work: Callable[[], object]) -> None:
    while True:
        await asyncio.sleep(seconds)
        work()
