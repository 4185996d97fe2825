"""A local folder in which a file is whole or not there."""

import contextlib
import fcntl
import logging
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Final

from sidelight.adapters.errors import SinkError

log = logging.getLogger(__name__)

# Readers of such folders pass over names that begin with a dot.
_WRITING: Final = ".writing"
_LOCK: Final = ".lock"
_UNFINISHED: Final = ".tmp"


class LocalFiles:
    """Files below one folder, each written aside, synchronised and renamed.

    Several processes may write into the same folder: each removes at its start what those that
    are gone have not finished.

    Parameters
    ----------
    folder : Path
        Made when it is missing, for its owner only, since files hold payloads. One that exists
        keeps its rights; the files in it get those that the process's mask allows.

    Raises
    ------
    SinkError
        When the folder cannot be written.

    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            if not folder.exists():
                folder.mkdir(parents=True, mode=0o700)
            self._unfinished, lock = _claim(folder / _WRITING)
        except OSError as error:
            raise SinkError(
                f"folder {folder}: expected one to write in, got {error.strerror or error}; "
                "choose another one or free it"
            ) from error
        self._lock: int | None = lock

    def write(self, path: str, fill: Callable[[BinaryIO], None]) -> None:
        """Write a file durably, in place of one that has the name already.

        Raises
        ------
        OSError
            When the disk refuses; then nothing has changed.

        """
        target = self._folder / path
        temporary = self._unfinished
        try:
            # All may have been removed meanwhile.
            temporary.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                fill(file)
                file.flush()
                os.fsync(file.fileno())
            made = [folder for folder in target.parents if not folder.exists()]
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary.replace(target)
        except BaseException:
            # On a full disk what was begun is the first thing that must go.
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        for folder in {target.parent, *(new.parent for new in made)}:
            _synchronise(folder)

    def close(self) -> None:
        """Give up the place for unfinished files."""
        if self._lock is not None:
            self._unfinished.with_suffix(_LOCK).unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = None


def _claim(writing: Path) -> tuple[Path, int]:
    """Return a name and a lock of our own, and remove what no process holds any more."""
    writing.mkdir(mode=0o700, exist_ok=True)
    for path in _abandoned(writing):
        log.info("an unfinished file is removed", extra={"file": path.name})
        path.unlink(missing_ok=True)
    path = writing / secrets.token_hex(8)
    lock = os.open(path.with_suffix(_LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    return path.with_suffix(_UNFINISHED), lock


def _abandoned(writing: Path) -> Iterator[Path]:
    """Remove the locks of processes that are gone; yield what they have left."""
    for path in sorted(writing.glob("*" + _LOCK)):
        with contextlib.suppress(OSError):
            lock = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
            finally:
                os.close(lock)
    for path in sorted(writing.glob("*" + _UNFINISHED)):
        if not path.with_suffix(_LOCK).exists():
            yield path


def _synchronise(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
