"""Published results of the embedded engine."""

import json
import sqlite3
import zlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import orjson

from sidelight.adapters._sqlite import Database
from sidelight.logger._journal import Document
from sidelight.logger._segments_folder import open_folder

_KEYS_A_STATEMENT = 500

Counters = Mapping[tuple[str, tuple[tuple[str, str], ...]], float]

# Of these there are always more, and a verdict on 20 columns has 17 kB that repeat themselves.
_COMPRESSED: Final = frozenset({"verdicts", "explanations", "replies"})
_SHORT_BYTES: Final = 1024


class EmbeddedDocuments:
    """The ``Documents`` of a data folder, from any thread and beside the consumer's process.

    Parameters
    ----------
    data : Path
        The data folder.

    Raises
    ------
    JournalError
        Of every method, when the database cannot do what was asked.

    """

    def __init__(self, data: Path) -> None:
        open_folder(data)
        self._database = Database(data)

    def close(self) -> None:
        """Close the connections."""
        self._database.close()

    def get(self, collection: str, key: str) -> dict[str, Any] | None:
        """Return one document's value."""
        with self._database.read() as connection:
            row = connection.execute(
                "SELECT value FROM documents WHERE collection = ? AND key = ?", (collection, key)
            ).fetchone()
        return None if row is None else _loaded(row[0])

    def present(self, collection: str, keys: Collection[str]) -> set[str]:
        """Return which of some keys have a document."""
        wanted = list(keys)
        found: set[str] = set()
        with self._database.read() as connection:
            for begin in range(0, len(wanted), _KEYS_A_STATEMENT):
                some = wanted[begin : begin + _KEYS_A_STATEMENT]
                marks = ",".join("?" * len(some))
                rows = connection.execute(
                    # Only question marks are put into the text.
                    f"SELECT key FROM documents WHERE collection = ? AND key IN ({marks})",  # noqa: S608
                    (collection, *some),
                )
                found.update(key for (key,) in rows)
        return found

    def find(
        self,
        collection: str,
        *,
        deployment: str | None = None,
        descending: bool = True,
        after: tuple[str, str] | None = None,
        limit: int = 100,
    ) -> list[tuple[str, str, dict[str, Any]]]:
        """Return (order, key, value) sorted by (order, key), from behind ``after`` on."""
        wanted, values = "collection = ?", [collection]
        if deployment is not None:
            wanted += " AND deployment = ?"
            values.append(deployment)
        if after is not None:
            wanted += f" AND (ord, key) {'<' if descending else '>'} (?, ?)"
            values += after
        way = "DESC" if descending else "ASC"
        with self._database.read() as connection:
            rows = connection.execute(
                # Nothing but the constants above is put into the text.
                f"SELECT ord, key, value FROM documents WHERE {wanted} "  # noqa: S608
                f"ORDER BY ord {way}, key {way} LIMIT ?",
                (*values, limit),
            ).fetchall()
        return [(order, key, _loaded(value)) for order, key, value in rows]

    def put(self, documents: Sequence[Document]) -> None:
        """Write documents in one transaction of their own."""
        with self._database.write() as connection:
            put_documents(connection, documents)

    def counters(self) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        """Return every persistent counter."""
        with self._database.read() as connection:
            rows = connection.execute("SELECT name, labels, value FROM counters").fetchall()
        return {
            (name, tuple((label, of) for label, of in json.loads(labels))): value
            for name, labels, value in rows
        }


def put_documents(connection: sqlite3.Connection, documents: Iterable[Document]) -> None:
    """Write documents inside a transaction, in their order."""
    for document in documents:
        if document.value is None:
            connection.execute(
                "DELETE FROM documents WHERE collection = ? AND key = ?",
                (document.collection, document.key),
            )
        else:
            connection.execute(
                "INSERT OR REPLACE INTO documents (collection, key, deployment, ord, value) "
                "VALUES (?, ?, ?, ?, ?)",
                (
                    document.collection,
                    document.key,
                    document.deployment,
                    document.order,
                    _dumped(document.value, compressed=document.collection in _COMPRESSED),
                ),
            )


def add_counters(connection: sqlite3.Connection, counters: Counters) -> None:
    """Add to persistent counters inside a transaction."""
    connection.executemany(
        "INSERT INTO counters VALUES (?, ?, ?) "
        "ON CONFLICT DO UPDATE SET value = value + excluded.value",
        [(name, _text_of(labels), value) for (name, labels), value in counters.items()],
    )


@lru_cache(maxsize=1 << 16)
def _text_of(labels: tuple[tuple[str, str], ...]) -> str:
    # The same few thousand of them come each half second.
    return json.dumps(labels)


def _dumped(value: Mapping[str, Any], *, compressed: bool) -> bytes | str:
    try:
        text = orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
    except TypeError:
        # Wider integers and lone surrogates, which orjson does not write.
        return json.dumps(value)
    return zlib.compress(text, 1) if compressed and len(text) > _SHORT_BYTES else text


def _loaded(value: bytes | str) -> dict[str, Any]:
    document: dict[str, Any]
    if isinstance(value, str):
        # What orjson does not read either, and everything that older versions wrote.
        document = json.loads(value)
    else:
        # JSON never begins as zlib's streams do.
        document = orjson.loads(value if value.startswith(b"{") else zlib.decompress(value))
    return document
