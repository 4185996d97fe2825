"""Keys of sealed events are found by their numbers, by whoever reads the archive."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from sidelight.logger._key_ring import KeyFile, KeyRing, Ring, key_file_name
from sidelight.logger._key_slots import (
    DIGEST_BYTES,
    HEADER,
    NEVER_KEPT,
    SLOT_BITS,
    SLOT_BYTES,
    crypted,
)
from sidelight.logger._sealed_body import KEY_BYTES

log = logging.getLogger(__name__)

_MAX_OPEN: Final = 64
_BLOCK_SLOTS: Final = 256
_MAX_BLOCKS: Final = 16


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
        of, slot = number >> SLOT_BITS, number & ((1 << SLOT_BITS) - 1)
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
        offset = HEADER.size + first * SLOT_BYTES
        data = os.pread(descriptor, _BLOCK_SLOTS * SLOT_BYTES, offset)
        starts = range(0, len(data) - SLOT_BYTES + 1, SLOT_BYTES)
        digests = b"".join([data[at : at + DIGEST_BYTES] for at in starts])
        keys = b"".join([data[at + DIGEST_BYTES : at + SLOT_BYTES] for at in starts])
        block = digests, crypted(keys, file.secret, slot=first)
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
