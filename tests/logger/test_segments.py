"""The events journal: what is acknowledged is there, byte for byte, whatever happens."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidelight.logger._checkpoint import Checkpoint
from sidelight.logger._segments import SegmentReader, SegmentWriter
from sidelight.logger._segments_folder import (
    DurableMark,
    open_folder,
    write_all,
)
from sidelight.logger._segments_format import (
    CHAIN_START,
    GROUP_MAGIC,
    SEGMENT_HEADER_BYTES,
    BadBytes,
    decode_segment_header,
    encode_group,
    encode_segment_header,
    find_group,
    segment_first,
    segment_name,
    segment_paths,
)
from sidelight.logger._verify import verify
from sidelight.logger.errors import (
    FolderInUse,
    FolderTooNew,
    JournalDamaged,
    JournalError,
    JournalFull,
)

Record = tuple[bytes, bytes]
records_of_requests = st.tuples(st.binary(max_size=40), st.binary(max_size=60))


def write_groups(data: Path, groups: list[list[Record]], *, segment_bytes: int = 1 << 20) -> None:
    """Write with known groups and leave the folder as a killed process leaves it."""
    writer = SegmentWriter(data, segment_bytes=segment_bytes)
    for group in groups:
        writer._commit([(head, body, lambda _, __: None) for head, body in group])
    kill(writer)


def kill(writer: SegmentWriter) -> None:
    """Stop without sealing anything."""
    writer._stopping = True
    writer._tokens.put(None)
    writer._thread.join()
    writer._archive._release()


def read_all(data: Path, *, max_bytes: int = 1 << 20) -> list[Record]:
    reader = SegmentReader(data)
    found: list[Record] = []
    while records := reader.read(len(found), max_records=7, max_bytes=max_bytes):
        assert [record.position for record in records] == list(
            range(len(found), len(found) + len(records))
        )
        found += [(record.head, record.body) for record in records]
    reader.close()
    return found


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[SegmentWriter]:
    opened = SegmentWriter(tmp_path)
    yield opened
    opened.close()


@settings(max_examples=40, deadline=None)
@given(
    groups=st.lists(st.lists(records_of_requests, min_size=1, max_size=5), max_size=6),
    segment_bytes=st.sampled_from([1, 300, 1 << 20]),
    max_bytes=st.sampled_from([1, 50, 1 << 20]),
)
def test_records_are_read_as_they_were_written(
    tmp_path_factory: pytest.TempPathFactory,
    groups: list[list[Record]],
    segment_bytes: int,
    max_bytes: int,
) -> None:
    data = tmp_path_factory.mktemp("data")
    write_groups(data, groups, segment_bytes=segment_bytes)

    expected = [record for group in groups for record in group]
    assert read_all(data, max_bytes=max_bytes) == expected
    assert verify(data).ok
    reader = SegmentReader(data)
    for position in reversed(range(len(expected))):
        record = reader.record(position)
        assert record is not None
        assert (record.head, record.body) == expected[position]
    assert reader.record(len(expected)) is None
    reader.close()
    SegmentWriter(data).close()
    assert verify(data).ok
    assert read_all(data) == expected


def test_a_lone_record_needs_no_company(writer: SegmentWriter) -> None:
    assert writer.write(b"head", b"body").result(timeout=60) == 0
    assert writer.end == 1
    assert writer.groups == 1


def test_what_arrives_during_a_sync_is_the_next_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    syncing, go_on = threading.Event(), threading.Event()
    writer = SegmentWriter(tmp_path)

    def slow(_: int) -> None:
        syncing.set()
        assert go_on.wait(60)

    monkeypatch.setattr(os, "fdatasync", slow)
    futures = [writer.write(b"", b"first")]
    assert syncing.wait(60)
    futures += [writer.write(b"", b"%d" % index) for index in range(20)]
    go_on.set()

    assert [future.result(timeout=60) for future in futures] == list(range(21))
    assert (writer.groups, writer.largest_group) == (2, 20)
    writer.close()


def test_on_a_slow_disk_those_who_came_together_are_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    syncing, go_on = threading.Event(), threading.Event()

    def slow(descriptor: int) -> None:
        syncing.set()
        assert go_on.wait(60)
        os.fdatasync(descriptor)

    monkeypatch.setattr("sidelight.logger._segments._PATIENCE_S", 60.0)
    writer = SegmentWriter(tmp_path, sync=slow)
    futures = [writer.write(b"", b"first")]
    assert syncing.wait(60)
    futures += [writer.write(b"", b"%d" % index) for index in range(40)]
    writer._archive.usual_sync_s = 1.0
    go_on.set()
    for _ in range(3):
        # Who was answered comes again, one after the other.
        assert all(future.result(timeout=60) is not None for future in futures)
        futures = [writer.write(b"", b"again") for _ in range(40)]

    assert [future.result(timeout=60) for future in futures] == list(range(121, 161))
    assert writer.groups <= 2 + 3 * 2
    writer.close()
    assert verify(tmp_path).ok


def test_a_loop_looks_twice_more_for_those_who_came_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # However busy the machine of this test is.
    monkeypatch.setattr("sidelight.logger._segments._SLOW_SYNC_S", 1e9)
    turns: list[Callable[[], None]] = []
    done: list[int] = []
    writer = SegmentWriter(tmp_path, gather=turns.append)

    def append_and_turn(n_records: int, n_turns: int) -> list[int]:
        for _ in range(n_records):
            writer.append(b"", b"", lambda position, _: done.append(position))
        ends = []
        for _ in range(n_turns):
            assert len(turns) == 1
            turns.pop()()
            ends.append(writer.end)
        return ends

    assert append_and_turn(3, 1) == [3]
    assert append_and_turn(1, 2) == [3, 3]
    assert append_and_turn(2, 1) == [6]
    assert append_and_turn(1, 3) == [6, 6, 7]
    # Who was alone last time waits for nobody.
    assert append_and_turn(1, 1) == [8]
    assert turns == []
    assert done == list(range(8))
    assert writer.groups == 4
    writer.close()


def test_a_loop_serves_others_before_what_an_answer_brings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # However busy the machine of this test is.
    monkeypatch.setattr("sidelight.logger._segments._SLOW_SYNC_S", 1e9)
    turns: list[Callable[[], None]] = []
    ends: list[int] = []
    writer = SegmentWriter(tmp_path, gather=turns.append)

    def next_one(position: int, error: JournalError | None) -> None:
        assert error is None
        if position < 4:
            writer.append(b"", b"pipelined", next_one)

    writer.append(b"", b"first", next_one)
    while turns:
        assert len(turns) == 1
        turns.pop()()
        ends.append(writer.end)
    writer.close()

    assert ends == [1, 2, 3, 4, 5]


def test_what_takes_a_loop_too_long_is_left_to_the_thread(tmp_path: Path) -> None:
    turns: list[Callable[[], None]] = []
    threads: list[int] = []
    writer = SegmentWriter(tmp_path, segment_bytes=SEGMENT_HEADER_BYTES + 1, gather=turns.append)
    for _ in range(2):
        writer.append(b"", b"x", lambda _, __: threads.append(threading.get_ident()))
        while turns:
            turns.pop()()
    writer.close()

    # The second record begins a segment.
    assert threads[0] == threading.get_ident()
    assert threads[1] != threading.get_ident()
    assert verify(tmp_path).ok


def test_who_is_waited_for_and_does_not_come_delays_nobody_for_long(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path)
    writer._archive.usual_sync_s = 1.0
    writer._wanted = 1000.0

    assert writer.write(b"", b"alone").result(timeout=60) == 0
    writer._wanted = 1000.0
    writer._archive.usual_sync_s = 1.0
    futures = [writer.write(b"", b"the last")]
    writer.close()
    assert futures[0].result(timeout=60) == 1


def test_nothing_is_read_before_it_is_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    syncing, go_on = threading.Event(), threading.Event()
    writer = SegmentWriter(tmp_path)
    reader = SegmentReader(tmp_path)

    def slow(_: int) -> None:
        syncing.set()
        assert go_on.wait(60)

    monkeypatch.setattr(os, "fdatasync", slow)
    future = writer.write(b"", b"body")
    assert syncing.wait(60)

    assert reader.read(0, max_records=9, max_bytes=99) == []
    go_on.set()
    future.result(timeout=60)
    assert len(reader.read(0, max_records=9, max_bytes=99)) == 1
    reader.close()
    writer.close()


def test_a_reader_follows_a_writer_from_segment_to_segment(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path, segment_bytes=500)
    reader = SegmentReader(tmp_path)
    for index in range(50):
        writer.write(b"h", b"%0100d" % index).result(timeout=60)
        (record,) = reader.read(index, max_records=9, max_bytes=1)
        assert record.body == b"%0100d" % index

    writer.close()
    assert len(segment_paths(tmp_path / "raw")) > 5
    assert reader.begin() == 0
    assert reader.read(50, max_records=9, max_bytes=9) == []
    reader.close()


def test_a_record_larger_than_the_bound_is_still_read(writer: SegmentWriter) -> None:
    writer.write(b"", bytes(100_000)).result(timeout=60)
    reader = SegmentReader(writer._archive._data)

    assert len(reader.read(0, max_records=9, max_bytes=10)[0].body) == 100_000
    reader.close()


def test_receive_times_never_decrease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([5_000, 4_000, 6_000, 1_000])
    monkeypatch.setattr(time, "time_ns", lambda: next(clock))
    write_groups(tmp_path, [[(b"", b"1")], [(b"", b"2")], [(b"", b"3")]])
    write_groups(tmp_path, [[(b"", b"4")]])
    monkeypatch.undo()
    reader = SegmentReader(tmp_path)

    records = reader.read(0, max_records=9, max_bytes=999)
    assert [record.received_ns for record in records] == [5_000, 5_000, 6_000, 6_000]
    reader.close()


@pytest.mark.parametrize("mark", ["kept", "lost"])
def test_a_journal_cut_at_any_byte_keeps_its_whole_groups(tmp_path: Path, mark: str) -> None:
    groups = [[(b"a", b"bc")], [(b"d" * 9, b""), (b"", b"e" * 30)], [(b"", b"f")]]
    ends = [0]
    whole = tmp_path / "whole"
    for count in range(1, len(groups) + 1):
        shutil.rmtree(whole, ignore_errors=True)
        write_groups(whole, groups[:count])
        ends.append((whole / "raw" / segment_name(0)).stat().st_size)
    content = (whole / "raw" / segment_name(0)).read_bytes()

    for size in range(len(content) + 1):
        data = tmp_path / "cut"
        shutil.rmtree(data, ignore_errors=True)
        shutil.copytree(whole, data)
        kept = max(count for count, end in enumerate(ends) if end <= size or count == 0)
        expected = [record for group in groups[:kept] for record in group]
        opened = DurableMark(data, writable=True)
        opened.value = len(expected)
        opened.close()
        if mark == "lost":
            (data / "run" / "durable").unlink()
        os.truncate(data / "raw" / segment_name(0), size)

        writer = SegmentWriter(data)
        assert writer.end == len(expected)
        torn = size - ends[kept] if kept else max(0, size - SEGMENT_HEADER_BYTES)
        assert writer.recovery.cut_bytes == (torn if kept or size >= 52 else size)
        assert writer.write(b"", b"new").result(timeout=60) == len(expected)
        writer.close()
        assert read_all(data) == [*expected, (b"", b"new")]
        assert verify(data).ok


def test_acknowledged_records_that_are_gone_are_reported_not_replaced(tmp_path: Path) -> None:
    write_groups(tmp_path, [[(b"", b"1")], [(b"", b"2")]])
    path = tmp_path / "raw" / segment_name(0)
    os.truncate(path, path.stat().st_size - 1)

    writer = SegmentWriter(tmp_path)
    assert writer.recovery.damaged == (path.name,)
    assert writer.recovery.lost_records == 1
    # Position 1 may have been consumed: it is never given to another record.
    assert writer.write(b"", b"3").result(timeout=60) == 2
    writer.close()
    reader = SegmentReader(tmp_path)
    assert reader.read(0, max_records=9, max_bytes=99)[0].body == b"1"
    with pytest.raises(JournalDamaged, match="position 1"):
        reader.read(1, max_records=9, max_bytes=99)
    assert reader.skip(1) == 2
    assert reader.read(2, max_records=9, max_bytes=99)[0].body == b"3"
    reader.close()
    assert not verify(tmp_path).ok


def test_damage_in_the_middle_is_never_cut(tmp_path: Path) -> None:
    write_groups(tmp_path, [[(b"", b"1" * 50)], [(b"", b"2" * 50)], [(b"", b"3" * 50)]])
    path = tmp_path / "raw" / segment_name(0)
    content = bytearray(path.read_bytes())
    second = content.find(GROUP_MAGIC, content.find(GROUP_MAGIC) + 1)
    content[second] ^= 1
    path.write_bytes(content)
    (tmp_path / "run" / "durable").unlink()

    writer = SegmentWriter(tmp_path)
    assert writer.recovery.damaged == (path.name,)
    assert writer.recovery.cut_bytes == 0
    assert path.read_bytes() == content
    assert writer.write(b"", b"4").result(timeout=60) == 3
    writer.close()
    reader = SegmentReader(tmp_path)
    assert len(reader.read(0, max_records=9, max_bytes=999)) == 1
    with pytest.raises(JournalDamaged):
        reader.read(1, max_records=9, max_bytes=999)
    assert reader.skip(1) == 2
    rest = reader.read(2, max_records=9, max_bytes=999)
    assert [record.body[:1] for record in rest] == [b"3", b"4"]
    reader.close()
    report = verify(tmp_path)
    assert not report.ok
    assert path.name in report.findings[0]


@pytest.mark.parametrize(
    ("number", "expected"),
    [pytest.param(28, JournalFull, id="ENOSPC"), pytest.param(5, JournalError, id="EIO")],
)
def test_a_failed_write_takes_the_whole_group_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, expected: type[JournalError]
) -> None:
    writer = SegmentWriter(tmp_path)
    writer.write(b"", b"before").result(timeout=60)

    def half(file: int, buffers: tuple[bytes, ...]) -> None:
        write_all(file, (b"".join(buffers)[:20],))
        raise OSError(number, "no")

    monkeypatch.setattr("sidelight.logger._segments_archive.write_all", half)
    with pytest.raises(expected):
        writer.write(b"", b"refused").result(timeout=60)
    monkeypatch.undo()

    assert writer.write(b"", b"after").result(timeout=60) == 1
    writer.close()
    assert [body for _, body in read_all(tmp_path)] == [b"before", b"after"]
    assert verify(tmp_path).ok


@pytest.mark.parametrize("before", [0, 2])
def test_a_file_whose_sync_failed_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: int
) -> None:
    writer = SegmentWriter(tmp_path)
    for index in range(before):
        writer.write(b"", b"%d" % index).result(timeout=60)
    left = writer._archive._file

    def fail(_: int) -> None:
        raise OSError(5, "no")

    monkeypatch.setattr(os, "fdatasync", fail)
    with pytest.raises(JournalError):
        writer.write(b"", b"refused").result(timeout=60)
    monkeypatch.undo()
    assert writer._archive._file != left

    assert writer.write(b"", b"after").result(timeout=60) == before
    writer.close()
    assert len(segment_paths(tmp_path / "raw")) == (2 if before else 1)
    assert len(read_all(tmp_path)) == before + 1
    assert verify(tmp_path).ok


def test_a_full_disk_loses_nothing_and_later_records_are_taken(tmp_path: Path) -> None:
    code = """
