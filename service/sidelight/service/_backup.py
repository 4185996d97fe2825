"""A consistent copy of a data folder, taken while the service runs.

The database comes first: all that it says was in the archive and in the lake before. What it names
and a compaction has replaced meanwhile is found missing, and the database is copied once more. The
archive comes last, up to the durable mark: what was acknowledged before the start is in it. The
copy has its name when everything in it is on the disk.
"""

import fcntl
import logging
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sidelight.adapters import EmbeddedDocuments, Lake, Manifest
from sidelight.logger import verify
from sidelight.logger._checkpoint import Checkpoint
from sidelight.logger._segments_folder import (
    DurableMark,
    FolderLock,
    check_version,
    folder_version,
    sync_folder,
)
from sidelight.logger._segments_format import (
    SEGMENT_HEADER_BYTES,
    BadBytes,
    chain_seed,
    checked_groups,
    segment_paths,
)
from sidelight.logger.errors import JournalError
from sidelight.service._access_log_check import verify_access_log
from sidelight.service._backup_keys import copy_keys, copy_without_values, has_keys
from sidelight.service.errors import ConfigurationError, NoDataFolder, ServiceError

log = logging.getLogger(__name__)

_ATTEMPTS: Final = 20
_CHUNK_BYTES: Final = 1 << 20
_ACCESS: Final = frozenset({".jsonl", ".json", ".pem", ".pub"})


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupReport:
    """What a backup holds.

    Parameters
    ----------
    records : int
        Of the archive, up to the last one.
    bytes : int
        Of everything.
    files : int
        Of the lake.
    findings : tuple of str
        What ``verify`` says of the copy; the same as of the folder itself.

    """

    records: int
    bytes: int
    files: int
    findings: tuple[str, ...]


def back_up(data: Path, target: Path, *, keys: Path | None = None) -> BackupReport:
    """Copy a data folder, whether the service runs on it or not.

    Of a folder whose events can be erased nothing is copied that was made of them: a start makes it
    again from the archive, as far as the keys allow by then. The keys are never in the copy.

    Parameters
    ----------
    data : Path
        The data folder.
    target : Path
        Where the copy will be; nothing may be there yet.
    keys : Path, optional
        Where the keys of sealed events are copied to; what is there is replaced.

    Raises
    ------
    ConfigurationError
        When there is no data folder, or something at the target.
    FolderTooNew, JournalError
        When the folder or its database cannot be read.
    ServiceError
        When the disk refuses; nothing is left at the target.

    """
    _check(data, target)
    _check_keys(data, target, keys)
    unfinished = target.with_name(f".{target.name}.unfinished")
    try:
        with closing(_begin(unfinished)):
            try:
                copied = _copy(data, unfinished)
                report = verify(unfinished)
                access = verify_access_log(unfinished, report.access)
                if keys is not None:
                    copy_keys(data, keys)
                (unfinished / "run" / "lock-backup").unlink()
                unfinished.rename(target)
            except Exception:
                shutil.rmtree(unfinished, ignore_errors=True)
                raise
        sync_folder(target.parent)
    except OSError as error:
        raise ServiceError(
            f"backup: expected to write {target}, got {error.strerror or error}; nothing is there",
            hint="make room, or name another target",
        ) from error
    size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    return BackupReport(
        records=copied.records,
        bytes=size,
        files=copied.files,
        findings=(*report.findings, *access.findings),
    )


@dataclass(frozen=True, slots=True)
class _Copied:
    records: int
    files: int


def _check(data: Path, target: Path) -> None:
    if not data.is_dir() or folder_version(data) is None:
        raise NoDataFolder(data)
    check_version(data)
    if target.exists():
        raise ConfigurationError(
            f"--backup: expected nothing at {target}, got something",
            hint="each backup is a folder of its own",
        )
    if data.resolve() in target.resolve().parents:
        raise ConfigurationError(f"--backup: expected a target outside of {data}, got {target}")


def _check_keys(data: Path, target: Path, keys: Path | None) -> None:
    if keys is None:
        return
    if not has_keys(data):
        raise ConfigurationError(f"--keys: expected a folder with sealed events, got {data}")
    for other in (data.resolve(), target.resolve()):
        if other in (keys.resolve(), *keys.resolve().parents):
            raise ConfigurationError(
                f"--keys: expected a place apart from {other}, got {keys}",
                hint="a copy that lies beside its keys can be read as long as it is there",
            )


def _begin(folder: Path) -> FolderLock:
    """Make the folder of the copy; what a killed backup left behind goes."""
    if folder.exists() and any(folder.iterdir()) and not (folder / "run").is_dir():
        raise ConfigurationError(f"--backup: expected nothing at {folder}, got something")
    (folder / "run").mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    lock = FolderLock(folder, "backup")
    for path in (*folder.iterdir(), *(folder / "run").iterdir()):
        if path.is_dir() and path.name != "run":
            shutil.rmtree(path)
        elif path.name not in {"run", "lock-backup"}:
            path.unlink()
    return lock


def _copy(data: Path, folder: Path) -> _Copied:
    _copy_file(data / "format", folder / "format")
    files: set[str] = set()
    if has_keys(data):
        copy_without_values(data, folder)
    elif (data / "state.db").exists():
        files = _copy_derived(data, folder)
    records = _copy_archive(data, folder)
    _copy_access(data / "access", folder / "access")
    for path in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
        sync_folder(path)
    return _Copied(records, len(files))


