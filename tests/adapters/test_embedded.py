"""The embedded engine: what moves together moves together, whatever happens."""

import hashlib
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidelight.adapters._embedded import EmbeddedJournals
from sidelight.adapters._embedded_documents import EmbeddedDocuments
from sidelight.adapters._sqlite import Database
from sidelight.logger._journal import Commit, Document, Journals
from sidelight.logger._journal import Documents as DocumentsProtocol
from sidelight.logger._segments import SegmentWriter
from sidelight.logger._segments_format import GROUP_MAGIC, segment_name
from sidelight.logger.errors import (
    FolderInUse,
    FolderTooNew,
    JournalDamaged,
    JournalError,
    JournalFull,
)
from sidelight.payloads import RawRef

NAMES = ("decoded", "judged")
ALL = {"max_records": 1000, "max_bytes": 1 << 20}


@pytest.fixture
def journals(tmp_path: Path) -> Iterator[EmbeddedJournals]:
    opened = EmbeddedJournals(tmp_path, groups=("judge", "store"))
    yield opened
    opened.close()


@pytest.fixture
def documents(tmp_path: Path) -> Iterator[EmbeddedDocuments]:
    opened = EmbeddedDocuments(tmp_path)
    yield opened
    opened.close()


def test_the_engine_is_what_consumers_and_the_api_need(
    journals: EmbeddedJournals, documents: EmbeddedDocuments
) -> None:
    checked: tuple[Journals, DocumentsProtocol] = (journals, documents)

    assert checked


def test_events_are_read_from_the_committed_position(
    tmp_path: Path, journals: EmbeddedJournals
) -> None:
    writer = SegmentWriter(tmp_path)
    for index in range(5):
        writer.write(b"head", b"%d" % index).result(timeout=100)

    assert journals.positions("decode", "events") == {}
    (some,) = journals.read_events("decode", max_records=3, max_bytes=1 << 20)
    assert (some.partition, some.first, some.last) == (0, 0, 2)
    assert journals.read_events("decode", max_records=3, max_bytes=1 << 20) == [some]
    journals.commit(Commit(group="decode", journal="events", positions={0: some.last + 1}))
    (rest,) = journals.read_events("decode", **ALL)
    assert [record.body for record in rest.records] == [b"3", b"4"]
    assert journals.ends("events") == {0: 5}
    record = journals.event(RawRef(partition=0, position=4))
    assert record is not None
    assert record.body == b"4"
    assert journals.event(RawRef(partition=0, position=5)) is None
    assert journals.event(RawRef(partition=1, position=0)) is None
    writer.close()


def test_one_damaged_record_does_not_stop_the_ones_behind_it(
    tmp_path: Path, journals: EmbeddedJournals, caplog: pytest.LogCaptureFixture
) -> None:
    writer = SegmentWriter(tmp_path)
    for index in range(3):
        writer.write(b"", b"%d" % index).result(timeout=100)
    writer.close()
    path = tmp_path / "raw" / segment_name(0)
    content = bytearray(path.read_bytes())
    content[content.find(GROUP_MAGIC, content.find(GROUP_MAGIC) + 1)] ^= 1
    path.write_bytes(content)
    journals.commit(Commit(group="decode", journal="events", positions={0: 1}))

    for _ in range(2):
        (some,) = journals.read_events("decode", **ALL)
        assert (some.first, some.records[0].body) == (2, b"2")
    assert journals.damaged_records == 1
    assert caplog.text.count("passed over") == 1


def test_a_step_moves_everything_together(
    journals: EmbeddedJournals, documents: EmbeddedDocuments
) -> None:
    labels = (("deployment", "flights"),)
    step = Commit(
        group="decode",
        journal="events",
        positions={0: 7},
        state={b"half-1": b"open", b"half-2": b"open"},
        appended=[("rows", "prod/flights", b"arrow"), ("labels", "prod/flights", b"[]")],
        documents=[Document(collection="alarms", key="a", value={"state": "open"})],
        counters={("inferences_total", labels): 2.0},
    )
    journals.commit(step)
    journals.commit(
        Commit(
            group="decode",
            journal="events",
            state={b"half-1": None},
            documents=[Document(collection="alarms", key="a")],
            counters={("inferences_total", labels): 1.5},
        )
    )

    assert journals.positions("decode", "events") == {0: 7}
    assert journals.state("decode", [b"half-1", b"half-2"]) == {b"half-2": b"open"}
    assert journals.state("judge", [b"half-2"]) == {}
    (some,) = journals.read_inferences("judge", **ALL)
    assert [(r.position, r.topic, r.payload) for r in some.records] == [
        (0, "rows", b"arrow"),
        (1, "labels", b"[]"),
    ]
    assert journals.ends("inferences") == {0: 2}
    assert documents.get("alarms", "a") is None
    assert documents.counters() == {("inferences_total", labels): 3.5}


