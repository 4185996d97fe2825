"""The process tree of ``serve``: door, consumer, detection and API, each restarted when it dies."""

import asyncio
import contextlib
import logging
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from sidelight.logger._segments_folder import FolderLock
from sidelight.logger.errors import FolderInUse
from sidelight.service._run_folder import RunFolder
from sidelight.service.errors import ServiceError

log = logging.getLogger(__name__)

# The door stops first, so that the consumer can still take what it acknowledged; who does not wait
# for another one stops with it.
_STOPS = (("door",), ("consumer", "detection"), ("api",))
_ROLES = tuple(role for together in _STOPS for role in together)
# Nobody waits for a judgement: it takes no time from the start of those that somebody waits for.
_LATE_ROLES = frozenset({"detection"})
_EARLY_ROLES = tuple(role for role in _ROLES if role not in _LATE_ROLES)
_STOP_GRACE_S = 10.0
_PATIENCE_S = 15.0
_PAUSE_S = 0.05
_FIRST_DELAY_S = 0.1
_LONGEST_DELAY_S = 5.0
# A process that lived this long did not die of what kills it at every start.
_HEALTHY_S = 10.0
# A process that ends with this status cannot start at all: a taken port, a newer data folder.
CANNOT_START = 78


class Supervisor:
    """Runs the processes until SIGTERM or SIGINT.

    Parameters
    ----------
    load : callable
        Reads the settings, as JSON values; called once. The processes are started before and
        import what they need meanwhile: after a kill every tenth of a second counts.
    on_ready : callable of (host, port, scheme)
        Called once, when door, consumer and API work; detection is started then.

    """

    def __init__(
        self, load: Callable[[], dict[str, Any]], on_ready: Callable[[str, int, str], None]
    ) -> None:
        self._load = load
        self._settings: dict[str, Any] = {}
        self._on_ready = on_ready
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._ready: dict[str, dict[str, Any]] = {}
        self._stopping = asyncio.Event()
        self._announced = asyncio.Event()

    async def run(self) -> int:
        """Return the exit code when everything has stopped."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        # The API has the most to import.
        for role in reversed(_EARLY_ROLES):
            self._processes[role] = await _start(role)
        try:
            self._settings = self._load()
            folder = RunFolder(Path(self._settings["data"]))
            folder.create()
            lock = await self._lock(folder.data)
        except (ServiceError, FolderInUse) as error:
            # They wait for settings that will not come, and end without a word.
            for role in _EARLY_ROLES:
                await self._stop(role)
            if isinstance(error, ServiceError):
                raise
            log.error("%s", error)  # noqa: TRY400 - for who started it, not for us
            return CANNOT_START
        with contextlib.closing(lock):
            folder.forget()
            return await self._work()

    async def _work(self) -> int:
        keepers = [asyncio.create_task(self._keep(role)) for role in _ROLES]
        stop = asyncio.create_task(self._stopping.wait())
        await asyncio.wait([*keepers, stop], return_when=asyncio.FIRST_COMPLETED)
        self._stopping.set()
        # Whoever waits for it is started no more.
        self._announced.set()
        for together in _STOPS:
            await asyncio.gather(*(self._stop(role) for role in together))
        results = await asyncio.gather(*keepers, return_exceptions=True)
        for failure in results:
            if isinstance(failure, ServiceError):
                log.error("%s", failure)
                return CANNOT_START
            if isinstance(failure, BaseException):
                raise failure
        return 0

    async def _lock(self, data: Path) -> FolderLock:
        """Take the folder before any process does: sockets and marks of two would be the same.

        Raises
        ------
        FolderInUse
            If another service has it and does not end.

        """
        deadline_s = time.monotonic() + _PATIENCE_S
        while True:
            try:
                return FolderLock(data, "serve")
            except FolderInUse:
                if self._stopping.is_set() or time.monotonic() > deadline_s:
                    raise
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), _PAUSE_S)

    async def _keep(self, role: str) -> None:
        delay_s = _FIRST_DELAY_S
        if role in _LATE_ROLES:
            await self._announced.wait()
            if self._stopping.is_set():
                return
            self._processes[role] = await _start(role)
        process = self._processes[role]
        while not self._stopping.is_set():
            started = time.monotonic()
            status = await self._run_once(role, process)
            if self._stopping.is_set():
                return
            if status == CANNOT_START:
                raise ServiceError(f"the {role} cannot start; its last lines above say why")
            if time.monotonic() - started > _HEALTHY_S:
                delay_s = _FIRST_DELAY_S
            log.error("process died", extra={"role": role, "status": status, "again_in_s": delay_s})
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), delay_s)
            if self._stopping.is_set():
                return
            delay_s = min(2 * delay_s, _LONGEST_DELAY_S)
            process = self._processes[role] = await _start(role)

    async def _run_once(self, role: str, process: asyncio.subprocess.Process) -> int:
        assert process.stdin is not None  # noqa: S101 - asked for by _start
        assert process.stdout is not None  # noqa: S101 - asked for by _start
        process.stdin.write(self._settings_line())
        async for line in process.stdout:
            self._note_ready(role, line)
        return await process.wait()

    def _settings_line(self) -> bytes:
        door = self._ready.get("door")
        if door is not None:
            # A free port that was taken once stays the same when the door is started again.
            self._settings["listen"]["port"] = door["port"]
        return orjson.dumps(self._settings) + b"\n"

    def _note_ready(self, role: str, line: bytes) -> None:
        try:
            self._ready[role] = orjson.loads(line)
        except orjson.JSONDecodeError:
            log.warning("unexpected output", extra={"role": role})
            return
        if self._ready.keys() >= set(_EARLY_ROLES) and not self._announced.is_set():
            self._announced.set()
            address = self._ready["door"]
            self._on_ready(address["host"], address["port"], address["scheme"])

    async def _stop(self, role: str) -> None:
        process = self._processes.get(role)
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), _STOP_GRACE_S)
        except TimeoutError:
            log.warning("process did not stop in time", extra={"role": role})
            process.kill()
            await process.wait()


async def _start(role: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "sidelight.service._process", role),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )


def announce(host: str, port: int, scheme: str) -> None:
    """Print where the service listens."""
    shown = f"[{host}]" if ":" in host else host
    sys.stdout.write(f"Sidelight listens on {scheme}://{shown}:{port}/\n")
    sys.stdout.flush()