import resource, sys
from pathlib import Path
from sidelight.logger._segments import SegmentWriter
from sidelight.logger.errors import JournalFull
writer = SegmentWriter(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, resource.RLIM_INFINITY))
taken, full = 0, 0
for index in range(20):
    try:
        writer.write(b"", bytes(1000)).result(timeout=60)
        taken += 1
    except JournalFull:
        full += 1
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
writer.write(b"", b"after").result(timeout=60)
writer.close()
print(taken, full)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )

    taken, full = map(int, done.stdout.split())
    assert (taken, full) == (4, 16)
    assert len(read_all(tmp_path)) == 5
    assert verify(tmp_path).ok


WRITER = """
import sys
from pathlib import Path
from sidelight.logger._segments import SegmentWriter
writer = SegmentWriter(Path(sys.argv[1]), segment_bytes=20000)
print("ready", flush=True)
out = sys.stdout
for line in sys.stdin:
    body = line.strip().encode()
    def done(position, error, body=body):
        out.write(f"{position} {body.decode()}\\n")
        out.flush()
    writer.append(b"head", body, done)
"""


def test_every_acknowledged_record_survives_kills(tmp_path: Path) -> None:
    acknowledged: dict[int, bytes] = {}
    sent = 0
    for round_ in range(10):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        lines = [b"%d-%s" % (index, b"x" * (index % 300)) for index in range(sent, sent + 4000)]
        feeder = threading.Thread(target=_feed, args=(process, lines))
        feeder.start()
        for _ in range(30 + 70 * round_):
            position, body = process.stdout.readline().split()
            acknowledged[int(position)] = body
        process.send_signal(signal.SIGKILL)
        for line in process.stdout.read().split(b"\n")[:-1]:
            position, body = line.split()
            acknowledged[int(position)] = body
        feeder.join()
        process.wait()
        process.stdin.close()
        process.stdout.close()
        sent = max(int(body.split(b"-")[0]) for body in acknowledged.values()) + 1

    writer = SegmentWriter(tmp_path)
    assert writer.recovery.damaged == ()
    writer.close()
    stored = read_all(tmp_path)
    assert len(acknowledged) > 1000
    assert all(stored[position] == (b"head", body) for position, body in acknowledged.items())
    assert verify(tmp_path).ok