def test_positions_never_go_back(journals: EmbeddedJournals) -> None:
    journals.commit(Commit(group="g", journal="events", positions={0: 5}))

    with pytest.raises(JournalError, match="expected a position of events from 5 on, got 4"):
        journals.commit(Commit(group="g", journal="events", positions={0: 4}, state={b"k": b"v"}))
    assert journals.positions("g", "events") == {0: 5}
    assert journals.state("g", [b"k"]) == {}


def test_a_large_record_is_read_alone(journals: EmbeddedJournals) -> None:
    payloads = [b"x" * 100, b"y", b"z"]
    journals.commit(
        Commit(group="d", journal="events", appended=[("rows", "n/m", p) for p in payloads])
    )

    (one,) = journals.read_inferences("g", max_records=9, max_bytes=10)
    assert [record.payload for record in one.records] == [payloads[0]]
    journals.commit(Commit(group="g", journal="inferences", positions={0: 1}))
    (two,) = journals.read_inferences("g", max_records=9, max_bytes=10)
    assert [record.payload for record in two.records] == payloads[1:]
    journals.commit(Commit(group="g", journal="inferences", positions={0: 3}))
    assert journals.read_inferences("g", **ALL) == []


def test_consumed_inferences_are_deleted_after_the_last_group(
    journals: EmbeddedJournals,
) -> None:
    appended = [("rows", "n/m", b"%d" % index) for index in range(100)]
    journals.commit(Commit(group="decode", journal="events", appended=appended))
    journals.commit(Commit(group="store", journal="inferences", positions={0: 100}))
    (kept,) = journals.read_inferences("judge", **ALL)
    assert len(kept.records) == 100

    journals.commit(Commit(group="judge", journal="inferences", positions={0: 90}))
    (left,) = journals.read_inferences("newcomer", **ALL)
    assert left.first == 90
    journals.commit(Commit(group="judge", journal="inferences", positions={0: 100}))
    journals.commit(Commit(group="decode", journal="events", appended=[("rows", "n/m", b"new")]))
    assert journals.ends("inferences") == {0: 101}
    (new,) = journals.read_inferences("judge", **ALL)
    assert new.first == 100


def test_long_records_are_deleted_as_soon_as_all_groups_have_them(
    tmp_path: Path, journals: EmbeddedJournals
) -> None:
    for position in range(12):
        appended = [("rows", "n/m", bytes(4 << 20))]
        journals.commit(Commit(group="decode", journal="events", appended=appended))
        for group in ("store", "judge"):
            journals.commit(Commit(group=group, journal="inferences", positions={0: position + 1}))

    assert (tmp_path / "state.db").stat().st_size < 20 << 20


@settings(max_examples=30, deadline=None)
@given(
    steps=st.lists(
        st.dictionaries(st.binary(max_size=3), st.none() | st.binary(max_size=5), max_size=8),
        max_size=5,
    ),
    prefix=st.binary(max_size=2),
)
def test_state_is_a_sorted_mapping(
    tmp_path_factory: pytest.TempPathFactory,
    steps: list[dict[bytes, bytes | None]],
    prefix: bytes,
) -> None:
    data = tmp_path_factory.mktemp("data")
    expected: dict[bytes, bytes] = {}
    journals = EmbeddedJournals(data)
    for step in steps:
        journals.commit(Commit(group="g", journal="events", state=step))
        expected |= {key: value for key, value in step.items() if value is not None}
        for key in [key for key, value in step.items() if value is None]:
            expected.pop(key, None)
    journals.close()
    journals = EmbeddedJournals(data)

    assert journals.state("g", expected) == expected
    assert list(journals.scan("g", prefix)) == sorted(
        (key, value) for key, value in expected.items() if key.startswith(prefix)
    )
    journals.close()


def test_thousands_of_keys_are_looked_up_and_scanned(journals: EmbeddedJournals) -> None:
    state = {b"%05d" % index: b"v" for index in range(2500)}
    journals.commit(Commit(group="g", journal="events", state=state))

    assert journals.state("g", [*state, b"missing"]) == state
    assert dict(journals.scan("g", b"0")) == state
    assert list(journals.scan("g", b"00001")) == [(b"00001", b"v")]


