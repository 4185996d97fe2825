"""Keys of sealed events are destroyed, by an erasure."""

import os
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from sidelight.logger._key_ring import KeyFile, KeyRing, Ring, key_file_name
from sidelight.logger._key_slots import (
    DIGEST_BYTES,
    HEADER,
    MAGIC,
    SLOT_BITS,
    SLOT_BYTES,
    crypted,
    digests_of,
    slots_of,
)
from sidelight.logger._sealed_body import KEY_BYTES
from sidelight.logger._segments_folder import sync_folder, write_all
from sidelight.logger.errors import SealingKeyError


class KeyEraser:
    """Destroys keys; safe beside the door, and again after it was killed.

    Parameters
    ----------
    data : Path
        The data folder, with keys.

    """

    def __init__(self, data: Path) -> None:
        self._keyring = KeyRing(data)
        self._folder = self._keyring.folder

    def close_requests(self, digests: Collection[bytes]) -> list[int]:
        """See to it that these get no key any more; return the numbers of those they have."""
        path = self._folder / "erased"
        with self._keyring.locked():
            known = digests_of(path.read_bytes()) if path.exists() else []
            # At least one is written, so that the door sees that its file is closed.
            new = sorted(set(digests) - set(known)) or list(digests)[:1]
            flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
            file = os.open(path, flags, 0o600)
            try:
                # Half of a digest, of a killed process, is written over.
                os.lseek(file, len(known) * DIGEST_BYTES, os.SEEK_SET)
                write_all(file, [b"".join(new)])
                os.fsync(file)
            finally:
                os.close(file)
            sync_folder(self._folder)
            ring = self._ring()
            if ring.current >= 0:
                ring = self._keyring.store(replace(ring, current=-1))
        wanted = set(digests)
        return [
            of << SLOT_BITS | slot
            for of, file_of in sorted(ring.files.items())
            for slot, (digest, _) in enumerate(slots_of(self._folder / key_file_name(of, file_of)))
            if digest in wanted
        ]

    def destroy(self, numbers: Collection[int]) -> None:
        """Write the files that hold these keys anew without them, and forget what opens the old."""
        self._sweep()
        gone: dict[int, set[int]] = {}
        for number in numbers:
            gone.setdefault(number >> SLOT_BITS, set()).add(number & ((1 << SLOT_BITS) - 1))
        ring = self._ring()
        fresh = {
            of: self._rewritten(of, ring.files[of], slots)
            for of, slots in gone.items()
            if of in ring.files
        }
        with self._keyring.locked():
            self._keyring.forget()
            for of, file in fresh.items():
                path = self._folder / key_file_name(of, file)
                path.with_suffix(".new").replace(path)
            ring = self._ring()
            self._keyring.store(replace(ring, files={**ring.files, **fresh}))

    def _rewritten(self, of: int, file: KeyFile, gone: set[int]) -> KeyFile:
        slots = list(slots_of(self._folder / key_file_name(of, file)))
        keys = crypted(b"".join(key for _, key in slots), file.secret, slot=0)
        fresh = KeyFile.fresh()
        encrypted = crypted(keys, fresh.secret, slot=0)
        parts = [HEADER.pack(MAGIC, of)]
        for slot, (digest, _) in enumerate(slots):
            begin = slot * KEY_BYTES
            kept = digest + encrypted[begin : begin + KEY_BYTES]
            parts.append(bytes(SLOT_BYTES) if slot in gone else kept)
        path = (self._folder / key_file_name(of, fresh)).with_suffix(".new")
        target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            write_all(target, [b"".join(parts)])
            os.fsync(target)
        finally:
            os.close(target)
        return fresh

    def _sweep(self) -> None:
        for path in self._folder.glob("*.new"):
            path.unlink(missing_ok=True)

    def _ring(self) -> Ring:
        ring = self._keyring.load()
        if ring is None:
            raise SealingKeyError("keys/ring: expected the keys of sealed events, got none")
        return ring
