"""Runs of identities: sorted records in rows of SQLite, and what memory keeps to find them.

A record is 16 bytes of digest and 24 of value. Digests are hashes, so their first 32 bits are
spread evenly: an array of these, 4 bytes a record, says where a digest would stand, and that it is
unknown without touching the disk but for one of ``2**32 / records`` of them.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from sidelight.adapters._identities_filter import PrefixFilter
from sidelight.adapters._identities_records import (
    DIGEST_BYTES,
    PIECE_RECORDS,
    Records,
    prefixes_of,
)
from sidelight.logger._journal import REMEMBERED_BYTES

ALL_PREFIXES: Final = 1 << 32
_PIECE_BITS: Final = 24


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
    begins = np.arange(len(pieces), dtype=np.int64) * PIECE_RECORDS + len(run)
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
    counts = np.searchsorted(run.prefixes, prefixes[hits], side="right") - begins
    # Nearly always one record for each; several when first 32 bits are the same.
    nth = np.arange(counts.sum()) - np.repeat(counts.cumsum() - counts, counts)
    records = np.repeat(begins, counts) + nth
    pieces = np.searchsorted(run.starts, records, side="right") - 1
    places = _place(run.number, run.first_piece) + pieces
    read, keys, values = -1, b"", b""
    for hit, place, at in zip(
        np.repeat(hits, counts).tolist(),
        places.tolist(),
        (records - run.starts[pieces]).tolist(),
        strict=True,
    ):
        if place != read:
            read = place
            keys, values = connection.execute(
                "SELECT digests, facts FROM identities WHERE place = ?", (place,)
            ).fetchone()
        if keys[at * DIGEST_BYTES : (at + 1) * DIGEST_BYTES] == digests[hit]:
            yield digests[hit], values[at * REMEMBERED_BYTES : (at + 1) * REMEMBERED_BYTES]


def _place(number: int, piece: int) -> int:
    return (number << _PIECE_BITS) + piece
