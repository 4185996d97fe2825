"""Where the spool's reader stands, kept so that a kill at any moment leaves a true answer."""

import os
import struct
import zlib
from pathlib import Path
from typing import Final

_SLOT: Final = struct.Struct("<QI")
_SLOT_BYTES: Final = 16
_N_SLOTS: Final = 2


class SpoolPosition:
    """A number in a file of two slots that are written in turn: one is always whole.

    Parameters
    ----------
    path : Path
        The file; made when it is missing.

    Attributes
    ----------
    number : int or None
        Records before it are done with; None when the file says nothing.

    Raises
    ------
    OSError
        When the file cannot be opened.

    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        slots = [
            _number(os.pread(self._file, _SLOT.size, slot * _SLOT_BYTES))
            for slot in range(_N_SLOTS)
        ]
        known = [number for number in slots if number is not None]
        self.number: int | None = max(known, default=None)
        # The next write goes over the older slot.
        self._next_slot = 0 if slots[0] is None or slots[0] != self.number else 1

    def move(self, number: int) -> None:
        """Set the number; a kill does not lose it, a loss of power may."""
        text = _SLOT.pack(number, zlib.crc32(b"%d" % number))
        os.pwrite(self._file, text, self._next_slot * _SLOT_BYTES)
        self._next_slot = (self._next_slot + 1) % _N_SLOTS
        self.number = number

    def settle(self, number: int) -> None:
        """Set the number in both slots, durably: what lies before it may be deleted."""
        for _ in range(_N_SLOTS):
            self.move(number)
        os.fdatasync(self._file)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def _number(slot: bytes) -> int | None:
    if len(slot) != _SLOT.size:
        return None
    number, check = _SLOT.unpack(slot)
    return int(number) if zlib.crc32(b"%d" % number) == check else None
