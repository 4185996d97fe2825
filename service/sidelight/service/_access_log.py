"""The access log: who asked for what, when and why, as a chain of lines."""

import fcntl
import getpass
import hashlib
import os
import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Final

import orjson

_NAME: Final = re.compile(r"log-\d{4}-\d{2}\.jsonl")
_START: Final = "0" * 64
_TAIL_BYTES: Final = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessReport:
    """What a check of the log found: the number of entries, and what is wrong with them."""

    entries: int
    findings: tuple[str, ...]


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
            path = self._folder / f"log-{now:%Y-%m}.jsonl"
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
            file = os.open(path, flags, 0o600)
            try:
                _write(file, line)
            finally:
                os.close(file)

    def _last_digest(self) -> str:
        """Return the digest of the last whole line; cut off a torn one, which nobody waited for."""
        for path in reversed(_paths(self._folder)):
            with path.open("r+b") as file:
                start, tail = _tail(file)
                whole = tail[: tail.rfind(b"\n") + 1]
                if len(whole) < len(tail):
                    file.truncate(start + len(whole))
            if whole:
                return _digest(whole[:-1].rpartition(b"\n")[2])
        return _START


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


def verify_access_log(data: Path) -> AccessReport:
    """Check the chain from the first entry to the last.

    What was cut off at its end leaves no trace in a chain; compare the number of entries with a
    copy for that.
    """
    previous, entries, findings = _START, 0, []
    for path in _paths(data / "access"):
        for number, line in enumerate(_lines(path), 1):
            entries += 1
            try:
                said = orjson.loads(line)["previous"]
            except (orjson.JSONDecodeError, KeyError, TypeError):
                said = None
            if said != previous:
                findings.append(
                    f"access/{path.name}: line {number} does not follow the one before it"
                )
            previous = _digest(line)
    return AccessReport(entries=entries, findings=tuple(findings))


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


def _tail(file: BinaryIO) -> tuple[int, bytes]:
    """Return the end of a log, and where it begins; the last whole line is in it."""
    size = file.seek(0, os.SEEK_END)
    length = _TAIL_BYTES
    while True:
        start = max(0, size - length)
        file.seek(start)
        tail = file.read()
        # One line end closes the last whole line, another one is before it.
        if start == 0 or tail.count(b"\n") > 1:
            return start, tail
        length *= 4


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        for line in file:
            # A torn one was never answered; the next entry takes its place.
            if line.endswith(b"\n"):
                yield line[:-1]


def _paths(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name))


def _digest(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()


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
