import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sidelight.logger._spool import Spool
from sidelight.logger._spool_segment import encode, payload, scan
from sidelight.logger.errors import SpoolError

payloads = st.lists(st.binary(max_size=60), min_size=1, max_size=20)


def numbered(n: int, size: int = 20) -> list[bytes]:
    return [b"%d:" % number + b"x" * size for number in range(n)]


def drain(spool: Spool) -> list[bytes]:
    found = []
    while records := spool.peek(max_records=7):
        found += [record.payload for record in records]
        spool.ack(records[-1].number)
    return found


def segments(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.spool1"))


def test_records_come_out_in_order_and_leave_nothing_behind(tmp_path: Path) -> None:
    spool = Spool(tmp_path, segment_bytes=200)
    spool.append(numbered(50))

    assert drain(spool) == numbered(50)
    assert len(spool) == 0
    assert spool.size == 0
    assert segments(tmp_path) == []


def test_a_peek_without_an_acknowledgement_takes_nothing(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.append(numbered(5))

    assert spool.peek(max_records=3) == spool.peek(max_records=3)
    assert len(spool) == 5


def test_a_peek_is_bounded_in_bytes_but_never_empty_while_records_wait(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.append([b"a" * 1000, b"b" * 10, b"c" * 10])

    assert len(spool.peek(max_bytes=5)) == 1
    assert len(spool.peek(max_bytes=1010)) == 2


def test_records_are_read_while_others_are_appended(tmp_path: Path) -> None:
    spool = Spool(tmp_path, segment_bytes=300)
    found = []
    for start in range(0, 60, 6):
        spool.append(numbered(60)[start : start + 6])
        records = spool.peek(max_records=4)
        found += [record.payload for record in records]
        spool.ack(records[-1].number)

    assert found + drain(spool) == numbered(60)


def test_a_restart_finds_what_was_not_acknowledged(tmp_path: Path) -> None:
    first = Spool(tmp_path, segment_bytes=200)
    first.append(numbered(30))
    first.ack(first.peek(max_records=11)[-1].number)
    first.close()

    second = Spool(tmp_path)

    assert second.recovered == 19
    assert drain(second) == numbered(30)[11:]


def test_a_full_spool_takes_the_first_records_and_refuses_the_rest(tmp_path: Path) -> None:
    spool = Spool(tmp_path, max_bytes=500)

    taken = spool.append(numbered(50))

    assert 0 < len(taken) < 50
    assert spool.size <= 500
    assert len(spool.append([b"x" * 100])) == 0
    assert drain(spool) == numbered(50)[: len(taken)]
    assert len(spool.append([b"x" * 100])) == 1


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    spool = Spool(tmp_path)

    with pytest.raises(SpoolError, match="another process"):
        Spool(tmp_path)
    spool.close()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(SpoolError, match="spool folder"):
        Spool(tmp_path / "file" / "spool")


def test_bounds_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="positive"):
        Spool(tmp_path, max_bytes=0)


@pytest.mark.parametrize("n_written", [pytest.param(0, id="at once"), pytest.param(9, id="later")])
def test_a_full_disk_loses_nothing_and_leaves_no_half_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_written: int
) -> None:
    spool = Spool(tmp_path)
    spool.append([b"before"])
    write = os.write
    rooms = [n_written, 0]

    def full(descriptor: int, text: memoryview) -> int:
        if room := rooms.pop(0):
            return write(descriptor, text[:room])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space"):
            spool.append([b"refused" * 10])
    spool.append([b"after"])
    spool.close()

    assert drain(Spool(tmp_path)) == [b"before", b"after"]


@pytest.mark.parametrize("n_before", [0, 2])
def test_a_torn_write_that_cannot_be_taken_back_does_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_before: int
) -> None:
    spool = Spool(tmp_path)
    if n_before:
        spool.append(numbered(n_before))
    write = os.write
    with monkeypatch.context() as patch:
        calls: list[int] = []

        def torn(descriptor: int, text: memoryview) -> int:
            calls.append(len(text))
            if len(calls) > 1:
                raise OSError(5, "Input/output error")
            return write(descriptor, text[:-3])

        def stuck(*_: int) -> None:
            raise OSError(5, "Input/output error")

        patch.setattr(os, "write", torn)
        patch.setattr(os, "ftruncate", stuck)
        with pytest.raises(OSError, match="Input/output"):
            spool.append([b"refused", b"refused"])
    spool.append([b"after"])

    assert drain(spool) == [*numbered(n_before), b"after"]
    assert spool.n_damaged == 0