def test_which_documents_are_there_is_asked_for_many_at_once(documents: EmbeddedDocuments) -> None:
    keys = [f"prod/m{number}" for number in range(1200)]
    documents.put([Document(collection="deployments", key=key, value={}) for key in keys[::2]])
    documents.put([Document(collection="alarms", key=keys[1], value={})])

    assert documents.present("deployments", keys) == set(keys[::2])
    assert documents.present("deployments", []) == set()


def test_documents_are_listed_page_by_page(documents: EmbeddedDocuments) -> None:
    documents.put(
        [
            Document(
                collection="verdicts",
                key=f"{index:03d}",
                deployment="a/b" if index % 2 else "c/d",
                order=f"2013-01-{index // 4:02d}",
                value={"n": index},
            )
            for index in range(40)
        ]
    )

    for deployment, numbers in ((None, range(40)), ("a/b", range(1, 40, 2)), ("x/y", range(0))):
        for descending in (True, False):
            seen: list[int] = []
            after = None
            while page := documents.find(
                "verdicts", deployment=deployment, descending=descending, after=after, limit=7
            ):
                seen += [value["n"] for _, _, value in page]
                after = page[-1][:2]
            assert seen == (list(numbers)[::-1] if descending else list(numbers))
    assert documents.find("alarms") == []


def test_a_document_keeps_what_json_can_hold(documents: EmbeddedDocuments) -> None:
    value = {"big": 2**80, "text": "ü\x00<", "nested": [None, True, 1.5], "surrogate": "\ud800"}
    documents.put([Document(collection="quarantine", key="k", value=value)])

    assert documents.get("quarantine", "k") == value
    documents.put([Document(collection="quarantine", key="k", value={"x": float("nan")})])
    assert documents.get("quarantine", "k") == {"x": None}


@pytest.mark.parametrize("collection", ["verdicts", "deployments"])
def test_long_documents_read_back_alike_and_those_that_gather_take_less_room(
    tmp_path: Path, documents: EmbeddedDocuments, collection: str
) -> None:
    value = {"verdicts": [{"feature": f"x_{n}", "state": "ok", "p_value": None} for n in range(99)]}
    documents.put([Document(collection=collection, key="k", value=value)])

    assert documents.get(collection, "k") == value
    assert documents.find(collection) == [("", "k", value)]
    with sqlite3.connect(tmp_path / "state.db") as connection:
        ((size,),) = connection.execute("SELECT length(value) FROM documents")
    connection.close()
    assert (size < 1000) == (collection == "verdicts")


def test_documents_of_an_older_version_are_read(
    tmp_path: Path, documents: EmbeddedDocuments
) -> None:
    with sqlite3.connect(tmp_path / "state.db") as connection:
        connection.execute(
            "INSERT INTO documents VALUES ('verdicts', 'k', 'a/b', 'o', '{\"n\":1e3}')"
        )
    connection.close()

    assert documents.get("verdicts", "k") == {"n": 1000.0}


def test_documents_are_used_from_many_threads_beside_the_consumer(
    journals: EmbeddedJournals, documents: EmbeddedDocuments
) -> None:
    def work(index: int) -> None:
        documents.put([Document(collection="c", key=str(index), value={"n": index})])
        found = documents.get("c", str(index))
        assert found == {"n": index}

    with ThreadPoolExecutor(8) as pool:
        done = [pool.submit(work, index) for index in range(100)]
        for position in range(1, 30):
            journals.commit(Commit(group="g", journal="events", positions={0: position}))
        for future in done:
            future.result()
    assert len(documents.find("c", limit=1000)) == 100


def test_a_full_disk_changes_nothing(tmp_path: Path, journals: EmbeddedJournals) -> None:
    journals.commit(Commit(group="g", journal="events", positions={0: 1}, state={b"k": b"old"}))
    with journals._database.read() as connection:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages + 2}")
    big = Commit(
        group="g",
        journal="events",
        positions={0: 2},
        state={b"k": b"new"},
        appended=[("rows", "n/m", bytes(100_000))],
    )

    with pytest.raises(JournalFull, match="room"):
        journals.commit(big)
    assert journals.positions("g", "events") == {0: 1}
    assert journals.state("g", [b"k"]) == {b"k": b"old"}
    with journals._database.read() as connection:
        connection.execute("PRAGMA max_page_count = 100000")
    journals.commit(big)
    assert journals.positions("g", "events") == {0: 2}
    assert (tmp_path / "state.db").exists()


