"""The embedded engine: segments for what arrives, one SQLite database for what is made of it."""

import logging
import sqlite3
from collections.abc import Collection, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from sidelight.adapters._embedded_documents import EmbeddedDocuments, add_counters, put_documents
from sidelight.adapters._identities import Identities, Runs
from sidelight.adapters._sqlite import BUSY_S, Database
from sidelight.logger._journal import BatchRecord, Commit, EventRecord, JournalName, Slice
from sidelight.logger._segments import SegmentReader
from sidelight.logger._segments_folder import FolderLock, open_folder
from sidelight.logger.errors import JournalDamaged, JournalError
from sidelight.payloads import Batch, RawRef

__all__ = ["EmbeddedDocuments", "EmbeddedJournals"]

log = logging.getLogger(__name__)

ROLES: Final = ("state", "detection")
_PARTITION: Final = 0
_KEYS_A_STATEMENT: Final = 500
_SCAN_ROWS: Final = 1000
# A commit of a hundred deployments changes some 1,500 pages; 2 MiB of cache write many twice.
_CACHE_KIB: Final = 64 << 10
# Consumed records are deleted this many at a time, inside a commit that is under way anyway; long
# ones earlier, so that their room is used again.
_DELETE_RECORDS: Final = 64
_DELETE_BYTES: Final = 8 << 20


