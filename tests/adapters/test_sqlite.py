"""The database of a folder: how it lies on the disk."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pyarrow as pa

from sidelight.adapters._embedded import EmbeddedJournals
from sidelight.logger._journal import Commit
from sidelight.payloads import ROW_SCHEMA, Batch

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


def _zeros(n_rows: int) -> Batch:
    """Rows that take little room on the disk."""
    fixed = {"row": 0, "revision": 0, "time": 0, "synthetic": False}
    facts = [
        pa.array([fixed.get(field.name, "x")] * n_rows, field.type)
        if not field.nullable
        else pa.nulls(n_rows, field.type)
        for field in ROW_SCHEMA
    ]
    schema = pa.schema([*ROW_SCHEMA, pa.field("features.x", pa.int64())])
    zeros = pa.array([0] * n_rows)
    return Batch.build(
        pa.RecordBatch.from_arrays([*facts, zeros], schema=schema), deployment="p/m", layout={}
    )


def _append(journals: EmbeddedJournals, *payloads: bytes) -> None:
    appended = [("rows", "p/m", payload) for payload in payloads]
    journals.commit(Commit(group="decoding", journal="events", appended=appended))


def test_a_slice_ends_with_what_its_batches_take_in_memory(tmp_path: Path) -> None:
    batch = _zeros(40_000)
    payload = batch.to_ipc()
    assert len(payload) < batch.held_bytes / 5
    with closing(EmbeddedJournals(tmp_path)) as journals:
        _append(journals, *[payload] * 5, b"short")

        (part,) = journals.read_inferences("g", max_records=9, max_bytes=2 * batch.held_bytes)
        assert [record.position for record in part.records] == [0, 1]
        (alone,) = journals.read_inferences("g", max_records=9, max_bytes=1)
        assert [record.payload for record in alone.records] == [payload]


def test_what_waits_is_counted_as_it_is_in_memory(tmp_path: Path) -> None:
    batch = _zeros(40_000)
    with closing(EmbeddedJournals(tmp_path)) as journals:
        _append(journals, batch.to_ipc(), batch.to_ipc(), b"short")
        assert journals.waiting_bytes("g") == 2 * batch.held_bytes + 5

        journals.commit(Commit(group="g", journal="inferences", positions={0: 1}))
        assert journals.waiting_bytes("g") == batch.held_bytes + 5


def _made_former(folder: Path) -> None:
    """Turn a database into one of format 2, as it was written before this version."""
    with closing(sqlite3.connect(folder / "state.db")) as connection:
        connection.executescript(
            """
            ALTER TABLE inferences RENAME TO newer;
            CREATE TABLE inferences (
                position INTEGER PRIMARY KEY, topic TEXT NOT NULL, key TEXT NOT NULL,
                payload BLOB NOT NULL);
            INSERT INTO inferences SELECT position, topic, key, payload FROM newer;
            DROP TABLE newer;
            UPDATE meta SET value = 2 WHERE name = 'format';
            """
        )


def test_a_folder_of_the_former_version_is_read(tmp_path: Path) -> None:
    batch = _zeros(40_000)
    data = batch.to_ipc()
    # Before, nothing stood between the length of the first stream and the stream.
    former = b"sidelit2" + data[8:16] + data[24:]
    payloads = [former, b"no batch at all", b"sidelit2 neither", _zeros(3).to_ipc()]
    with closing(EmbeddedJournals(tmp_path)) as journals:
        _append(journals, b"gone", *payloads)
        journals.commit(Commit(group="g", journal="inferences", positions={0: 1}))
    _made_former(tmp_path)

    for _ in range(2):
        with closing(EmbeddedJournals(tmp_path)) as journals:
            (part,) = journals.read_inferences("g", **ALL)
            assert [record.position for record in part.records] == [1, 2, 3, 4]
            assert [record.payload for record in part.records] == payloads
            assert journals.waiting_bytes("g") > batch.held_bytes
            (alone,) = journals.read_inferences("g", max_records=9, max_bytes=batch.held_bytes)
            assert [record.position for record in alone.records] == [1]
            assert journals.ends("inferences") == {0: 5}
    with closing(EmbeddedJournals(tmp_path)) as journals:
        _append(journals, b"new")
        assert journals.ends("inferences") == {0: 6}
    with closing(sqlite3.connect(tmp_path / "state.db")) as connection:
        assert connection.execute("SELECT value FROM meta WHERE name = 'format'").fetchone() == (3,)