def test_what_is_written_to_a_cleared_folder_is_refused_until_there_is_one(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    spool = Spool(folder)
    spool.append([b"cleared"])
    shutil.rmtree(folder)

    for _ in range(2):
        with pytest.raises(FileNotFoundError):
            spool.append([b"refused"])
    folder.mkdir()
    spool.append([b"kept"])

    assert len(segments(folder)) == 1
    assert drain(spool) == [b"kept"]
    assert spool.n_damaged == 1


def test_a_disk_bounded_by_the_system_is_an_error_and_no_signal(tmp_path: Path) -> None:
    program = """
import resource, sys
from pathlib import Path
from sidelight.logger._spool import Spool
spool = Spool(Path(sys.argv[1]))
spool.append([b"kept"])
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
try:
    spool.append([b"x" * 5000])
except OSError:
    spool.append([b"small"])
    print([record.payload for record in spool.peek()])
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == "[b'kept', b'small']"


@pytest.mark.parametrize("seed", range(4))
def test_a_killed_process_loses_nothing_that_was_spooled(tmp_path: Path, seed: int) -> None:
    program = """
import os, sys
from pathlib import Path
from sidelight.logger._spool import Spool
spool = Spool(Path(sys.argv[1]), segment_bytes=600)
number = 0
while True:
    n = 1 + number % 5
    spool.append([b"%d" % (number + offset) for offset in range(n)])
    number += n
    os.write(1, b"a%d\\n" % number)
    if number % 3 == 0:
        records = spool.peek(max_records=2)
        os.write(1, b"k%d\\n" % records[-1].number)
        spool.ack(records[-1].number)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    said = [process.stdout.readline() for _ in range(40 + 17 * seed)]
    process.send_signal(signal.SIGKILL)
    said += process.stdout.readlines()
    process.wait()
    process.stdout.close()

    n_appended = max(int(line[1:]) for line in said if line.startswith(b"a"))
    n_started = 1 + max((int(line[1:]) for line in said if line.startswith(b"k")), default=-1)
    spool = Spool(tmp_path)
    found = [int(record) for record in drain(spool)]

    assert found == list(range(found[0], found[-1] + 1))
    assert found[0] <= n_started
    assert found[-1] >= n_appended - 1
    assert spool.n_damaged == 0


@given(records=payloads, salt=st.integers(0, 2**32 - 1), first=st.integers(0, 2**40))
def test_a_segment_reads_as_it_was_written(records: list[bytes], salt: int, first: int) -> None:
    text = encode(records, first=first, salt=salt)

    found = list(scan(text, salt=salt))

    assert [payload(text, each) for each in found] == records
    assert [each.number for each in found] == list(range(first, first + len(records)))


@given(records=payloads, data=st.data())
def test_a_flipped_byte_costs_exactly_its_record(records: list[bytes], data: st.DataObject) -> None:
    text = bytearray(encode(records, first=0, salt=7))
    place = data.draw(st.integers(0, len(text) - 1))
    text[place] ^= data.draw(st.integers(1, 255))
    ends = [found.end for found in scan(encode(records, first=0, salt=7), salt=7)]
    hit = next(number for number, end in enumerate(ends) if place < end)

    sound = [found for found in scan(bytes(text), salt=7) if found.is_sound]

    assert [found.number for found in sound] == [n for n in range(len(records)) if n != hit]
    assert all(payload(bytes(text), found) == records[found.number] for found in sound)


@given(records=payloads, other=st.binary(max_size=30), salt=st.integers(1, 2**32 - 1))
def test_a_payload_cannot_pass_for_a_record(records: list[bytes], other: bytes, salt: int) -> None:
    forged = encode([other], first=1, salt=0)
    text = bytearray(encode([forged, *records], first=0, salt=salt))
    text[0] ^= 1

    found = [payload(bytes(text), each) for each in scan(bytes(text), salt=salt) if each.is_sound]

    assert found == records


@settings(max_examples=60, deadline=None)
@given(records=payloads, data=st.data())
def test_a_damaged_folder_gives_back_the_rest_and_counts_what_is_lost(
    tmp_path_factory: pytest.TempPathFactory, records: list[bytes], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("spool")
    spool = Spool(folder, segment_bytes=150)
    for start in range(0, len(records), 3):
        spool.append(records[start : start + 3])
    spool.close()
    victim = data.draw(st.sampled_from(segments(folder)))
    text = bytearray(victim.read_bytes())
    place = data.draw(st.integers(0, len(text) - 1))
    text[place] ^= data.draw(st.integers(1, 255))
    victim.write_bytes(bytes(text))

    again = Spool(folder)
    found = drain(again)

    assert again.recovered == len(records)
    assert again.n_damaged == 1
    assert len(found) == len(records) - 1
    assert any(found == records[:n] + records[n + 1 :] for n in range(len(records)))
    assert len(again) == 0
    again.close()


@settings(max_examples=60, deadline=None)
@given(records=payloads, data=st.data())
def test_a_torn_tail_is_cut_and_the_rest_is_whole(
    tmp_path_factory: pytest.TempPathFactory, records: list[bytes], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("spool")
    spool = Spool(folder)
    spool.append(records)
    spool.close()
    (victim,) = segments(folder)
    text = victim.read_bytes()
    victim.write_bytes(text[: data.draw(st.integers(0, len(text)))])

    again = Spool(folder)
    n_found = again.recovered
    again.append([b"new"])

    assert again.n_damaged == 0
    assert drain(again) == [*records[:n_found], b"new"]
    again.close()


def test_a_lost_segment_is_counted(tmp_path: Path) -> None:
    spool = Spool(tmp_path, segment_bytes=100)
    for record in numbered(9):
        spool.append([record, record])
    spool.close()
    segments(tmp_path)[3].unlink()

    again = Spool(tmp_path)

    assert again.recovered == 18
    assert len(drain(again)) == 18 - again.n_damaged
    assert again.n_damaged == 4
    assert len(again) == 0


def test_a_lost_position_sends_again_and_loses_nothing(tmp_path: Path) -> None:
    spool = Spool(tmp_path, segment_bytes=100)
    for record in numbered(20):
        spool.append([record])
    spool.ack(9)
    spool.close()
    (tmp_path / "position").write_bytes(b"rubbish")

    again = Spool(tmp_path)

    assert again.n_damaged == 0
    assert drain(again)[-10:] == numbered(20)[10:]


def test_foreign_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.spool1").write_text("mine")

    Spool(tmp_path).close()

    assert (tmp_path / "notes.spool1").read_text() == "mine"


def test_a_position_that_cannot_be_kept_costs_only_a_repetition(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(tmp_path)
    spool.append(numbered(5))

    def broken(*_: object) -> int:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", broken)
        assert spool.ack(1) == 2
    assert len(spool) == 3
    spool.close()

    assert drain(Spool(tmp_path)) == numbered(5)


def test_damage_at_the_end_of_a_segment_does_not_hide_a_torn_write_before_it(
    tmp_path: Path,
) -> None:
    spool = Spool(tmp_path)
    spool.append([b"x" * 50, b"y" * 50, b"z" * 5])
    spool.close()
    (victim,) = segments(tmp_path)
    text = victim.read_bytes()
    victim.write_bytes(text[:100] + text[130:])  # thirty bytes of the second record are gone

    again = Spool(tmp_path)

    assert drain(again) == [b"x" * 50, b"z" * 5]
    assert again.n_damaged == 1


def test_zeros_that_a_loss_of_power_left_are_cut(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.append([b"one"])
    spool.close()
    (victim,) = segments(tmp_path)
    victim.write_bytes(victim.read_bytes() + bytes(500))

    again = Spool(tmp_path)

    assert drain(again) == [b"one"]
    assert again.n_damaged == 0


class SpoolBesideAList(RuleBasedStateMachine):
    """Whatever is done, the spool is a list; closing and opening changes nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(os.environ["SPOOL_TEST_FOLDER"]) / os.urandom(8).hex()
        self.spool = Spool(self.folder, max_bytes=2000, segment_bytes=200)
        self.model: list[bytes] = []

    @rule(records=payloads)
    def append(self, records: list[bytes]) -> None:
        self.model += records[: len(self.spool.append(records))]

    @rule(n=st.integers(1, 9), extra=st.integers(0, 3))
    def send(self, n: int, extra: int) -> None:
        records = self.spool.peek(max_records=n + extra)
        assert [record.payload for record in records] == self.model[: n + extra]
        if records:
            done = records[:n]
            assert self.spool.ack(done[-1].number) == len(done)
            del self.model[: len(done)]

    @precondition(lambda self: self.model)
    @rule()
    def acknowledge_twice(self) -> None:
        (record,) = self.spool.peek(max_records=1)
        assert self.spool.ack(record.number) == 1
        assert self.spool.ack(record.number) == 0
        del self.model[0]

    @rule()
    def restart(self) -> None:
        self.spool.close()
        self.spool = Spool(self.folder, max_bytes=2000, segment_bytes=200)
        assert self.spool.recovered == len(self.model)

    @invariant()
    def counts(self) -> None:
        assert len(self.spool) == len(self.model)
        assert self.spool.n_damaged == 0
        assert self.spool.size == sum(path.stat().st_size for path in segments(self.folder))
        assert self.spool.size <= 2000

    def teardown(self) -> None:
        self.spool.close()


def test_the_spool_behaves_as_a_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPOOL_TEST_FOLDER", str(tmp_path))
    SpoolBesideAList.TestCase.settings = settings(
        max_examples=40, stateful_step_count=20, deadline=None
    )
    SpoolBesideAList.TestCase("runTest").runTest()
