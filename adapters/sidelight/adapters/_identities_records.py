"""Records of identities: 16 bytes of digest, 24 of value, in the order of the digests."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from sidelight.logger._journal import REMEMBERED_BYTES

DIGEST_BYTES: Final = 16
# A lookup reads one piece, a merge reads and writes them one after the other.
PIECE_RECORDS: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Records:
    """Records in the order of their digests.

    Parameters
    ----------
    digests : array of uint8, shape (n, 16)
        In this order.
    values : array of uint8, shape (n, 24)
        What is remembered of each.

    """

    digests: NDArray[np.uint8]
    values: NDArray[np.uint8]

    @classmethod
    def of(cls, remembered: Mapping[bytes, bytes]) -> Self:
        """Return the records of a mapping."""
        records = cls.read(b"".join(remembered), b"".join(remembered.values()))
        return records.taken(_order(records.digests)[0])

    @classmethod
    def read(cls, digests: bytes, values: bytes) -> Self:
        """Return what ``pieces`` gave, joined."""
        return cls(
            digests=np.frombuffer(digests, dtype=np.uint8).reshape(-1, DIGEST_BYTES),
            values=np.frombuffer(values, dtype=np.uint8).reshape(-1, REMEMBERED_BYTES),
        )

    @classmethod
    def merged(cls, parts: Sequence["Records"]) -> Self:
        """Return the records of several in one order; of one digest the value of the last part."""
        digests = np.concatenate([part.digests for part in parts])
        values = np.concatenate([part.values for part in parts])
        order, has_ties = _order(digests)
        if has_ties:
            ordered = digests[order]
            again = (ordered[1:] == ordered[:-1]).all(axis=1)
            order = order[~np.append(again, False)]
        return cls(digests=digests, values=values).taken(order)

    def taken(self, order: NDArray[np.intp]) -> Self:
        """Return those of these indices, in their order."""
        return replace(
            self, digests=self.digests.take(order, axis=0), values=self.values.take(order, axis=0)
        )

    def __len__(self) -> int:
        """Return how many they are."""
        return len(self.digests)

    @property
    def prefixes(self) -> NDArray[np.uint32]:
        """The first 32 bits of each digest, shape (n,)."""
        return prefixes_of(self.digests)

    def part(self, begin: int, end: int) -> Self:
        """Return some of them."""
        return replace(self, digests=self.digests[begin:end], values=self.values[begin:end])

    def pieces(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield digests and values of one row after the other."""
        for begin in range(0, len(self), PIECE_RECORDS):
            some = slice(begin, begin + PIECE_RECORDS)
            yield self.digests[some].tobytes(), self.values[some].tobytes()


def prefixes_of(digests: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """Return the first 32 bits of digests, shape (n,)."""
    return digests.view(">u4")[:, 0].astype(np.uint32)


def _order(digests: NDArray[np.uint8]) -> tuple[NDArray[np.intp], bool]:
    """Return the order of digests, older before newer, and whether equal ones may be among them."""
    words = digests.view(">u8").astype(np.uint64)
    first = np.ascontiguousarray(words[:, 0])
    # Stable is fast here: what comes are a few sorted runs.
    order = np.argsort(first, kind="stable")
    ordered = first[order]
    if not (ordered[1:] == ordered[:-1]).any():
        return order, False
    return np.lexsort((words[:, 1], first)), True