def test_a_name_that_utf8_cannot_hold_changes_nothing(journals: EmbeddedJournals) -> None:
    with pytest.raises(JournalError, match="surrogate"):
        journals.commit(
            Commit(
                group="g",
                journal="events",
                positions={0: 1},
                appended=[("rows", "\ud800", b"")],
            )
        )
    assert journals.positions("g", "events") == {}


STEPS = """
import os, signal, sys
from pathlib import Path
from sidelight.adapters._embedded import EmbeddedJournals
from sidelight.logger._journal import Commit, Document

journals = EmbeddedJournals(Path(sys.argv[1]))
left = int(sys.argv[2])

def count(statement):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)

if left >= 0:
    with journals._database.read() as connection:
        connection.set_trace_callback(count)
step = journals.positions("g", "events").get(0, 0)
print(step, flush=True)
while True:
    step += 1
    text = str(step)
    journals.commit(Commit(
        group="g", journal="events", positions={0: step},
        state={b"step": text.encode(), text.encode(): b"x", str(step - 1).encode(): None},
        appended=[("rows", "n/m", text.encode())],
        documents=[Document(collection="c", key=text, value={"n": step}),
                   Document(collection="c", key="last", value={"n": step})],
        counters={("steps", ()): 1.0},
    ))
    print(step, flush=True)
"""


def check_step(data: Path, *, at_least: int) -> None:
    journals, documents = EmbeddedJournals(data), EmbeddedDocuments(data)
    step = journals.positions("g", "events").get(0, 0)
    assert step >= at_least
    expected = {b"step": b"%d" % step, b"%d" % step: b"x"} if step else {}
    assert dict(journals.scan("g", b"")) == expected
    assert journals.ends("inferences") == {0: step}
    # As many as there are: how far the process got depends on the machine.
    rows = journals.read_inferences("other", max_records=10**7, max_bytes=1 << 40)
    bodies = [record.payload for some in rows for record in some.records]
    assert bodies == [b"%d" % number for number in range(1, step + 1)]
    assert documents.counters().get(("steps", ()), 0.0) == step
    assert (documents.get("c", "last") or {"n": 0})["n"] == step
    assert len(documents.find("c", limit=10**7)) == step + (step > 0)
    documents.close()
    journals.close()


@pytest.mark.parametrize("statements", range(3, 36, 2))
def test_a_kill_between_two_statements_leaves_whole_steps(tmp_path: Path, statements: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", STEPS, str(tmp_path), str(statements)],
        capture_output=True,
        check=False,
    )

    assert done.returncode == -signal.SIGKILL
    check_step(tmp_path, at_least=int((done.stdout.split() or [b"0"])[-1]))


