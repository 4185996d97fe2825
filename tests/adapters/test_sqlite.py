"""The database of a folder: how it lies on the disk."""

import sqlite3
from contextlib import closing
from pathlib import Path

from sidelight.adapters._embedded import EmbeddedJournals
from sidelight.logger._journal import Commit

ALL = {"max_records": 10, "max_bytes": 1 << 24}


def _page_bytes(folder: Path) -> int:
    with closing(sqlite3.connect(folder / "state.db")) as connection:
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    return int(size)


def _appended(folder: Path, payload: bytes) -> bytes:
    """Append to ``inferences`` and read it again."""
    with closing(EmbeddedJournals(folder)) as journals:
        first = journals.ends("inferences")[0]
        commit = Commit(group="decoded", journal="events", appended=[("rows", "p/m", payload)])
        journals.commit(commit)
        moved = Commit(group="judge", journal="inferences", positions={0: first})
        journals.commit(moved)
        (part,) = journals.read_inferences("judge", **ALL)
    return part.records[0].payload


def test_a_new_database_has_pages_for_long_batches(tmp_path: Path) -> None:
    payload = bytes(range(256)) * 4096

    assert _appended(tmp_path, payload) == payload
    assert _page_bytes(tmp_path) == 16 << 10


def test_a_database_with_other_pages_goes_on_with_them(tmp_path: Path) -> None:
    payload = bytes(range(256)) * 4096
    assert _appended(tmp_path, b"before") == b"before"
    with closing(sqlite3.connect(tmp_path / "state.db")) as connection:
        # Pages change with another journal alone.
        connection.execute("PRAGMA journal_mode = DELETE")
        connection.execute("PRAGMA page_size = 4096")
        connection.execute("VACUUM")

    assert _appended(tmp_path, payload) == payload
    assert _appended(tmp_path, b"short") == b"short"
    assert _page_bytes(tmp_path) == 4096
