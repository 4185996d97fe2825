"""Keys of sealed events are made, by the door."""

import os
import secrets
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from sidelight.logger._key_ring import KeyFile, KeyRing, KeySource, Ring, key_file_name
from sidelight.logger._key_slots import (
    HEADER,
    MAGIC,
    NEVER_KEPT,
    SLOT_BITS,
    SLOTS_A_FILE,
    crypted,
    digests_of,
)
from sidelight.logger._sealed_body import KEY_BYTES, Key
from sidelight.logger._segments_folder import sync_folder, write_all
from sidelight.logger.errors import SealingKeyError

_FILE_BITS: Final = 40


class KeyWriter:
    """Makes keys; only the door of a folder has one.

    Parameters
    ----------
    data : Path
        The data folder.
    source : KeySource
        Where the wrapping key comes from.
    slots : int, default 65,536
        Keys in one file.

    Attributes
    ----------
    digest_key : bytes
        For ``request_digest``.

    Raises
    ------
    SealingKeyError
        When the ring cannot be opened.

    """

    def __init__(self, data: Path, source: KeySource, *, slots: int = SLOTS_A_FILE) -> None:
        self._keyring = KeyRing(data)
        self._folder = self._keyring.folder
        self._slots = slots
        self.digest_key = self._keyring.open(source).digest_key
        self._erased: set[bytes] = set()
        self._erased_bytes = 0
        self._file = -1
        self._number = 0
        self._secret = b""
        self._used = 0

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def make(self, digests: Sequence[bytes]) -> list[Key]:
        """Return a new key for each digest; they are on the disk when this returns.

        The number of a key for an erased request is ``NEVER_KEPT``.

        Raises
        ------
        OSError
            When they cannot be written; then none of them was made.

        """
        keys = [secrets.token_bytes(KEY_BYTES) for _ in digests]
        with self._keyring.locked():
            self._look_for_erasures()
            kept = [place for place, digest in enumerate(digests) if digest not in self._erased]
            numbers = [NEVER_KEPT] * len(digests)
            for start in range(0, len(kept), self._slots):
                some = kept[start : start + self._slots]
                first = self._write([digests[place] for place in some], [keys[of] for of in some])
                for slot, place in enumerate(some, first):
                    numbers[place] = self._number << SLOT_BITS | slot
        return list(zip(numbers, keys, strict=True))

    def _look_for_erasures(self) -> None:
        path = self._folder / "erased"
        size = path.stat().st_size if path.exists() else 0
        if size != self._erased_bytes:
            # Whoever erases has closed the file that was appended to, and may write it anew.
            self.close()
            self._keyring.forget()
            self._erased = set(digests_of(path.read_bytes()))
            self._erased_bytes = size

    def _write(self, digests: list[bytes], keys: list[bytes]) -> int:
        if self._file < 0 or self._used + len(keys) > self._slots:
            self._begin()
        first = self._used
        encrypted = crypted(b"".join(keys), self._secret, slot=first)
        slots = [
            digest + encrypted[place * KEY_BYTES : (place + 1) * KEY_BYTES]
            for place, digest in enumerate(digests)
        ]
        try:
            write_all(self._file, [b"".join(slots)])
            os.fdatasync(self._file)
        except OSError:
            # No slot is ever written twice: half of what was written stays unused, in a file
            # that nothing is appended to any more.
            self.close()
            raise
        self._used += len(keys)
        return first

    def _begin(self) -> None:
        self.close()
        ring = self._ring()
        number = _free_number(ring)
        fresh = KeyFile.fresh()
        path = self._folder / key_file_name(number, fresh)
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            write_all(file, [HEADER.pack(MAGIC, number)])
            os.fdatasync(file)
            sync_folder(self._folder)
            files = {**ring.files, number: fresh}
            self._keyring.store(replace(ring, files=files, current=number))
        except BaseException:
            os.close(file)
            raise
        self._file, self._number, self._secret, self._used = file, number, fresh.secret, 0

    def _ring(self) -> Ring:
        ring = self._keyring.load()
        if ring is None:
            raise SealingKeyError("keys/ring: expected the one of the start, got none; restore it")
        return ring


def _free_number(ring: Ring) -> int:
    # At random: a ring that was begun anew must not use a number of one that is lost.
    while (number := secrets.randbits(_FILE_BITS - 1)) in ring.files:
        pass
    return number