def _feed(process: "subprocess.Popen[bytes]", lines: list[bytes]) -> None:
    assert process.stdin is not None
    try:
        process.stdin.write(b"\n".join(lines) + b"\n")
        process.stdin.flush()
    except BrokenPipeError:
        return


def test_a_clean_stop_covers_every_byte_and_leaves_no_empty_segment(tmp_path: Path) -> None:
    SegmentWriter(tmp_path).close()
    assert [path.name for path in (tmp_path / "raw").iterdir()] == ["checkpoint.json"]

    writer = SegmentWriter(tmp_path)
    writer.write(b"", b"1").result(timeout=60)
    writer.close()
    writer.close()
    checkpoint = Checkpoint.load(tmp_path)
    assert checkpoint is not None
    assert checkpoint.closed
    assert [segment.records for segment in checkpoint.segments] == [1]


def test_every_start_opens_a_new_segment(tmp_path: Path) -> None:
    for index in range(3):
        write_groups(tmp_path, [[(b"", b"%d" % index)]])

    assert [first for first, _ in segment_paths(tmp_path / "raw")] == [0, 1, 2]
    assert verify(tmp_path).ok


def test_two_writers_of_one_folder_are_refused(writer: SegmentWriter) -> None:
    with pytest.raises(FolderInUse, match="events"):
        SegmentWriter(writer._archive._data)