class EmbeddedJournals:
    """The ``Journals`` of a data folder; one thread uses them, and one process commits for a group.

    Nothing that a commit changes is kept in memory, but what the group itself remembers: other
    processes may hold other roles of the folder and commit for other groups.

    Parameters
    ----------
    data : Path
        The data folder; made when missing.
    groups : collection of str, default empty
        Who reads ``inferences``: a record is deleted after all of them have passed it. Without
        any, records are kept.
    roles : collection of str, default ("state", "detection")
        What this process does with the folder, and no other may do meanwhile: all of it.
    busy_s : float, default 30
        How long a commit waits for those of others before it is given up, in seconds.

    Attributes
    ----------
    damaged_records : int
        Records of ``events`` that were passed over since the start, because their bytes are not
        what was written.

    Raises
    ------
    FolderInUse, FolderTooNew, JournalDamaged, JournalFull, JournalError
        When the folder cannot be had.

    """

    def __init__(
        self,
        data: Path,
        groups: Collection[str] = (),
        *,
        roles: Collection[str] = ROLES,
        busy_s: float = BUSY_S,
    ) -> None:
        open_folder(data)
        self._groups = frozenset(groups)
        with ExitStack() as locks:
            for role in roles:
                locks.callback(FolderLock(data, role).close)
            self._database = Database(data, cache_kib=_CACHE_KIB, busy_s=busy_s)
            self._locks = locks.pop_all()
        self._reader = SegmentReader(data)
        self.damaged_records = 0
        self._passed: dict[int, int] = {}
        self._identities: dict[str, Identities] = {}
        self._appended_bytes = 0

    def close(self) -> None:
        """Close files and let the folder go."""
        self._reader.close()
        self._database.close()
        self._locks.close()

    def read_events(
        self, group: str, *, max_records: int, max_bytes: int
    ) -> list[Slice[EventRecord]]:
        """Return durable records from the group's position on, without moving it; maybe none.

        Records whose bytes are not what was written are passed over, logged and counted: one
        damaged place must not stop everything behind it.
        """
        position = self.positions(group, "events").get(_PARTITION, 0)
        end = self._reader.end()
        while position < end:
            try:
                records = self._reader.read(position, max_records=max_records, max_bytes=max_bytes)
            except JournalDamaged:
                position = self._passed_over(position)
                continue
            if not records:
                break
            first, last = records[0].position, records[-1].position
            return [Slice(_PARTITION, first, last, records)]
        return []

    def read_inferences(
        self, group: str, *, max_records: int, max_bytes: int
    ) -> list[Slice[BatchRecord]]:
        """Return committed records from the group's position on, without moving it; maybe none.

        Bytes are counted as the rows take them in memory: a batch of zeros is short on the disk.
        """
        position = self.positions(group, "inferences").get(_PARTITION, 0)
        records: list[BatchRecord] = []
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT held_bytes, position, topic, key, payload FROM inferences "
                "WHERE position >= ? ORDER BY position LIMIT ?",
                (position, max_records),
            )
            for held_bytes, *row in rows:
                max_bytes -= held_bytes
                if records and max_bytes < 0:
                    break
                records.append(BatchRecord(_PARTITION, *row))
            rows.close()
        if not records:
            return []
        return [Slice(_PARTITION, records[0].position, records[-1].position, records)]

    def event(self, ref: RawRef) -> EventRecord | None:
        """Return the record that holds one event, or None when the archive has it no more.

        Raises
        ------
        JournalDamaged
            When its bytes are not what was written.

        """
        return self._reader.record(ref.position) if ref.partition == _PARTITION else None

    def state(self, group: str, keys: Iterable[bytes]) -> dict[bytes, bytes]:
        """Return the committed values of those keys that exist."""
        found: dict[bytes, bytes] = {}
        with self._database.read() as connection:
            wanted = list(keys)
            for begin in range(0, len(wanted), _KEYS_A_STATEMENT):
                some = wanted[begin : begin + _KEYS_A_STATEMENT]
                marks = ",".join("?" * len(some))
                found.update(
                    connection.execute(
                        # Only question marks are put into the text.
                        f"SELECT key, value FROM state WHERE consumer = ? AND key IN ({marks})",  # noqa: S608
                        (group, *some),
                    )
                )
        return found

    def remembered(self, group: str, digests: Iterable[bytes]) -> dict[bytes, bytes]:
        """Return what is remembered of those that are known; ask once for thousands."""
        with self._database.read() as connection:
            return self._identities_of(connection, group).find(connection, digests)

    def scan(self, group: str, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield the committed keys that begin with ``prefix``, in order."""
        key, compare = prefix, ">="
        while True:
            with self._database.read() as connection:
                rows = connection.execute(
                    f"SELECT key, value FROM state WHERE consumer = ? AND key {compare} ? "  # noqa: S608 - a constant
                    "ORDER BY key LIMIT ?",
                    (group, key, _SCAN_ROWS),
                ).fetchall()
            for key, value in rows:
                if not key.startswith(prefix):
                    return
                yield key, value
            if len(rows) < _SCAN_ROWS:
                return
            compare = ">"

    def positions(self, group: str, journal: JournalName) -> dict[int, int]:
        """Return the group's committed positions; a partition never read is missing."""
        with self._database.read() as connection:
            return _positions(connection, group, journal)

    def ends(self, journal: JournalName) -> dict[int, int]:
        """Return the next position to be written, by partition: ``ends - positions`` is the lag."""
        if journal == "events":
            return {_PARTITION: self._reader.end()}
        with self._database.read() as connection:
            return {_PARTITION: _inferences_end(connection)}

    def waiting_bytes(self, group: str) -> int:
        """Return what the ``inferences`` that a group has not passed yet take in memory."""
        with self._database.read() as connection:
            position = _positions(connection, group, "inferences").get(_PARTITION, 0)
            # The numbers stand before the payloads, which are not read.
            (size,) = connection.execute(
                "SELECT total(held_bytes) FROM inferences WHERE position >= ?", (position,)
            ).fetchone()
        return int(size)

    def commit(self, commit: Commit) -> None:
        """Make one step durable, all of it or nothing; ``JournalError`` means nothing."""
        written: Runs | None = None
        with self._database.write(erase=commit.erase) as connection:
            _move(connection, commit)
            _set_state(connection, commit)
            if commit.remembered:
                identities = self._identities_of(connection, commit.group)
                written = identities.write(connection, commit.remembered)
            _append(connection, commit)
            put_documents(connection, commit.documents)
            add_counters(connection, commit.counters)
            if commit.erase:
                self._delete_consumed(connection, at_least=1)
            elif commit.journal == "inferences" and commit.positions:
                is_much = self._appended_bytes >= _DELETE_BYTES
                self._delete_consumed(connection, at_least=1 if is_much else _DELETE_RECORDS)
        if written is not None:
            identities.accept(written)
        self._appended_bytes += sum(len(payload) for _, _, payload in commit.appended)

    def _identities_of(self, connection: sqlite3.Connection, group: str) -> Identities:
        if group not in self._identities:
            self._identities[group] = Identities(connection, group)
        return self._identities[group]

    def _passed_over(self, position: int) -> int:
        if position in self._passed:
            return self._passed[position]
        goes_on = self._passed[position] = self._reader.skip(position)
        self.damaged_records += goes_on - position
        log.error("damaged records are passed over", extra={"first": position, "next": goes_on})
        return goes_on

    def _delete_consumed(self, connection: sqlite3.Connection, *, at_least: int) -> None:
        if not self._groups:
            return
        passed = min(
            _positions(connection, group, "inferences").get(_PARTITION, 0) for group in self._groups
        )
        (oldest,) = connection.execute("SELECT min(position) FROM inferences").fetchone()
        if oldest is not None and passed - oldest >= at_least:
            connection.execute("DELETE FROM inferences WHERE position < ?", (passed,))
            self._appended_bytes = 0


def _positions(connection: sqlite3.Connection, group: str, journal: str) -> dict[int, int]:
    return dict(
        connection.execute(
            "SELECT partition, position FROM positions WHERE consumer = ? AND journal = ?",
            (group, journal),
        ).fetchall()
    )


def _inferences_end(connection: sqlite3.Connection) -> int:
    (end,) = connection.execute("SELECT value FROM meta WHERE name = 'inferences_end'").fetchone()
    return int(end)


def _move(connection: sqlite3.Connection, commit: Commit) -> None:
    before = _positions(connection, commit.group, commit.journal)
    for partition, position in commit.positions.items():
        if position < before.get(partition, 0):
            raise JournalError(
                f"commit of {commit.group}: expected a position of {commit.journal} from "
                f"{before.get(partition, 0)} on, got {position}; read from the committed "
                "position again"
            )
    connection.executemany(
        "INSERT OR REPLACE INTO positions VALUES (?, ?, ?, ?)",
        [(commit.group, commit.journal, *moved) for moved in commit.positions.items()],
    )


def _set_state(connection: sqlite3.Connection, commit: Commit) -> None:
    changed = [(commit.group, key, of) for key, of in commit.state.items() if of is not None]
    deleted = [(commit.group, key) for key, of in commit.state.items() if of is None]
    connection.executemany("INSERT OR REPLACE INTO state VALUES (?, ?, ?)", changed)
    connection.executemany("DELETE FROM state WHERE consumer = ? AND key = ?", deleted)


def _append(connection: sqlite3.Connection, commit: Commit) -> None:
    if not commit.appended:
        return
    end = _inferences_end(connection)
    # Positions are never used again, although consumed records are deleted.
    connection.executemany(
        "INSERT INTO inferences VALUES (?, ?, ?, ?, ?)",
        [
            (end + index, topic, key, Batch.held_bytes_of(payload), payload)
            for index, (topic, key, payload) in enumerate(commit.appended)
        ],
    )
    connection.execute(
        "UPDATE meta SET value = ? WHERE name = 'inferences_end'", (end + len(commit.appended),)
    )
