"""The data folder: its format version, its locks and the durable mark.

``raw/`` is the archive and holds nothing but segments and the checkpoint. Locks, sockets and the
durable mark live in ``run/``; losing that folder loses nothing.
"""

import fcntl
import mmap
import os
from collections.abc import Sequence
from pathlib import Path

from sidelight.logger.errors import FolderInUse, FolderTooNew, JournalDamaged

# Since 2 every checkpoint is signed, since 3 it may say that segments were deleted, since 5 how far
# the access log went; an older folder becomes a newer one when its writer signs. One that may hold
# sealed events is of version 4, or 6 since 5.
FOLDER_VERSION = 5
COVERED_VERSION = 5
SIGNED_VERSION = 2
NEWEST_VERSION = 6
_SEALED_VERSIONS = frozenset({4, 6})
_UNSIGNED_VERSION = 1
_MARK_BYTES = 8


def open_folder(data: Path) -> int:
    """Make the data folder when it is missing, refuse one of a newer format; return its version.

    Raises
    ------
    FolderTooNew
        When the folder was written by a newer version.
    JournalDamaged
        When its ``format`` file is no number, or is missing though the folder holds data.

    """
    if lacks_version(data):
        raise JournalDamaged(
            f"format of the data folder: expected a file that says its version, got none beside "
            f"data in {data}; put it back from a backup, for a folder that this version wrote to "
            f"it holds {FOLDER_VERSION} or, with sealed events, {NEWEST_VERSION}"
        )
    for folder in (data, data / "raw", data / "run"):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    version = folder_version(data)
    if version is None:
        version = _UNSIGNED_VERSION
        _set_version(data, version)
    _refuse_newer(version)
    return version


def check_version(data: Path) -> None:
    """Refuse a data folder of a newer format, where nothing can be said of what it holds.

    Raises
    ------
    FolderTooNew
        When the folder was written by a newer version.
    JournalDamaged
        When its ``format`` file is no number.

    """
    _refuse_newer(folder_version(data) or 0)


def _refuse_newer(version: int) -> None:
    if version > NEWEST_VERSION:
        raise FolderTooNew(
            f"data folder: expected format version {NEWEST_VERSION} or older, got {version}; "
            "upgrade Sidelight or name another folder"
        )


def folder_version(data: Path) -> int | None:
    """Return the format version of a data folder; None when it says none.

    Raises
    ------
    JournalDamaged
        When its ``format`` file is no number.

    """
    path = data / "format"
    try:
        text = path.read_text(encoding="ascii", errors="replace").strip()
    except FileNotFoundError:
        return None
    if not text.isdecimal():
        raise JournalDamaged(
            f"{path.name} of the data folder: expected a format version such as "
            f"{FOLDER_VERSION}, got {text[:20]!r}; is this a data folder of Sidelight?"
        )
    return int(text)


def lacks_version(data: Path) -> bool:
    """Whether a folder holds data and does not say of which format.

    Every version has written ``format`` before anything else; a folder with tokens alone is new.
    """
    if folder_version(data) is not None:
        return False
    raw = data / "raw"
    return (data / "state.db").exists() or (raw.is_dir() and any(raw.iterdir()))


def upgrade_folder(data: Path, *, from_version: int) -> None:
    """Say that the folder is of the newest format, once everything in it is."""
    if from_version < FOLDER_VERSION:
        sealed = from_version in _SEALED_VERSIONS
        _set_version(data, NEWEST_VERSION if sealed else FOLDER_VERSION)


def seal_folder(data: Path) -> None:
    """Say that there may be sealed events, which an older version would take for payloads."""
    if not may_hold_sealed(data):
        _set_version(data, NEWEST_VERSION)


def may_hold_sealed(data: Path) -> bool:
    """Whether there may be sealed events."""
    return folder_version(data) in _SEALED_VERSIONS


def _set_version(data: Path, version: int) -> None:
    replace_file(data / "format", f"{version}\n".encode(), scratch=data / "run")


class FolderLock:
    """Holds one role of a data folder for this process, until closed or killed.

    Raises
    ------
    FolderInUse
        When another process holds the role.

    """

    def __init__(self, data: Path, role: str) -> None:
        self._file = os.open(data / "run" / f"lock-{role}", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._file)
            raise FolderInUse(
                f"data folder: another process already holds its role {role}; "
                "stop it or name another folder"
            ) from error

    def close(self) -> None:
        """Let the role go."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


class DurableMark:
    """The next position to be written, shared with readers in other processes.

    Stored after the sync and never synced itself: it may lag behind the segments after a power
    loss, but is never ahead of them.
    """

    def __init__(self, data: Path, *, writable: bool = False) -> None:
        path = data / "run" / "durable"
        flags = os.O_RDWR | os.O_CREAT if writable else os.O_RDONLY
        file = os.open(path, flags, 0o600)
        try:
            if os.fstat(file).st_size < _MARK_BYTES:
                if not writable:
                    raise FileNotFoundError(path.name)
                os.ftruncate(file, _MARK_BYTES)
            protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
            self._map = mmap.mmap(file, _MARK_BYTES, mmap.MAP_SHARED, protection)
        finally:
            os.close(file)
        # A cast view stores and loads all eight bytes with one instruction; struct does not.
        self._view = memoryview(self._map).cast("Q")

    @property
    def value(self) -> int:
        """The position behind the last durable record."""
        return self._view[0]

    @value.setter
    def value(self, position: int) -> None:
        self._view[0] = position

    def close(self) -> None:
        """Unmap it."""
        self._view.release()
        self._map.close()


def replace_file(path: Path, content: bytes, *, scratch: Path) -> None:
    """Put a whole file in place of another, or leave the other as it was."""
    temporary = scratch / f"{path.name}.{os.getpid()}.tmp"
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_all(descriptor: int, buffers: Sequence[bytes]) -> None:
    """Write every byte of the buffers, however the kernel cuts them."""
    written = os.writev(descriptor, buffers)
    if written == sum(map(len, buffers)):
        return
    left = memoryview(b"".join(buffers))[written:]
    while left:
        left = left[os.write(descriptor, left) :]
