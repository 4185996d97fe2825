"""Runs of identities: sorted records in rows of SQLite, and what memory keeps to find them.

A record is 16 bytes of digest and 24 of value. Digests are hashes, so their first 32 bits are
spread evenly: an array of these, 4 bytes a record, says where a digest would stand, and that it is
unknown without touching the disk but for one of ``2**32 / records`` of them.
"""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from sidelight.logger._journal import REMEMBERED_BYTES

DIGEST_BYTES: Final = 16
ALL_PREFIXES: Final = 1 << 32
# A lookup reads one piece, a merge reads and writes them one after the other.
_PIECE_RECORDS: Final = 256
_PIECE_BITS: Final = 24
_PREFIX_BITS: Final = 32
_RANGES_A_RECORD: Final = 8
_MASKS: Final = np.left_shift(1, np.arange(8)).astype(np.uint8)
_THREE: Final = np.uint32(3)
_SEVEN: Final = np.uint32(7)


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
        for begin in range(0, len(self), _PIECE_RECORDS):
            some = slice(begin, begin + _PIECE_RECORDS)
            yield self.digests[some].tobytes(), self.values[some].tobytes()


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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Run:
    """One run; a value, so that a transaction that fails leaves the one before.

    Parameters
    ----------
    number : int
        Of its rows.
    level : int
        How many merges made it.
    into : int
        Number of the run that it is being merged into; 0 when it is not.
    until : int
        While it is made by a merge: prefixes below are in it. ``ALL_PREFIXES`` when it is whole.
    prefixes : array of uint32, shape (n,)
        Of the records that have not moved into another run.
    first_piece : int
        Number of the first row that is there.
    starts : array of int64, shape (pieces,)
        Index of the first record of each row, in ``prefixes``; the first may be below 0.
    room : array of uint32
        What ``prefixes`` is the beginning of; holds all that will come.
    filter : PrefixFilter
        Spares the search of most prefixes that are not in the run.

    """

    number: int
    level: int = 0
    into: int = 0
    until: int = ALL_PREFIXES
    prefixes: NDArray[np.uint32]
    first_piece: int = 0
    starts: NDArray[np.int64]
    room: NDArray[np.uint32]
    filter: PrefixFilter

    @classmethod
    def new(
        cls, number: int, *, level: int = 0, n_room: int = 0, until: int = ALL_PREFIXES
    ) -> Self:
        """Return one without records, with room for some."""
        room = np.empty(n_room, dtype=np.uint32)
        return cls(
            number=number,
            level=level,
            until=until,
            prefixes=room[:0],
            starts=np.empty(0, dtype=np.int64),
            room=room,
            filter=PrefixFilter(n_room),
        )

    @property
    def is_whole(self) -> bool:
        """Whether no merge is making it."""
        return self.until == ALL_PREFIXES

    def __len__(self) -> int:
        """Return how many records have not moved into another run."""
        return len(self.prefixes)

    def below(self, until: int) -> int:
        """Return how many of its records have a prefix below."""
        if until >= ALL_PREFIXES:
            return len(self)
        return int(np.searchsorted(self.prefixes, np.uint32(until)))

    def with_room(self, n_more: int) -> Self:
        """Return the same with room for more records."""
        room = np.empty(len(self) + n_more, dtype=np.uint32)
        room[: len(self)] = self.prefixes
        bits = PrefixFilter(len(room))
        bits.add(self.prefixes)
        return replace(self, room=room, prefixes=room[: len(self)], filter=bits)

    def without_below(self, until: int) -> Self:
        """Return what is left when the records below a prefix are in another run."""
        moved = self.below(until)
        ends = np.append(self.starts[1:], len(self))
        gone = int(np.searchsorted(ends, moved, side="right"))
        return replace(
            self,
            prefixes=self.prefixes[moved:],
            first_piece=self.first_piece + gone,
            starts=self.starts[gone:] - moved,
        )


