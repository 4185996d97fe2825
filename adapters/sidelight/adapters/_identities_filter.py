"""A filter of prefixes: most of what is not in a run need not be searched in it."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

_PREFIX_BITS: Final = 32
_RANGES_A_RECORD: Final = 8
_MASKS: Final = np.left_shift(1, np.arange(8)).astype(np.uint8)
_THREE: Final = np.uint32(3)
_SEVEN: Final = np.uint32(7)


class PrefixFilter:
    """A bit for each of the ranges that prefixes are divided into; 8 to 16 ranges a record.

    Parameters
    ----------
    n_records : int
        For how many it is made.

    """

    __slots__ = ("_bits", "_shift")

    def __init__(self, n_records: int) -> None:
        n_bits = min(max(n_records * _RANGES_A_RECORD - 1, 7).bit_length(), _PREFIX_BITS)
        self._shift = np.uint32(_PREFIX_BITS - n_bits)
        self._bits = np.zeros(1 << (n_bits - 3), dtype=np.uint8)

    def add(self, prefixes: NDArray[np.uint32]) -> None:
        """Mark their ranges; marking one that a transaction did not keep does no harm."""
        ranges = prefixes >> self._shift
        np.bitwise_or.at(self._bits, ranges >> _THREE, _MASKS[ranges & _SEVEN])

    def passing(self, prefixes: NDArray[np.uint32]) -> NDArray[np.intp]:
        """Return the indices of those whose range is marked."""
        ranges = prefixes >> self._shift
        return np.flatnonzero(self._bits[ranges >> _THREE] & _MASKS[ranges & _SEVEN])