def _copy_derived(data: Path, folder: Path) -> set[str]:
    """Copy the database and the files that it names; what is in a bucket alone is fetched."""
    lake = Lake(data)
    for _ in range(_ATTEMPTS):
        _copy_database(data / "state.db", folder / "state.db")
        try:
            wanted = _visible_files(folder)
            for name in sorted(wanted):
                if not (folder / "lake" / name).exists():
                    _copy_file(lake.local(name), folder / "lake" / name)
            for path in _files(data / "references"):
                _copy_file(path, folder / path.relative_to(data))
        except FileNotFoundError as error:
            log.info("a file was replaced meanwhile", extra={"path": str(error.filename)})
            continue
        for copied in _files(folder / "lake"):
            if copied.relative_to(folder / "lake").as_posix() not in wanted:
                copied.unlink()
        return wanted
    raise JournalError(
        f"backup: expected the files that state.db names, got one missing {_ATTEMPTS} times; "
        "run `sidelight verify`, and look for lake files that are missing in the log of serve"
    )


def _copy_database(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    try:
        with (
            closing(sqlite3.connect(f"{source.resolve().as_uri()}?mode=ro", uri=True)) as one,
            closing(sqlite3.connect(target)) as other,
        ):
            # In one step: a reader of a write-ahead log sees one moment, and nobody waits for it.
            one.backup(other)
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
            raise OSError(28, "No space left on device", str(target)) from error
        raise JournalError(f"state.db: expected to copy it, got {error}") from error
    target.chmod(0o600)
    _sync(target)


def _visible_files(folder: Path) -> set[str]:
    # The copy is asked, not the original: only what this moment of it names belongs to it.
    documents = EmbeddedDocuments(folder)
    try:
        manifest = Manifest(documents)
        return {file.entry for table in ("inferences", "scores") for file in manifest.files(table)}
    finally:
        documents.close()
        (folder / "run" / "lock-tables").unlink()


def _copy_archive(data: Path, folder: Path) -> int:
    for _ in range(_ATTEMPTS):
        raw = folder / "raw"
        shutil.rmtree(raw, ignore_errors=True)
        raw.mkdir(mode=0o700)
        try:
            return _copied_archive(data, folder)
        except FileNotFoundError as error:
            log.info("a segment went meanwhile", extra={"path": str(error.filename)})
    raise JournalError(
        f"backup: expected the segments of the archive, got one missing {_ATTEMPTS} times; "
        "run `sidelight verify` to see which"
    )


def _copied_archive(data: Path, folder: Path) -> int:
    mark = _mark(data)
    checkpoint = Checkpoint.load(data)
    sealed = checkpoint.segments if checkpoint else ()
    for segment in sealed:
        if not segment.is_retired:
            _copy_file(data / "raw" / segment.name, folder / "raw" / segment.name)
    end = sealed[-1].next_position if sealed else 0
    if checkpoint is None or not checkpoint.closed:
        newer = [item for item in segment_paths(data / "raw") if item[0] >= end]
        behind = [first for first, _ in newer[1:]]
        for (first, path), stop in zip(newer, [*behind, mark], strict=True):
            if mark is None or first < mark:
                copy = folder / "raw" / path.name
                _copy_file(path, copy)
                end = _cut(copy, first=first, stop=stop)
    if checkpoint is not None:
        (folder / "raw" / "checkpoint.json").write_bytes(checkpoint.encode())
        _sync(folder / "raw" / "checkpoint.json")
    # With the mark a tail that is cut off the copy is missed.
    copied = DurableMark(folder, writable=True)
    copied.value = max(end, mark or 0)
    copied.close()
    return end


def _cut(path: Path, *, first: int, stop: int | None) -> int:
    """Cut a copied tail behind its last durable group; return the position behind it."""
    position, end = first, SEGMENT_HEADER_BYTES
    with path.open("r+b") as file:
        size = os.fstat(file.fileno()).st_size
        header = file.read(SEGMENT_HEADER_BYTES)
        try:
            for group in checked_groups(file, seed=chain_seed(header), first=first, size=size):
                position, end = group.next_position, group.end
                if stop is not None and position >= stop:
                    break
        except BadBytes:
            if stop is not None and position < stop:
                # Damage, not a torn tail: it is copied as it is, and verify names it.
                return position
        file.truncate(end)
        os.fsync(file.fileno())
    return position


def _copy_access(source: Path, target: Path) -> None:
    """Copy tokens, holds, keys and the access log, between two of its lines."""
    if not source.is_dir():
        return
    with (source / "log.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        for path in source.iterdir():
            if path.is_file() and path.suffix in _ACCESS:
                _copy_file(path, target / path.name)


def _mark(data: Path) -> int | None:
    try:
        mark = DurableMark(data)
    except FileNotFoundError:
        return None
    try:
        return mark.value
    finally:
        mark.close()


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def _copy_file(source: Path, target: Path) -> None:
    with source.open("rb") as reading:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with target.open("wb") as writing:
            shutil.copyfileobj(reading, writing, _CHUNK_BYTES)
            writing.flush()
            os.fsync(writing.fileno())
    target.chmod(source.stat().st_mode & 0o777 if source.exists() else 0o600)


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
