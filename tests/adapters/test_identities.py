"""What is remembered for ever is a dictionary, whatever is merged, rolled back and opened again."""

import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from sidelight.adapters import _identities, _identities_records, _identities_run
from sidelight.adapters._embedded import EmbeddedJournals
from sidelight.logger import _pairing_upgrade, move_old_identities
from sidelight.logger._journal import REMEMBERED_BYTES, Commit
from sidelight.logger._pairing_state import Half, PairState
from sidelight.logger.errors import JournalError
from sidelight.payloads import RawRef

UNKNOWN = [b"\0" * 16, b"\xff" * 16, b"unknown unknown!"]


@pytest.fixture(autouse=True)
def _short_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name, value in (
        (_identities_records, "PIECE_RECORDS", 3),
        (_identities_run, "PIECE_RECORDS", 3),
        (_identities, "_RATIO", 2),
        (_identities, "_MOVED", 4),
        (_identities, "_MOVED_A_RECORD", 8),
    ):
        monkeypatch.setattr(module, name, value)


@pytest.fixture
def journals(tmp_path: Path) -> Iterator[EmbeddedJournals]:
    opened = EmbeddedJournals(tmp_path)
    yield opened
    opened.close()


def digest(number: int) -> bytes:
    return hashlib.blake2b(b"%d" % number, digest_size=16).digest()


def value(number: int) -> bytes:
    return number.to_bytes(REMEMBERED_BYTES, "little")


def remember(journals: EmbeddedJournals, remembered: dict[bytes, bytes]) -> None:
    journals.commit(Commit(group="g", journal="events", remembered=remembered))


def n_rows(journals: EmbeddedJournals) -> int:
    with journals._database.read() as connection:
        (number,) = connection.execute(
            "SELECT sum(length(digests)) / 16 FROM identities"
        ).fetchone()
    return int(number)


# Some share their first four bytes, some the first eight, some end in zeros.
digests = st.one_of(
    st.integers(0, 40).map(digest),
    st.builds(bytes.__add__, st.just(b"same"), st.integers(0, 9).map(lambda n: digest(n)[:12])),
    st.builds(bytes.__add__, st.just(b"the same"), st.integers(0, 9).map(lambda n: digest(n)[:8])),
    st.sampled_from([b"\0" * 15 + b"\1", b"\xff" * 15 + b"\0", b"a" + b"\0" * 15]),
)
values = st.integers(0, 2**64).map(value)


class Memory(RuleBasedStateMachine):
    """Steps that are committed or fail, beside a dictionary."""

    folders: pytest.TempPathFactory

    @initialize()
    def begin(self) -> None:
        self.data = self.folders.mktemp("data")
        self.journals = EmbeddedJournals(self.data)
        self.expected: dict[bytes, bytes] = {}

    @rule(remembered=st.dictionaries(digests, values, max_size=12))
    def commit(self, remembered: dict[bytes, bytes]) -> None:
        remember(self.journals, remembered)
        self.expected |= remembered

    @rule(remembered=st.dictionaries(digests, values, min_size=1, max_size=12))
    def fail(self, remembered: dict[bytes, bytes]) -> None:
        with pytest.raises(JournalError, match="surrogate"):
            self.journals.commit(
                Commit(
                    group="g",
                    journal="events",
                    remembered=remembered,
                    appended=[("rows", "\ud800", b"")],
                )
            )

    @rule()
    def open_again(self) -> None:
        self.journals.close()
        self.journals = EmbeddedJournals(self.data)

    @invariant()
    def it_is_the_dictionary(self) -> None:
        asked = [*self.expected, *UNKNOWN]
        assert self.journals.remembered("g", asked) == self.expected
        assert self.journals.remembered("other", asked) == {}

    def teardown(self) -> None:
        if hasattr(self, "journals"):
            self.journals.close()


def test_memory_is_a_dictionary(tmp_path_factory: pytest.TempPathFactory) -> None:
    Memory.folders = tmp_path_factory
    run_state_machine_as_test(
        Memory, settings=settings(max_examples=40, stateful_step_count=25, deadline=None)
    )


def test_runs_stay_few_and_rows_are_not_left_behind(journals: EmbeddedJournals) -> None:
    n_runs = []
    for step in range(200):
        remember(journals, {digest(3 * step + n): value(step) for n in range(3)})
        n_runs.append(len(journals._identities["g"].runs))

    assert max(n_runs) <= 24
    # Rows of which a part has moved are still there.
    assert 600 <= n_rows(journals) < 640
    assert len(journals.remembered("g", map(digest, range(600)))) == 600


def test_a_newer_value_wins_also_when_it_is_merged(journals: EmbeddedJournals) -> None:
    for step in range(40):
        remember(journals, {digest(0): value(step), digest(1000 + step): value(0)})
        assert journals.remembered("g", [digest(0)]) == {digest(0): value(step)}

    assert n_rows(journals) < 60


def test_groups_remember_apart(journals: EmbeddedJournals) -> None:
    for step in range(20):
        for group in ("g", "h"):
            journals.commit(
                Commit(
                    group=group,
                    journal="events",
                    remembered={digest(step): group.encode().ljust(REMEMBERED_BYTES)},
                )
            )

    for group in ("g", "h"):
        found = journals.remembered(group, map(digest, range(20)))
        assert set(found.values()) == {group.encode().ljust(REMEMBERED_BYTES)}


