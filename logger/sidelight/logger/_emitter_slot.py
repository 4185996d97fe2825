"""The folders of several processes below one parent: each holds its own, and takes over others."""

import fcntl
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_LOCK: Final = "lock"
_SEGMENTS: Final = "*.spool1"


class Slot:
    """One folder that this process holds until it closes it or ends.

    Attributes
    ----------
    folder : Path
        For the spools of one emitter; each goes into a folder of its own below.

    """

    def __init__(self, folder: Path, lock: int) -> None:
        self.folder = folder
        self._lock = lock

    def close(self) -> None:
        """Give the folder back; what is in it stays."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def claim(parent: Path) -> Slot:
    """Take the first folder below ``parent`` that no process holds, making what is missing.

    Raises
    ------
    OSError
        When a folder cannot be made or locked.

    """
    parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    for number in itertools.count():
        folder = parent / str(number)
        folder.mkdir(exist_ok=True, mode=0o700)
        if slot := _locked(folder):
            return slot
    raise AssertionError("numbers do not end")


def claim_left(parent: Path) -> Slot | None:
    """Take a folder with events in it that no process holds; None when there is none."""
    for folder in _folders(parent):
        if any(folder.rglob(_SEGMENTS)) and (slot := _locked(folder)):
            return slot
    return None


def _folders(parent: Path) -> Iterator[Path]:
    numbered = [path for path in parent.iterdir() if path.name.isdecimal() and path.is_dir()]
    yield from sorted(numbered, key=lambda path: int(path.name))


def _locked(folder: Path) -> Slot | None:
    lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    except OSError:
        os.close(lock)
        raise
    return Slot(folder, lock)
