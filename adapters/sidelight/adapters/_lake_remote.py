"""Files of a lake in a bucket: put whole, fetched when they are asked for."""

import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final
from uuid import uuid4

from pyarrow.fs import FileSelector, FileType, S3FileSystem

from sidelight.adapters._lake_place import Place, place_of
from sidelight.adapters._sink_files_s3 import connect_s3
from sidelight.adapters.errors import LakeError

OWNER: Final = "sidelight.json"
"""Object that says which data folder a place belongs to."""

_CHUNK_BYTES: Final = 8 << 20
# After a failure nobody waits for the bucket again so soon: a query is refused at once.
_PAUSE_S: Final = 2.0
_SILENCES: Final = 2.0
# How long a copy that was asked for stays: a query opens its files one by one.
_HELD_NS: Final = 60 * 10**9
# A bucket that gives nothing for so long has been given up by whoever asked it.
_FETCHING_S: Final = 120.0
_COPY: Final = re.compile(r".+\.[0-9a-f]{32}\.tmp")


class LakeUnreachable(LakeError):  # noqa: N818 - the name says it
    """The bucket of a lake does not answer, or refuses."""


class Bucket:
    """Objects below one prefix, for any number of threads.

    Every method raises ``LakeUnreachable`` when the bucket does not answer or refuses.

    Parameters
    ----------
    place : Place
        Which one.
    clock : callable
        Monotonic seconds.

    """

    def __init__(self, place: Place, clock: Callable[[], float] = time.monotonic) -> None:
        self._place = place
        self._clock = clock
        self._lock = threading.Lock()
        self._files: S3FileSystem | None = None
        self._refused_until_s = float("-inf")

    def put(self, source: Path, name: str) -> int:
        """Copy a file into an object, which is whole or not there; return its bytes."""
        size = 0
        with source.open("rb") as file, self._asked() as store:
            # Closing makes the object visible: nothing may fail between here and there.
            stream = store.open_output_stream(self._name(name))
            while chunk := file.read(_CHUNK_BYTES):
                size += len(chunk)
                stream.write(chunk)
            stream.close()
        return size

    def put_bytes(self, content: bytes, name: str) -> None:
        """Write an object, which is whole or not there."""
        with self._asked() as store:
            stream = store.open_output_stream(self._name(name))
            stream.write(content)
            stream.close()

    def get(self, name: str, target: Path) -> None:
        """Copy an object into a file, which is whole or not there.

        Raises
        ------
        FileNotFoundError
            When there is no such object.

        """
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f"{target.name}.{uuid4().hex}.tmp")
        try:
            with (
                self._asked() as store,
                store.open_input_stream(self._name(name)) as stream,
                temporary.open("wb") as file,
            ):
                while chunk := stream.read(_CHUNK_BYTES):
                    file.write(chunk)
            _hold(temporary)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)

    def read(self, name: str) -> bytes | None:
        """Return the bytes of a small object; None when there is none."""
        try:
            with self._asked() as store, store.open_input_stream(self._name(name)) as stream:
                return bytes(stream.read())
        except FileNotFoundError:
            return None

    def size(self, name: str) -> int | None:
        """Return the bytes of an object; None when there is none."""
        with self._asked() as store:
            info = store.get_file_info(self._name(name))
        return int(info.size) if info.type is FileType.File else None

    def delete(self, name: str) -> None:
        """Delete an object; none is fine."""
        with suppress(FileNotFoundError), self._asked() as store:
            store.delete_file(self._name(name))

    def names(self, folder: str) -> Iterator[str]:
        """Yield the names of all objects below a folder."""
        base = self._name(folder)
        with self._asked() as store:
            found = store.get_file_info(FileSelector(base, recursive=True, allow_not_found=True))
        for info in found:
            if info.type is FileType.File:
                yield f"{folder}/{info.path.removeprefix(base).lstrip('/')}"

    def _name(self, name: str) -> str:
        return f"{self._place.prefix}/{name}"

    @contextmanager
    def _asked(self) -> Iterator[S3FileSystem]:
        """Give the client; what it cannot do is told at once for a while, not tried."""
        began_s = self._clock()
        if began_s < self._refused_until_s:
            raise LakeUnreachable(f"{self._place.url} did not answer a moment ago")
        try:
            yield self._store()
        except FileNotFoundError:
            raise
        except OSError as error:
            now_s = self._clock()
            # A store that is silent costs seconds each time it is asked.
            self._refused_until_s = now_s + max(_PAUSE_S, _SILENCES * (now_s - began_s))
            raise LakeUnreachable(f"{self._place.url} cannot be used now: {error}") from error

    def _store(self) -> S3FileSystem:
        with self._lock:
            if self._files is None:
                self._files = connect_s3(self._place.settings())
            return self._files


class Copies:
    """Local copies of the files of a lake; what is in the bucket alone is fetched.

    Parameters
    ----------
    folder : Path
        The lake.

    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._fetching: dict[str, threading.Lock] = {}
        self._bucket: Bucket | None = None

    def path(self, entry: str) -> Path:
        """Return where a file can be opened.

        Raises
        ------
        LakeUnreachable
            When it has to be fetched, and the bucket does not answer.
        FileNotFoundError
            When it is nowhere.

        """
        path = self.folder / entry
        bucket = self._remote()
        # Of a lake without a bucket whoever opens the file finds it missing.
        return path if bucket is None else self._held(entry, path, bucket)

    @property
    def are_remote(self) -> bool:
        """Whether there is a bucket that has to be asked."""
        return self._remote() is not None

    def ask(self) -> None:
        """Find out whether the bucket answers.

        Raises
        ------
        LakeUnreachable
            When it does not, after some seconds.

        """
        if (bucket := self._remote()) is not None:
            bucket.size(OWNER)

    def _held(self, entry: str, path: Path, bucket: Bucket) -> Path:
        try:
            _hold(path)
        except FileNotFoundError:
            self._fetched(entry, path, bucket)
        return path

    def _fetched(self, entry: str, path: Path, bucket: Bucket) -> None:
        with self._lock:
            lock = self._fetching.setdefault(entry, threading.Lock())
        with lock:
            if not path.exists():
                bucket.get(f"lake/{entry}", path)
        with self._lock:
            self._fetching.pop(entry, None)

    def _remote(self) -> Bucket | None:
        with self._lock:
            if self._bucket is None:
                place = place_of(self.folder)
                self._bucket = None if place is None else Bucket(place)
            return self._bucket


def is_copy(path: Path) -> bool:
    """Whether a file is a copy that is being fetched, or once was."""
    return _COPY.fullmatch(path.name) is not None


def is_under_way(path: Path) -> bool:
    """Whether a file is a copy that some process is fetching now, as far as its age tells."""
    try:
        return is_copy(path) and abs(time.time() - path.stat().st_mtime) < _FETCHING_S
    except FileNotFoundError:
        return False


def _hold(path: Path) -> None:
    """Let a copy stay for a while: its last use is to come, as far as whoever makes room sees."""
    os.utime(path, ns=(time.time_ns() + _HELD_NS, path.stat().st_mtime_ns))