@pytest.mark.parametrize(
    ("text", "error"), [("7\n", FolderTooNew), ("what\n", JournalDamaged), ("", JournalDamaged)]
)
def test_a_folder_of_another_format_is_refused(
    tmp_path: Path, text: str, error: type[JournalError]
) -> None:
    (tmp_path / "format").write_text(text)

    with pytest.raises(error, match="expected"):
        open_folder(tmp_path)


@pytest.mark.parametrize(
    "held", ["raw/00000000000000000000.seg", "raw/checkpoint.json", "state.db"]
)
def test_a_folder_with_data_and_without_its_format_is_refused(tmp_path: Path, held: str) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / held).touch()

    with pytest.raises(JournalDamaged, match="got none beside data"):
        open_folder(tmp_path)
    assert not (tmp_path / "format").exists()


def test_a_folder_that_holds_tokens_alone_is_new(tmp_path: Path) -> None:
    (tmp_path / "access").mkdir()
    (tmp_path / "access" / "tokens.json").touch()

    assert open_folder(tmp_path) == 1


def test_an_archive_without_its_run_folder_can_be_read(tmp_path: Path) -> None:
    write_groups(tmp_path, [[(b"", b"1")], [(b"", b"2")]], segment_bytes=1)
    shutil.rmtree(tmp_path / "run")

    assert [body for _, body in read_all(tmp_path)] == [b"1", b"2"]