def prefixes_of(digests: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """Return the first 32 bits of digests, shape (n,)."""
    return digests.view(">u4")[:, 0].astype(np.uint32)


def read_run(
    connection: sqlite3.Connection, number: int, *, level: int, into: int, until: int
) -> Run:
    """Read what memory keeps of a run that is on the disk."""
    found = connection.execute(
        "SELECT place, digests FROM identities WHERE place >= ? AND place < ? ORDER BY place",
        (_place(number, 0), _place(number + 1, 0)),
    )
    first_piece = 0
    prefixes: list[NDArray[np.uint32]] = []
    for place, digests in found:
        if not prefixes:
            first_piece = place - _place(number, 0)
        prefixes.append(prefixes_of(Records.read(digests, b"").digests))
    lengths = np.array([0, *map(len, prefixes)], dtype=np.int64)
    room = np.concatenate([np.empty(0, dtype=np.uint32), *prefixes])
    bits = PrefixFilter(len(room))
    bits.add(room)
    return Run(
        number=number,
        level=level,
        into=into,
        until=until,
        prefixes=room,
        first_piece=first_piece,
        starts=np.cumsum(lengths)[:-1],
        room=room,
        filter=bits,
    )


def append_records(connection: sqlite3.Connection, run: Run, records: Records) -> Run:
    """Write records behind those of a run that has room for them."""
    pieces = list(records.pieces())
    place = _place(run.number, run.first_piece + len(run.starts))
    connection.executemany(
        "INSERT INTO identities VALUES (?, ?, ?)",
        [(place + index, *piece) for index, piece in enumerate(pieces)],
    )
    end = len(run) + len(records)
    run.room[len(run) : end] = records.prefixes
    run.filter.add(records.prefixes)
    begins = np.arange(len(pieces), dtype=np.int64) * _PIECE_RECORDS + len(run)
    return replace(run, prefixes=run.room[:end], starts=np.concatenate([run.starts, begins]))


def take_records(connection: sqlite3.Connection, run: Run, until: int) -> tuple[Records, Run]:
    """Return the records below a prefix, and the run without them; rows that are over go."""
    count = run.below(until)
    left = run.without_below(until)
    last = int(np.searchsorted(run.starts, count, side="left"))
    place = _place(run.number, run.first_piece)
    rows = connection.execute(
        "SELECT digests, facts FROM identities WHERE place >= ? AND place < ? ORDER BY place",
        (place, place + last),
    ).fetchall()
    connection.execute(
        "DELETE FROM identities WHERE place >= ? AND place < ?",
        (place, _place(left.number, left.first_piece)),
    )
    whole = Records.read(
        b"".join(digests for digests, _ in rows), b"".join(values for _, values in rows)
    )
    begin = -int(run.starts[0]) if len(run.starts) else 0
    return whole.part(begin, begin + count), left


def find_records(
    connection: sqlite3.Connection,
    run: Run,
    digests: Sequence[bytes],
    prefixes: NDArray[np.uint32],
) -> Iterator[tuple[bytes, bytes]]:
    """Yield digest and value of those that are in a run."""
    hits = run.filter.passing(prefixes)
    if not (len(hits) and len(run)):
        return
    begins = np.searchsorted(run.prefixes, prefixes[hits])
    hits = hits[run.prefixes.take(begins, mode="clip") == prefixes[hits]]
    # In order, so that each row is read once.
    hits = hits[prefixes[hits].argsort()]
    begins = np.searchsorted(run.prefixes, prefixes[hits])
    ends = np.searchsorted(run.prefixes, prefixes[hits], side="right")
    place = _place(run.number, run.first_piece)
    read, keys, values = -1, b"", b""
    for hit, begin, end in zip(hits.tolist(), begins.tolist(), ends.tolist(), strict=True):
        for record in range(begin, end):
            piece = int(np.searchsorted(run.starts, record, side="right")) - 1
            if piece != read:
                read = piece
                keys, values = connection.execute(
                    "SELECT digests, facts FROM identities WHERE place = ?", (place + piece,)
                ).fetchone()
            at = record - int(run.starts[piece])
            if keys[at * DIGEST_BYTES : (at + 1) * DIGEST_BYTES] == digests[hit]:
                yield digests[hit], values[at * REMEMBERED_BYTES : (at + 1) * REMEMBERED_BYTES]


def _place(number: int, piece: int) -> int:
    return (number << _PIECE_BITS) + piece


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
