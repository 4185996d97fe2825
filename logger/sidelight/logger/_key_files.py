"""Keys of sealed events on disk: made by the door, found by readers, destroyed by an erasure.

A key file is a header and slots of 48 bytes: the digest of the request that a key belongs to, and
the key, encrypted with the file's secret (AES-256 in counter mode; a wrong secret gives a wrong
key, which opens nothing). The number of a key is the number of its file and its slot. A slot that
is zero was destroyed. ``keys/erased`` holds the digests of erased requests: none of them gets a
key again.
"""

import hashlib
import logging
import os
import secrets
import struct
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from sidelight.logger._key_ring import KeyFile, KeyRing, KeySource, Ring, key_file_name
from sidelight.logger._sealed_body import KEY_BYTES, Key
from sidelight.logger._segments_folder import sync_folder, write_all
from sidelight.logger.errors import SealingKeyError

log = logging.getLogger(__name__)

DIGEST_BYTES: Final = 16
NEVER_KEPT: Final = (1 << 64) - 1
"""Number of a key that was thrown away at once, since its request is erased already."""

_MAGIC: Final = b"SIDELKEY"
_HEADER: Final = struct.Struct("<8sQ")
_SLOT_BYTES: Final = DIGEST_BYTES + KEY_BYTES
_SLOT_BITS: Final = 24
_FILE_BITS: Final = 40
_BLOCKS_A_KEY: Final = KEY_BYTES // 16
SLOTS_A_FILE: Final = 1 << 16
_MAX_OPEN: Final = 64
_BLOCK_SLOTS: Final = 256
_MAX_BLOCKS: Final = 16


def request_digest(digest_key: bytes, deployment: str, request_id: str) -> bytes:
    """Return 16 bytes that stand for a request to those who have the keys, and to nobody else."""
    text = f"{len(deployment)}:{deployment}{request_id}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, digest_size=DIGEST_BYTES, key=digest_key).digest()


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
                    numbers[place] = self._number << _SLOT_BITS | slot
        return list(zip(numbers, keys, strict=True))

    def _look_for_erasures(self) -> None:
        path = self._folder / "erased"
        size = path.stat().st_size if path.exists() else 0
        if size != self._erased_bytes:
            # Whoever erases has closed the file that was appended to, and may write it anew.
            self.close()
            self._keyring.forget()
            self._erased = set(_digests(path.read_bytes()))
            self._erased_bytes = size

    def _write(self, digests: list[bytes], keys: list[bytes]) -> int:
        if self._file < 0 or self._used + len(keys) > self._slots:
            self._begin()
        first = self._used
        encrypted = _crypted(b"".join(keys), self._secret, slot=first)
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
            write_all(file, [_HEADER.pack(_MAGIC, number)])
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


