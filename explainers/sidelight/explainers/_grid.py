"""One instance coded against a background, so that composites are matrices of small integers."""

import math
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sidelight.explainers._rows import Background, Columns
from sidelight.explainers.errors import RowError

Codes = NDArray[np.integer[Any]]

# A level's share in the size of a JSON row: quotes, comma and what escaping may add.
_SEPARATORS = 3
_NUMBER_BYTES = 20
# 2**53: from here on an integer may have no exact float.
_EXACT = 9007199254740992


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """One instance and a background as small integers: code 0 is the instance's own value.

    Composites of the two are matrices of codes; values exist only for rows that are sent.

    Attributes
    ----------
    levels : tuple of tuples, length n_features
        Distinct values of each feature, the instance's first.
    background : integer array, shape (n_rows, n_features)
        Codes of the distinct background rows.
    weights : float array, shape (n_rows,)
        Their shares; rows that are equal are one row with the sum of their weights.
    digests : tuple of arrays of 16-byte records, length n_features
        Of each level, equal for equal values in any grid.
    sizes : tuple of integer arrays
        Bytes that each level takes in a JSON request, at most.

    """

    levels: tuple[tuple[Any, ...], ...]
    background: Codes
    weights: NDArray[np.float64]
    digests: tuple[NDArray[np.void], ...]
    sizes: tuple[NDArray[np.int64], ...]

    @classmethod
    def of(cls, instance: Sequence[Any], background: Background) -> "Grid":
        """Code an instance and a background against each other."""
        columns = list(zip(instance, *background.rows, strict=True))
        coded = [_code(_unified(values)) for values in columns]
        n_levels = max(len(levels) for levels, _ in coded)
        codes = np.array([codes for _, codes in coded], dtype=_narrowest(n_levels)).T[1:]
        weights = np.asarray(background.weights, dtype=np.float64)
        used = np.flatnonzero(weights > 0)
        first, inverse = distinct(codes[used])
        shares = np.zeros(len(first))
        np.add.at(shares, inverse, weights[used])
        return cls(
            levels=tuple(levels for levels, _ in coded),
            background=np.ascontiguousarray(codes[used][first]),
            weights=shares,
            digests=tuple(_digests(levels) for levels, _ in coded),
            sizes=tuple(np.array([_size(value) for value in levels]) for levels, _ in coded),
        )

    @property
    def players(self) -> NDArray[np.intp]:
        """Features in which any background row differs from the instance, ascending."""
        return np.flatnonzero((self.background != 0).any(axis=0))

    def values(self, codes: Codes) -> Columns:
        """Values of coded rows by column, each of shape (n_rows,)."""
        return tuple(
            [levels[code] for code in codes[:, index].tolist()]
            for index, levels in enumerate(self.levels)
        )

    def row_digests(self, codes: Codes, key: bytes) -> list[bytes]:
        """Digest of each coded row, 16 bytes, equal for equal rows of any grid."""
        parts = [self.digests[index][codes[:, index]] for index in range(codes.shape[1])]
        joined = np.stack(parts, axis=1).tobytes()
        width = 16 * codes.shape[1]
        return [
            blake2b(joined[start : start + width], digest_size=16, key=key).digest()
            for start in range(0, len(joined), width)
        ]

    def row_bytes(self, codes: Codes) -> NDArray[np.int64]:
        """Bytes that each coded row takes in a JSON request, about; shape (n_rows,)."""
        total = np.zeros(len(codes), dtype=np.int64)
        for index, sizes in enumerate(self.sizes):
            total += sizes[codes[:, index]]
        return total


def distinct(codes: Codes) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return places of the first of each distinct row, ascending, and which one each row is.

    Rows are sorted by a 64-bit random hash (Zobrist), which is ten times faster than by their
    bytes; the outcome is checked, and a collision falls back to the bytes.
    """
    first, inverse = _unique(_hashes(codes))
    if not np.array_equal(codes[first][inverse], codes):
        packed = np.ascontiguousarray(codes)
        records = packed.view(np.dtype((np.void, packed.dtype.itemsize * packed.shape[1])))
        first, inverse = _unique(records.ravel())
    return first, inverse


def _unique(keys: NDArray[Any]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(order.size)
    return first[order], rank[inverse.reshape(-1)]


def _hashes(codes: Codes) -> NDArray[np.uint64]:
    n_levels = int(codes.max(initial=0)) + 1
    draws = np.random.default_rng(0x51DE).integers(
        0, 2**64, size=(codes.shape[1], n_levels), dtype=np.uint64
    )
    total = np.zeros(len(codes), dtype=np.uint64)
    for index in range(codes.shape[1]):
        total += draws[index][codes[:, index]]
    return total


def _unified(values: Sequence[Any]) -> Sequence[Any]:
    # JSON writes 1.0 as 1 at will; an instance from there must meet a float background.
    if not any(type(value) is float for value in values):
        return values
    return [float(v) if type(v) is int and abs(v) <= _EXACT else v for v in values]


def _code(values: Sequence[Any]) -> tuple[tuple[Any, ...], list[int]]:
    levels: dict[bytes, int] = {}
    kept: list[Any] = []
    codes = []
    for value in values:
        key = _identity(value)
        code = levels.setdefault(key, len(levels))
        if code == len(kept):
            kept.append(value)
        codes.append(code)
    return tuple(kept), codes


def _identity(value: Any) -> bytes:
    kind = type(value)
    if kind not in _IDENTITIES:
        raise RowError(
            "feature value",
            expected="a number, string, boolean, bytes, null or a list of these",
            got=kind.__name__,
        )
    return _IDENTITIES[kind](value)


def _of_float(value: float) -> bytes:
    # All NaN are one missing value, whatever their bits.
    return b"f" + struct.pack("<d", math.nan if math.isnan(value) else value)


def _of_tuple(value: Iterable[Any]) -> bytes:
    parts = [_identity(item) for item in value]
    return b"t" + b"".join(len(part).to_bytes(8, "little") + part for part in parts)


# Types are part of the identity: True and 1, or "1" and 1, may mean different things to a model.
_IDENTITIES: dict[type, Callable[[Any], bytes]] = {
    type(None): lambda _: b"n",
    bool: lambda value: b"b1" if value else b"b0",
    int: lambda value: b"i%d" % value,
    float: _of_float,
    str: lambda value: b"s" + value.encode("utf-8", "surrogatepass"),
    bytes: lambda value: b"y" + value,
    tuple: _of_tuple,
}


def _digests(levels: Sequence[Any]) -> NDArray[np.void]:
    joined = b"".join(blake2b(_identity(value), digest_size=16).digest() for value in levels)
    return np.frombuffer(joined, dtype="V16")


def _size(value: Any) -> int:
    if isinstance(value, str):
        return len(value.encode("utf-8", "surrogatepass")) + _SEPARATORS
    if isinstance(value, bytes):
        return len(value) * 4 // 3 + _SEPARATORS
    if isinstance(value, tuple):
        return sum(map(_size, value)) + _SEPARATORS
    return _NUMBER_BYTES


def _narrowest(n_levels: int) -> type[np.integer[Any]]:
    if n_levels <= 2**8:
        return np.uint8
    return np.uint16 if n_levels <= 2**16 else np.uint32
