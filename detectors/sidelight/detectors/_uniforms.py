"""Uniform numbers that depend on a name and a row only.

A generator with state would give other numbers after a restart or in another order; a hash of the
row number cannot.
"""

import hashlib

import numpy as np
from numpy.typing import NDArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def seed_of(*names: str) -> int:
    """64-bit seed of a sequence of names."""
    text = "\0".join(names).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def uniforms(seeds: NDArray[np.uint64], first_row: int, n_rows: int) -> NDArray[np.float64]:
    """Numbers in [0, 1), shape (n_rows, n_seeds), of rows ``first_row, first_row + 1, ...``.

    References
    ----------
    G. L. Steele, D. Lea, C. H. Flood, *Fast splittable pseudorandom number generators*, OOPSLA
    2014 (SplitMix64, with the row as its counter).

    """
    rows = np.arange(first_row + 1, first_row + 1 + n_rows, dtype=np.uint64)
    z = seeds[np.newaxis, :] + rows[:, np.newaxis] * _GOLDEN
    shifted = z >> np.uint64(30)
    z ^= shifted
    z *= _MIX_1
    z ^= np.right_shift(z, np.uint64(27), out=shifted)
    z *= _MIX_2
    z ^= np.right_shift(z, np.uint64(31), out=shifted)
    z >>= np.uint64(11)
    return np.asarray(z * 2.0**-53, dtype=np.float64)
