"""The database of the embedded engine: its tables, its connections, its errors."""

import fcntl
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, LifoQueue
from typing import Final

from sidelight.logger.errors import FolderTooNew, JournalDamaged, JournalError, JournalFull
from sidelight.payloads import Batch

# Since 2 identities are kept in tables of their own, since 3 batches stand there with what they
# take in memory; an older database gets both when it is opened.
STATE_VERSION: Final = 3
_WITH_HELD_BYTES: Final = 3
BUSY_S: Final = 30.0
# A folder keeps what it began with. Batches of a megabyte take two thirds of the time that they
# take in pages of 4 KiB, and many small changes no more.
_PAGE_BYTES: Final = 16 << 10
# What a checkpoint leaves of the write-ahead log; a burst must not keep its room for ever.
_WAL_BYTES: Final = 64 << 20

_TABLES: Final = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS positions (
    consumer TEXT, journal TEXT, partition INTEGER, position INTEGER NOT NULL,
    PRIMARY KEY (consumer, journal, partition)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS state (
    consumer TEXT, key BLOB, value BLOB NOT NULL, PRIMARY KEY (consumer, key)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS inferences (
    position INTEGER PRIMARY KEY, topic TEXT NOT NULL, key TEXT NOT NULL,
    held_bytes INTEGER NOT NULL, payload BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS documents (
    collection TEXT, key TEXT, deployment TEXT NOT NULL, ord TEXT NOT NULL, value TEXT NOT NULL,
    PRIMARY KEY (collection, key));
CREATE INDEX IF NOT EXISTS documents_of_deployment
    ON documents (collection, deployment, ord, key);
CREATE INDEX IF NOT EXISTS documents_in_order ON documents (collection, ord, key);
CREATE TABLE IF NOT EXISTS counters (
    name TEXT, labels TEXT, value REAL NOT NULL, PRIMARY KEY (name, labels)) WITHOUT ROWID;
INSERT OR IGNORE INTO meta VALUES ('inferences_end', 0);
"""
_NEW_TABLES: Final = """
CREATE TABLE IF NOT EXISTS identity_runs (
    consumer TEXT PRIMARY KEY, runs BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS identities (
    place INTEGER PRIMARY KEY, digests BLOB NOT NULL, facts BLOB NOT NULL);
INSERT OR IGNORE INTO meta VALUES ('runs', 1);
INSERT OR REPLACE INTO meta VALUES ('format', 3);
"""

_FULL: Final = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR})
_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_PRIMARY_CODE: Final = 0xFF


class Database:
    """Connections to ``state.db``, one a thread at a time.

    Parameters
    ----------
    data : Path
        The data folder; the database is made when it is missing.
    cache_kib : int, default 2048
        Pages that each connection keeps. A transaction that changes more writes pages twice.
    busy_s : float, default 30
        How long a transaction waits for others before it is given up, in seconds.

    Raises
    ------
    FolderTooNew
        When a newer version made the database.
    JournalDamaged, JournalError, JournalFull
        When it cannot be opened.

    """

    def __init__(self, data: Path, *, cache_kib: int = 2048, busy_s: float = BUSY_S) -> None:
        self._cache_kib = cache_kib
        self._busy_s = busy_s
        self._path = data / "state.db"
        self._idle: LifoQueue[sqlite3.Connection] = LifoQueue()
        self._closed = False
        # Two processes that start together must not both turn a new file into a WAL database.
        with (data / "run" / "lock-tables").open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                with self.read() as connection:
                    _make_tables(connection)
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        """Close every connection that nobody uses; the others when they are given back."""
        self._closed = True
        while True:
            try:
                self._idle.get_nowait().close()
            except Empty:
                return

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """Give a connection; what went wrong on it becomes an error of the journal."""
        try:
            connection = self._idle.get_nowait()
        except Empty:
            with _translated():
                connection = self._connect()
        try:
            with _translated():
                yield connection
        finally:
            if self._closed:
                connection.close()
            else:
                self._idle.put(connection)

    @contextmanager
    def write(self, *, erase: bool = False) -> Iterator[sqlite3.Connection]:
        """Give a connection inside a transaction: durable when the block ends, or nothing is.

        With ``erase`` what is deleted is overwritten as well; otherwise its bytes stay in the file
        until something else needs their room.
        """
        with self.read() as connection:
            connection.execute(f"PRAGMA secure_delete = {'ON' if erase else 'OFF'}")
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                # After some errors SQLite has rolled back by itself.
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path, timeout=self._busy_s, isolation_level=None, check_same_thread=False
        )
        try:
            connection.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute(f"PRAGMA journal_size_limit = {_WAL_BYTES}")
            connection.execute(f"PRAGMA cache_size = -{self._cache_kib}")
        except BaseException:
            connection.close()
            raise
        return connection


def _make_tables(connection: sqlite3.Connection) -> None:
    version = 0
    if connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'meta'").fetchone():
        (version,) = connection.execute("SELECT value FROM meta WHERE name = 'format'").fetchone()
    if version > STATE_VERSION:
        raise FolderTooNew(
            f"state.db: expected format version {STATE_VERSION} or older, got {version}; "
            "upgrade Sidelight or name another folder"
        )
    if version == STATE_VERSION:
        return
    # What is erased later must not be left where it stood before.
    connection.execute("PRAGMA secure_delete = ON")
    is_former = 0 < version < _WITH_HELD_BYTES
    set_aside = "ALTER TABLE inferences RENAME TO former_inferences;" if is_former else ""
    try:
        connection.executescript(f"BEGIN IMMEDIATE; {set_aside} {_TABLES} {_NEW_TABLES}")
        if is_former:
            _take_over(connection)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _take_over(connection: sqlite3.Connection) -> None:
    """Take batches over from a table that does not say what they take in memory.

    One at a time: what waits may be long.
    """
    rows = connection.execute(
        "SELECT position, topic, key, payload FROM former_inferences ORDER BY position"
    )
    for position, topic, key, payload in rows:
        connection.execute(
            "INSERT INTO inferences VALUES (?, ?, ?, ?, ?)",
            (position, topic, key, _held_bytes(payload), payload),
        )
    connection.execute("DROP TABLE former_inferences")


def _held_bytes(payload: bytes) -> int:
    try:
        return max(len(payload), Batch.from_ipc(payload).held_bytes)
    except Exception:  # noqa: BLE001 - whoever reads it says what is wrong with it
        return len(payload)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & _PRIMARY_CODE
        if code in _FULL:
            raise JournalFull(
                "state.db: expected room on the disk, got none or an I/O error; nothing was "
                "changed, free some space and go on"
            ) from error
        if code in _DAMAGED:
            raise JournalDamaged(
                "state.db: expected an SQLite database, got other bytes; restore the file"
            ) from error
        raise JournalError(
            f"state.db: expected a statement to succeed, got {error}; nothing was changed"
        ) from error
    except UnicodeEncodeError as error:
        raise JournalError(
            "state.db: expected text that UTF-8 can hold, got a lone surrogate; nothing was changed"
        ) from error