def test_an_empty_folder_has_no_records(tmp_path: Path) -> None:
    reader = SegmentReader(tmp_path)

    assert reader.end() == reader.begin() == 0
    assert reader.read(0, max_records=1, max_bytes=1) == []
    assert reader.record(0) is None


def test_one_failing_acknowledgement_costs_the_others_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    writer = SegmentWriter(tmp_path)
    done: list[int] = []

    def broken(_: int, __: JournalError | None) -> None:
        raise ValueError

    def fine(position: int, _: JournalError | None) -> None:
        done.append(position)

    writer._commit([(b"", b"1", broken), (b"", b"2", fine)])
    writer.close()

    assert done == [1]
    assert "acknowledgement" in caplog.text


def test_a_loop_that_is_closed_already_does_not_stop_the_journal(tmp_path: Path) -> None:
    def closed(_: Callable[[], None]) -> None:
        raise RuntimeError("Event loop is closed")

    writer = SegmentWriter(tmp_path, deliver=closed)
    writer.append(b"", b"1", lambda _, __: None)
    writer.close()

    assert len(read_all(tmp_path)) == 1


@given(st.integers(0, 10**19 - 1), st.binary(min_size=32, max_size=32))
def test_segment_headers_and_names_come_back(first: int, previous: bytes) -> None:
    header = decode_segment_header(encode_segment_header(first, previous))

    assert (header.first, header.previous) == (first, previous)
    assert segment_first(segment_name(first)) == first