class KeyReader:
    """Finds keys by their numbers, also while others are made and destroyed.

    Parameters
    ----------
    data : Path
        The data folder.

    """

    def __init__(self, data: Path) -> None:
        self._keyring = KeyRing(data)
        self._folder = self._keyring.folder
        self._ring: Ring | None = None
        self._open: dict[int, tuple[str, int]] = {}
        # Keys of one place are asked for one after the other: they are decrypted together.
        self._blocks: dict[tuple[int, str, int], tuple[bytes, bytes]] = {}

    def close(self) -> None:
        """Close every file."""
        for _, file in self._open.values():
            os.close(file)
        self._open.clear()
        self._blocks.clear()

    def refresh(self) -> None:
        """Take note of what was destroyed since; keys are never kept beyond the next one.

        Raises
        ------
        SealingKeyError
            When the ring cannot be opened.

        """
        ring = self._keyring.load()
        if ring is not self._ring:
            self._ring = ring
            self._blocks.clear()

    def find(self, numbers: Sequence[int]) -> list[bytes] | None:
        """Return the keys of these numbers; None when one of them is gone."""
        keys = []
        for number in numbers:
            key = self._key(number)
            if key is None:
                return None
            keys.append(key)
        return keys

    def has(self, number: int) -> bool:
        """Whether a key is there."""
        return self._key(number) is not None

    def _key(self, number: int) -> bytes | None:
        of, slot = number >> _SLOT_BITS, number & ((1 << _SLOT_BITS) - 1)
        if number == NEVER_KEPT:
            return None
        if self._ring is None or of not in self._ring.files:
            # Begun since the ring was read.
            self.refresh()
        if self._ring is None or of not in self._ring.files:
            return None
        file = self._ring.files[of]
        place = of, file.generation, slot // _BLOCK_SLOTS
        digests, keys = self._blocks.get(place) or self._block(of, file, place)
        at = slot % _BLOCK_SLOTS
        if (at + 1) * KEY_BYTES > len(keys):
            # Made since the block was read.
            digests, keys = self._block(of, self._ring.files[of], place)
        digest = digests[at * DIGEST_BYTES : (at + 1) * DIGEST_BYTES]
        key = keys[at * KEY_BYTES : (at + 1) * KEY_BYTES]
        return key if len(key) == KEY_BYTES and any(digest) else None

    def _block(self, of: int, file: KeyFile, place: tuple[int, str, int]) -> tuple[bytes, bytes]:
        descriptor = self._descriptor(of, file)
        if descriptor is None:
            # Written anew since the ring was read, or lost: then it is known as such.
            self._keyring.forget()
            self.refresh()
            newer = None if self._ring is None else self._ring.files.get(of)
            descriptor = None if newer is None else self._descriptor(of, newer)
            if newer is None or descriptor is None:
                log.error("a key file is missing", extra={"file": f"{of:010x}"})
                return b"", b""
            file, place = newer, (of, newer.generation, place[2])
        first = place[2] * _BLOCK_SLOTS
        offset = _HEADER.size + first * _SLOT_BYTES
        data = os.pread(descriptor, _BLOCK_SLOTS * _SLOT_BYTES, offset)
        starts = range(0, len(data) - _SLOT_BYTES + 1, _SLOT_BYTES)
        digests = b"".join([data[at : at + DIGEST_BYTES] for at in starts])
        keys = b"".join([data[at + DIGEST_BYTES : at + _SLOT_BYTES] for at in starts])
        block = digests, _crypted(keys, file.secret, slot=first)
        self._blocks[place] = block
        if len(self._blocks) > _MAX_BLOCKS:
            del self._blocks[next(iter(self._blocks))]
        return block

    def _descriptor(self, of: int, file: KeyFile) -> int | None:
        generation, descriptor = self._open.pop(of, ("", -1))
        if generation != file.generation:
            if descriptor >= 0:
                os.close(descriptor)
            try:
                descriptor = os.open(self._folder / key_file_name(of, file), os.O_RDONLY)
            except FileNotFoundError:
                return None
        self._open[of] = file.generation, descriptor
        if len(self._open) > _MAX_OPEN:
            _, oldest = self._open.pop(next(iter(self._open)))
            os.close(oldest)
        return descriptor


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
            known = _digests(path.read_bytes()) if path.exists() else []
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
            of << _SLOT_BITS | slot
            for of, file_of in sorted(ring.files.items())
            for slot, (digest, _) in enumerate(_slots(self._folder / key_file_name(of, file_of)))
            if digest in wanted
        ]

    def destroy(self, numbers: Collection[int]) -> None:
        """Write the files that hold these keys anew without them, and forget what opens the old."""
        self._sweep()
        gone: dict[int, set[int]] = {}
        for number in numbers:
            gone.setdefault(number >> _SLOT_BITS, set()).add(number & ((1 << _SLOT_BITS) - 1))
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
        slots = list(_slots(self._folder / key_file_name(of, file)))
        keys = _crypted(b"".join(key for _, key in slots), file.secret, slot=0)
        fresh = KeyFile.fresh()
        encrypted = _crypted(keys, fresh.secret, slot=0)
        parts = [_HEADER.pack(_MAGIC, of)]
        for slot, (digest, _) in enumerate(slots):
            begin = slot * KEY_BYTES
            kept = digest + encrypted[begin : begin + KEY_BYTES]
            parts.append(bytes(_SLOT_BYTES) if slot in gone else kept)
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


def _crypted(keys: bytes, secret: bytes, *, slot: int) -> bytes:
    """Encrypt or decrypt the keys of consecutive slots."""
    counter = (slot * _BLOCKS_A_KEY).to_bytes(16, "big")
    cipher = Cipher(algorithms.AES(secret), modes.CTR(counter)).encryptor()
    return cipher.update(keys) + cipher.finalize()


def _slots(path: Path) -> Iterator[tuple[bytes, bytes]]:
    data = path.read_bytes()
    if data[: len(_MAGIC)] != _MAGIC:
        raise SealingKeyError(f"keys/{path.name}: expected a key file, got other bytes")
    for at in range(_HEADER.size, len(data) - _SLOT_BYTES + 1, _SLOT_BYTES):
        yield data[at : at + DIGEST_BYTES], data[at + DIGEST_BYTES : at + _SLOT_BYTES]


def _digests(data: bytes) -> list[bytes]:
    whole = len(data) - len(data) % DIGEST_BYTES
    return [data[at : at + DIGEST_BYTES] for at in range(0, whole, DIGEST_BYTES)]


def _free_number(ring: Ring) -> int:
    # At random: a ring that was begun anew must not use a number of one that is lost.
    while (number := secrets.randbits(_FILE_BITS - 1)) in ring.files:
        pass
    return number