def test_kills_at_any_moment_leave_whole_steps(tmp_path: Path) -> None:
    choose = random.Random(7)
    acknowledged = 0
    for _ in range(8):
        process = subprocess.Popen(
            [sys.executable, "-c", STEPS, str(tmp_path), "-1"], stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        for _ in range(choose.randrange(1, 60)):
            acknowledged = int(process.stdout.readline())
        process.kill()
        acknowledged = int((process.stdout.read().split() or [b"%d" % acknowledged])[-1])
        process.stdout.close()
        process.wait()
        check_step(tmp_path, at_least=acknowledged)


def test_two_consumers_of_one_folder_are_refused(
    tmp_path: Path, journals: EmbeddedJournals
) -> None:
    with pytest.raises(FolderInUse, match="state"):
        EmbeddedJournals(tmp_path)
    assert journals.ends("events") == {0: 0}


def test_a_newer_database_is_refused(tmp_path: Path) -> None:
    EmbeddedJournals(tmp_path).close()
    with sqlite3.connect(tmp_path / "state.db") as connection:
        connection.execute("UPDATE meta SET value = 4 WHERE name = 'format'")
    connection.close()

    with pytest.raises(FolderTooNew, match="got 4"):
        EmbeddedJournals(tmp_path)
    with pytest.raises(FolderTooNew):
        EmbeddedDocuments(tmp_path)


def test_another_file_in_the_databases_place_is_said(tmp_path: Path) -> None:
    EmbeddedJournals(tmp_path).close()
    (tmp_path / "state.db").write_bytes(b"no database" * 100)

    with pytest.raises(JournalDamaged, match="SQLite"):
        EmbeddedDocuments(tmp_path)


def test_a_connection_given_back_after_the_end_is_closed(tmp_path: Path) -> None:
    EmbeddedDocuments(tmp_path).close()
    database = Database(tmp_path)
    with database.read() as connection:
        database.close()

    with pytest.raises(sqlite3.ProgrammingError):
        connection.execute("SELECT 1")


def test_each_role_of_a_folder_is_one_processs_and_both_are_a_commands(tmp_path: Path) -> None:
    one = EmbeddedJournals(tmp_path, roles=("state",))
    other = EmbeddedJournals(tmp_path, roles=("detection",))
    with pytest.raises(FolderInUse, match="detection"):
        EmbeddedJournals(tmp_path, roles=("detection",))
    one.close()

    with pytest.raises(FolderInUse, match="detection"):
        EmbeddedJournals(tmp_path)
    # What it had taken already is free again.
    EmbeddedJournals(tmp_path, roles=("state",)).close()
    other.close()


def test_a_commit_waits_for_others_as_long_as_it_is_told(tmp_path: Path) -> None:
    journals = EmbeddedJournals(tmp_path, busy_s=0.05)
    other = Database(tmp_path)
    commit = Commit(group="g", journal="events", positions={0: 1})
    with other.write(), pytest.raises(JournalError, match="locked"):
        journals.commit(commit)

    journals.commit(commit)
    assert journals.positions("g", "events") == {0: 1}
    journals.close()
    other.close()


TWO_PROCESSES = """
import hashlib, sys, time
from pathlib import Path
from sidelight.adapters._embedded import EmbeddedJournals
from sidelight.logger._journal import Commit

data, role = Path(sys.argv[1]), sys.argv[2]
journals = EmbeddedJournals(data, groups=("judge",), roles=(role,))
step = journals.positions("decode", "events").get(0, 0)
while role == "state":
    texts = [b"%d" % number for number in range(3 * step, 3 * step + 3)]
    journals.commit(Commit(
        group="decode", journal="events", positions={0: step + 1},
        appended=[("rows", "n/m", text) for text in texts],
        remembered={hashlib.md5(text).digest(): text.ljust(24) for text in texts},
        counters={("decoded", ()): 3.0},
    ))
    step += 1
    # The other one gets its turn on a slow disk too.
    time.sleep(0.001)
while role == "detection":
    for part in journals.read_inferences("judge", max_records=50, max_bytes=1 << 20):
        chain = journals.state("judge", [b"chain"]).get(b"chain", b"")
        for record in part.records:
            chain = hashlib.md5(chain + record.payload).digest()
        journals.commit(Commit(
            group="judge", journal="inferences", positions={0: part.last + 1},
            state={b"chain": chain}, counters={("judged", ()): float(len(part.records))},
        ))
        time.sleep(0.001)
"""


def test_two_processes_commit_beside_each_other_whichever_is_killed(tmp_path: Path) -> None:
    choose = random.Random(11)
    documents = EmbeddedDocuments(tmp_path)

    def start(role: str) -> "subprocess.Popen[bytes]":
        return subprocess.Popen([sys.executable, "-c", TWO_PROCESSES, str(tmp_path), role])

    def progress() -> dict[str, float]:
        return {name: value for (name, _), value in documents.counters().items()}

    processes = {role: start(role) for role in ("state", "detection")}
    # Who waits for ever is ended by the limit of every test.
    try:
        for round_ in range(4):
            before = progress()
            wanted = {name: before.get(name, 0) + choose.randrange(1, 60) for name in NAMES}
            while any(progress().get(name, 0) < least for name, least in wanted.items()):
                assert [process.poll() for process in processes.values()] == [None, None]
            role = ("detection", "state")[round_ % 2]
            processes[role].kill()
            processes[role].wait()
            processes[role] = start(role)
    finally:
        for process in processes.values():
            process.kill()
            process.wait()

    journals = EmbeddedJournals(tmp_path, groups=("judge",))
    end, judged = journals.ends("inferences")[0], journals.positions("judge", "inferences")[0]
    assert progress() == {"decoded": end, "judged": judged}
    chain = b""
    for number in range(judged):
        chain = hashlib.md5(chain + b"%d" % number).digest()
    assert journals.state("judge", [b"chain"]) == {b"chain": chain}
    # What is not judged is there, and next to nothing else.
    kept = journals.read_inferences("nobody", max_records=10**6, max_bytes=1 << 30)
    positions = [record.position for part in kept for record in part.records]
    assert positions == list(range(end - len(positions), end))
    assert 0 <= judged - (end - len(positions)) <= 64 + 50
    known = [hashlib.md5(b"%d" % number).digest() for number in range(end)]
    assert len(journals.remembered("decode", known)) == end
    documents.close()
    journals.close()
