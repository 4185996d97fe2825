"""What a backup takes of a folder whose events can be erased, and where their keys go.

Rows of the lake and of the database hold values that an erasure could not reach in a copy. So the
copy is the sealed archive and what people configured; a start with the keys makes the rest anew,
without what was erased since.
"""

import os
import shutil
from pathlib import Path
from typing import Final

from sidelight.adapters import EmbeddedDocuments
from sidelight.logger import Document
from sidelight.logger._key_ring import KeyRing
from sidelight.logger._sealed_records import APART
from sidelight.logger._segments_folder import sync_folder, write_all
from sidelight.service._deployments import SETTINGS
from sidelight.service._erasure_orders import COLLECTION
from sidelight.service.errors import ServiceError

_KEPT: Final = (SETTINGS, COLLECTION, "acknowledgements")
_MANY: Final = 1_000_000


def has_keys(data: Path) -> bool:
    """Whether events of a folder are sealed."""
    return (data / "keys").is_dir()


def copy_without_values(data: Path, folder: Path) -> None:
    """Copy what people configured, and say that the keys are elsewhere."""
    if (data / "state.db").exists():
        source = EmbeddedDocuments(data)
        target = EmbeddedDocuments(folder)
        try:
            for collection in _KEPT:
                found = source.find(collection, limit=_MANY)
                target.put(
                    [
                        Document(
                            collection=collection,
                            key=key,
                            deployment=str(value.get("deployment") or value.get("name") or ""),
                            order=order,
                            value=value,
                        )
                        for order, key, value in found
                        if not value.get("request_ids")
                    ]
                )
        finally:
            source.close()
            target.close()
        (folder / "run" / "lock-tables").unlink()
    (folder / "keys").mkdir(mode=0o700)
    (folder / "keys" / APART).touch()


def copy_keys(data: Path, target: Path) -> None:
    """Copy the keys of one moment, in the place of what is there.

    Raises
    ------
    ServiceError
        When something else than keys is there.
    OSError
        When the disk refuses; what was there before is still there.

    """
    if target.exists() and not ((target / "ring").exists() or not any(target.iterdir())):
        raise ServiceError(f"--keys: expected keys or nothing at {target}, got something else")
    unfinished = target.with_name(f".{target.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(mode=0o700, parents=True)
    keyring = KeyRing(data)
    with keyring.locked():
        for path in keyring.folder.iterdir():
            if path.suffix in {".keys", ".key"} or path.name in {"ring", "erased", APART}:
                _copy(path, unfinished / path.name)
    former = target.with_name(f".{target.name}.former")
    shutil.rmtree(former, ignore_errors=True)
    if target.exists():
        target.rename(former)
    unfinished.rename(target)
    sync_folder(target.parent)
    # Former keys must not stay beside the new ones: they open what is erased since.
    shutil.rmtree(former, ignore_errors=True)


def _copy(source: Path, target: Path) -> None:
    file = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        write_all(file, [source.read_bytes()])
        os.fsync(file)
    finally:
        os.close(file)
