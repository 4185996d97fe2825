"""What one group remembers for ever: digests and small values, in runs that are merged by levels.

Each commit leaves one short run; eight of a level are merged into one of the next. A merge is done
in pieces, each inside a later commit, by the range of digests: what is below ``until`` is in the
run that it makes, the rest still in those that it is made of. So the rows of a record move in one
transaction, and a kill between two of them loses no work.
"""

import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final

import orjson

from sidelight.adapters._identities_records import DIGEST_BYTES, Records
from sidelight.adapters._identities_run import (
    ALL_PREFIXES,
    Run,
    append_records,
    find_records,
    read_run,
    take_records,
)
from sidelight.logger._journal import REMEMBERED_BYTES

Runs = tuple[Run, ...]

_RATIO: Final = 8
# A commit moves at most so many records, some 20 ms, and enough that merges keep up: on average
# each level has as much to do as comes, and levels are few where commits are long.
_MOVED: Final = 32768
_MOVED_A_RECORD: Final = 4


class Identities:
    """The memory of one group.

    ``write`` and ``accept`` are two steps: what a transaction wrote counts once it is committed.

    Parameters
    ----------
    connection : sqlite3.Connection
        Reads what was remembered so far.
    group : str
        Whose memory it is.

    """

    def __init__(self, connection: sqlite3.Connection, group: str) -> None:
        self._group = group
        row = connection.execute(
            "SELECT runs FROM identity_runs WHERE consumer = ?", (group,)
        ).fetchone()
        found = [
            read_run(connection, number, level=level, into=into, until=until)
            for number, level, into, until in orjson.loads(row[0] if row else b"[]")
        ]
        made = {run.number: run.until for run in found if not run.is_whole}
        runs = [run.without_below(made[run.into]) if run.into else run for run in found]
        left = {number: sum(len(run) for run in runs if run.into == number) for number in made}
        self._runs: Runs = tuple(
            run if run.is_whole else run.with_room(left[run.number]) for run in runs
        )

    @property
    def runs(self) -> Runs:
        """The runs, oldest first."""
        return self._runs

    def find(self, connection: sqlite3.Connection, digests: Iterable[bytes]) -> dict[bytes, bytes]:
        """Return the values of those that are known."""
        keys = list(digests)
        if not keys or not self._runs:
            return {}
        prefixes = Records.read(b"".join(keys), b"").prefixes
        found: dict[bytes, bytes] = {}
        for run in self._runs:
            # From the oldest to the newest, which wins.
            found.update(find_records(connection, run, keys, prefixes))
        return found

    def write(self, connection: sqlite3.Connection, remembered: Mapping[bytes, bytes]) -> Runs:
        """Write what is new inside a transaction, and go on with merges; return what will be."""
        _check(remembered)
        records = Records.of(remembered)
        added = Run.new(_next_number(connection), n_room=len(remembered))
        runs = (*self._runs, append_records(connection, added, records))
        left = _MOVED + _MOVED_A_RECORD * len(remembered)
        while left > 0 and (merge := _lowest_merge(connection, runs)) is not None:
            runs, moved = _go_on(connection, *merge, left)
            left -= moved
        text = orjson.dumps([(run.number, run.level, run.into, run.until) for run in runs])
        connection.execute(
            "INSERT OR REPLACE INTO identity_runs VALUES (?, ?)", (self._group, text)
        )
        return runs

    def accept(self, runs: Runs) -> None:
        """Go on from what ``write`` returned: it is committed."""
        self._runs = runs


def _check(remembered: Mapping[bytes, bytes]) -> None:
    found = set(map(len, remembered)), set(map(len, remembered.values()))
    if found != ({DIGEST_BYTES}, {REMEMBERED_BYTES}):
        raise ValueError(
            f"remembered: expected digests of {DIGEST_BYTES} bytes and values of "
            f"{REMEMBERED_BYTES}, got {sorted(found[0])} and {sorted(found[1])}"
        )


def _lowest_merge(connection: sqlite3.Connection, runs: Runs) -> tuple[Runs, int] | None:
    """Return the runs and the number of the one to be made next; None when no merge is due."""
    levels = [run.level for run in runs if run.is_whole and not run.into]
    due = [level + 1 for level in sorted(set(levels)) if levels.count(level) >= _RATIO]
    under_way = sorted((run.level, run.number) for run in runs if not run.is_whole)
    if under_way and under_way[0][0] <= min(due, default=under_way[0][0]):
        return runs, under_way[0][1]
    return _begun(connection, runs, due[0]) if due else None


def _begun(connection: sqlite3.Connection, runs: Runs, level: int) -> tuple[Runs, int]:
    """Begin to merge the oldest runs of the level below; what they become stands before them."""
    free = [run for run in runs if run.level == level - 1 and run.is_whole and not run.into]
    parts = {run.number: run for run in free[:_RATIO]}
    number = _next_number(connection)
    made = Run.new(number, level=level, n_room=sum(map(len, parts.values())), until=0)
    at = runs.index(free[0])
    behind = (replace(run, into=number) if run.number in parts else run for run in runs[at:])
    return (*runs[:at], made, *behind), number


def _go_on(
    connection: sqlite3.Connection, runs: Runs, number: int, n_records: int
) -> tuple[Runs, int]:
    """Move about so many records into the run of that number; return how many it were."""
    (made,) = (run for run in runs if run.number == number)
    parts = [run for run in runs if run.into == number]
    n_left = sum(map(len, parts))
    until = ALL_PREFIXES
    if n_left > n_records:
        # Prefixes are spread evenly.
        until = made.until + max(1, (ALL_PREFIXES - made.until) * n_records // n_left)
    taken = [take_records(connection, run, until) for run in parts]
    records = Records.merged([some for some, _ in taken])
    changed = {run.number: run for _, run in taken}
    changed[number] = replace(append_records(connection, made, records), until=until)
    moved = sum(len(some) for some, _ in taken)
    is_over = until == ALL_PREFIXES
    return tuple(
        changed.get(run.number, run) for run in runs if not (is_over and run.into == number)
    ), moved


def _next_number(connection: sqlite3.Connection) -> int:
    (number,) = connection.execute("SELECT value FROM meta WHERE name = 'runs'").fetchone()
    connection.execute("UPDATE meta SET value = ? WHERE name = 'runs'", (number + 1,))
    return int(number)