@pytest.mark.parametrize(("key", "of"), [(b"short", value(1)), (digest(1), b"short")])
def test_other_lengths_are_refused_and_change_nothing(
    journals: EmbeddedJournals, key: bytes, of: bytes
) -> None:
    with pytest.raises(ValueError, match="digests of 16 bytes and values of 24"):
        remember(journals, {digest(0): value(0), key: of})

    assert journals.remembered("g", [digest(0)]) == {}


def test_old_identities_move_and_are_what_they_were(tmp_path: Path) -> None:
    ref = RawRef(partition=0, position=5, index=2)
    asked, answered = Half(b"12345678", ref), Half(b"abcdefgh", ref)
    whole = PairState(asked, answered, is_stored=True, revision=1, received_ns=9)
    orphan = PairState(None, answered, is_stored=True, revision=1, received_ns=9)
    waiting = PairState(asked, None, is_stored=False, revision=0, received_ns=9)
    journals = EmbeddedJournals(tmp_path)
    old = {b"s" + digest(n): (whole if n % 2 else orphan).pack() for n in range(50)}
    kept = {b"w" + digest(77): waiting.pack(), b"t": b"other"}
    journals.commit(Commit(group="g", journal="events", state={**old, **kept}))

    assert move_old_identities(journals, "g") == 50
    assert move_old_identities(journals, "g") == 0
    assert dict(journals.scan("g", b"")) == kept
    found = journals.remembered("g", map(digest, range(100)))
    assert len(found) == 50
    assert PairState.recall(found[digest(0)]) == orphan._replace(received_ns=0)
    whole_again = PairState.recall(found[digest(1)])
    assert [half and half.digest for half in whole_again[:2]] == [asked.digest, answered.digest]
    journals.close()


def test_a_move_that_was_cut_off_goes_on(
    journals: EmbeddedJournals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_pairing_upgrade, "_KEYS_A_COMMIT", 7)
    half = Half(b"12345678", RawRef(partition=0, position=5))
    orphan = PairState(half, None, is_stored=True, revision=1, received_ns=9)
    old = {b"s" + digest(n): orphan.pack() for n in range(50)}
    journals.commit(Commit(group="g", journal="events", state=old))
    commit, left = journals.commit, 3

    def failing(step: Commit) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise JournalError("no room")
        commit(step)

    with monkeypatch.context() as patched:
        patched.setattr(journals, "commit", failing)
        with pytest.raises(JournalError):
            move_old_identities(journals, "g")
    assert len(dict(journals.scan("g", b"s"))) == 50 - 21
    assert len(journals.remembered("g", map(digest, range(50)))) == 21

    assert move_old_identities(journals, "g") == 29
    assert len(journals.remembered("g", map(digest, range(50)))) == 50


def test_a_database_of_the_first_version_is_upgraded_when_it_is_opened(tmp_path: Path) -> None:
    journals = EmbeddedJournals(tmp_path)
    journals.commit(Commit(group="g", journal="events", state={b"k": b"v"}, positions={0: 3}))
    with journals._database.write() as connection:
        connection.execute("DROP TABLE identities")
        connection.execute("DROP TABLE identity_runs")
        connection.execute("DELETE FROM meta WHERE name = 'runs'")
        connection.execute("UPDATE meta SET value = 1 WHERE name = 'format'")
    journals.close()
    journals = EmbeddedJournals(tmp_path)

    remember(journals, {digest(0): value(0)})
    assert journals.remembered("g", [digest(0)]) == {digest(0): value(0)}
    assert journals.state("g", [b"k"]) == {b"k": b"v"}
    assert journals.positions("g", "events") == {0: 3}
    with journals._database.read() as connection:
        found = connection.execute("SELECT value FROM meta WHERE name = 'format'").fetchone()
    assert found == (3,)
    journals.close()


STEPS = """
import hashlib, os, signal, sys
from pathlib import Path
from sidelight.adapters import _identities, _identities_records, _identities_run
from sidelight.adapters._embedded import EmbeddedJournals
from sidelight.logger._journal import Commit

_identities_run._PIECE_RECORDS, _identities._RATIO, _identities._MOVED = 3, 2, 2
_identities._MOVED_A_RECORD = 1
journals = EmbeddedJournals(Path(sys.argv[1]))
left = int(sys.argv[2])

def count(statement):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)

with journals._database.read() as connection:
    connection.set_trace_callback(count)
step = journals.positions("g", "events").get(0, 0)
print(step, flush=True)
while True:
    step += 1
    numbers = (0, 2 * step, 2 * step + 1)
    digests = [hashlib.blake2b(b"%d" % n, digest_size=16).digest() for n in numbers]
    journals.commit(Commit(
        group="g", journal="events", positions={0: step},
        remembered={digest: step.to_bytes(24, "little") for digest in digests},
    ))
    print(step, flush=True)
"""


def test_kills_at_any_statement_leave_whole_steps(tmp_path: Path) -> None:
    acknowledged = 0
    for round_ in range(5):
        done = subprocess.run(
            [sys.executable, "-c", STEPS, str(tmp_path), str(170 + 13 * round_)],
            capture_output=True,
            check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        assert done.returncode == -signal.SIGKILL, done.stderr
        acknowledged = int((done.stdout.split() or [b"%d" % acknowledged])[-1])
        journals = EmbeddedJournals(tmp_path)
        step = journals.positions("g", "events").get(0, 0)
        assert step >= acknowledged
        expected = {digest(n): value(n // 2) for n in range(2, 2 * step + 2)}
        if step:
            expected[digest(0)] = value(step)
        assert journals.remembered("g", map(digest, range(2 * step + 10))) == expected
        journals.close()

    assert acknowledged > 40
