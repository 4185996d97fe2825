"""The access log: who asked for what, when and why, as a chain of lines."""

import fcntl
import getpass
import logging
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Final

import orjson

from sidelight.logger import LogHead
from sidelight.service._access_lines import (
    START,
    digest_of,
    end_of,
    lines_between,
    missing_from,
    paths_of,
    tail_of,
)

log = logging.getLogger(__name__)

_PATIENCE_S: Final = 1.0
_PAUSE_S: Final = 0.01


class AccessLog:
    """Appends entries durably to ``access/log-YYYY-MM.jsonl``; several processes may.

    Parameters
    ----------
    data : Path
        The data folder.

    """

    def __init__(self, data: Path) -> None:
        self._keys = data / "keys"
        self._folder = data / "access"
        self._lock = threading.Lock()

    def append(self, entry: Mapping[str, Any]) -> None:
        """Keep an entry; it is on the disk when this returns.

        Where events can be erased, what somebody looked for is kept without its values: a line of
        a chain can not be erased.

        Parameters
        ----------
        entry : mapping
            Values that JSON has. ``time`` and ``previous`` are added.

        Raises
        ------
        OSError
            When the disk refuses; then the request must be refused as well.

        """
        if self._keys.is_dir():
            entry = _without_values(entry)
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self._lock, (self._folder / "log.lock").open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            now = datetime.now(UTC)
            previous = self._last_digest()
            line = orjson.dumps({"time": now.isoformat(), **entry, "previous": previous}) + b"\n"
            # Never before the last one, whose month a clock that was set back would leave.
            last = [path.name for path in paths_of(self._folder)[-1:]]
            path = self._folder / max([f"log-{now:%Y-%m}.jsonl", *last])
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
            file = os.open(path, flags, 0o600)
            try:
                _write(file, line)
            finally:
                os.close(file)

    def _last_digest(self) -> str:
        """Return the digest of the last whole line; cut off a torn one, which nobody waited for."""
        for path in reversed(paths_of(self._folder)):
            with path.open("r+b") as file:
                start, tail = tail_of(file)
                whole = tail[: tail.rfind(b"\n") + 1]
                if len(whole) < len(tail):
                    file.truncate(start + len(whole))
            if whole:
                return digest_of(whole[:-1].rpartition(b"\n")[2])
        return START

    def watch(self, former: LogHead | None) -> tuple[LogHead | None, str | None]:
        """Return how far the log goes, and what is wrong when it does not hold what was signed.

        Parameters
        ----------
        former : LogHead or None
            What was signed last; it is returned when somebody keeps the log to himself, or it
            cannot be read.

        """
        try:
            lost = None if former is None else missing_from(self._folder, former)
            if not self._folder.is_dir():
                return LogHead(), lost
            with (self._folder / "log.lock").open("wb") as lock:
                if not _locked_in_time(lock):
                    return former, lost
                head = end_of(self._folder)
            if former is not None and lost is None:
                if head == replace(former, entries=0):
                    return former, None
                entries = former.entries + lines_between(self._folder, former, head)
            else:
                entries = lines_between(self._folder, LogHead(), head)
            if head.file:
                # A line of somebody who was killed before its sync must not be lost once signed.
                _sync(self._folder / head.file)
        except OSError:
            log.exception("the access log cannot be read: checkpoints cover it as far as before")
            return former, None
        return replace(head, entries=entries), lost


def command_entry(command: str, filters: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the access log keeps of a command: the user of this system asks."""
    given = {name: value for name, value in filters.items() if value is not None}
    reason = os.environ.get("SIDELIGHT_REASON", "")
    caller = f"user {_user()}"
    return {"caller": caller, "command": command, "parameters": given, "reason": reason}


def _user() -> str:
    """Return who runs this; a container may run as a number that has no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def _locked_in_time(lock: BinaryIO) -> bool:
    """Take a shared lock; whoever holds it for long must not hold up the archive."""
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(_PAUSE_S)
        else:
            return True


def _without_values(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    parameters = entry.get("parameters") or {}
    if not parameters.get("where"):
        return entry
    from sidelight.adapters import QueryError  # noqa: PLC0415 - who asks has it already
    from sidelight.adapters._where_tokens import tokens  # noqa: PLC0415

    try:
        words = ["?" if word.kind == "value" else word.text for word in tokens(parameters["where"])]
    except QueryError:
        # Nobody can tell what of it is a value.
        words = ["?"]
    return {**entry, "parameters": {**parameters, "where": " ".join(words).strip()}}


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fdatasync(file.fileno())


def _write(file: int, line: bytes) -> None:
    start = os.fstat(file).st_size
    try:
        rest = memoryview(line)
        while rest:
            rest = rest[os.write(file, rest) :]
        os.fdatasync(file)
    except OSError:
        os.ftruncate(file, start)
        raise