@pytest.mark.parametrize("name", ["1.seg", "checkpoint.json", "0" * 20, "x" * 20 + ".seg"])
def test_other_names_are_no_segments(name: str) -> None:
    assert segment_first(name) is None


@given(st.binary(max_size=80))
def test_other_bytes_are_no_segment_header(data: bytes) -> None:
    with pytest.raises(BadBytes):
        decode_segment_header(data)


@given(st.lists(records_of_requests, min_size=1, max_size=4), st.binary(max_size=100), st.binary())
def test_a_group_is_found_behind_anything(
    records: list[Record], before: bytes, after: bytes
) -> None:
    header, payloads, digest = encode_group(
        CHAIN_START, first=2, time_ns=3, records=[(*record, None) for record in records]
    )
    data = before + header + payloads + after

    found = find_group(data, behind=0, position=1)
    assert found is not None
    assert (found.offset, found.digest, found.n) == (len(before), digest, len(records))
    assert find_group(data, behind=len(before) + 1, position=1) is None
    assert find_group(data, behind=0, position=2) is None


def test_what_is_handed_over_before_the_gathering_ends_is_one_group(tmp_path: Path) -> None:
    later: list[Callable[[], None]] = []
    writer = SegmentWriter(tmp_path, gather=later.append)
    futures = [writer.write(b"h", b"%d" % number) for number in range(5)]
    assert len(later) == 1
    later[0]()
    assert [future.result(60) for future in futures] == [0, 1, 2, 3, 4]
    assert writer.groups == 1
    writer.write(b"h", b"not told yet")
    writer.close()
    assert writer.end == 6
