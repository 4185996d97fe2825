"""Segments that are deleted on purpose: signed for, killed at any step, told from a theft."""

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sidelight.logger import _segments_archive, _verify
from sidelight.logger._checkpoint import Checkpoint
from sidelight.logger._segments import SegmentReader, SegmentWriter
from sidelight.logger._segments_format import segment_name
from sidelight.logger._segments_signature import Signer
from sidelight.logger._verify import verify
from sidelight.logger.errors import JournalError, JournalFull

_WHY = "older than 30d"


@pytest.fixture(scope="module")
def signer() -> Signer:
    return Signer(Ed25519PrivateKey.generate())


def _open(data: Path, signer: Signer) -> SegmentWriter:
    # Each record fills its segment.
    return SegmentWriter(data, signer=signer, segment_bytes=1)


@pytest.fixture
def writer(tmp_path: Path, signer: Signer) -> Iterator[SegmentWriter]:
    """Segments 0, 1 and 2 are sealed, 3 is written to."""
    opened = _open(tmp_path, signer)
    for number in range(4):
        opened.write(b"head", b"body %d" % number).result(60)
    yield opened
    opened.close()


def _names(data: Path) -> set[str]:
    return {path.name for path in (data / "raw").glob("*.seg")}


@pytest.mark.parametrize("chosen", [[0], [1], [0, 1, 2], [2]])
def test_a_retired_segment_is_gone_and_the_archive_intact(
    writer: SegmentWriter, tmp_path: Path, chosen: list[int], signer: Signer
) -> None:
    retired = writer.retire({segment_name(first): _WHY for first in chosen})

    assert [segment.first for segment in retired] == chosen
    assert _names(tmp_path) == {segment_name(n) for n in range(4) if n not in chosen}
    assert verify(tmp_path).findings == ()
    writer.write(b"head", b"later").result(60)
    writer.close()
    report = verify(tmp_path, public_key=signer.public_key)
    assert (report.findings, report.retired, report.records) == ((), len(chosen), 5 - len(chosen))
    again = _open(tmp_path, signer)
    assert (again.end, again.recovery.findings) == (5, ())
    again.close()
    assert verify(tmp_path).ok


def test_the_checkpoint_keeps_what_was_deleted_and_why(
    writer: SegmentWriter, tmp_path: Path
) -> None:
    before = Checkpoint.load(tmp_path)

    writer.retire({segment_name(1): _WHY})

    after = Checkpoint.load(tmp_path)
    assert before is not None
    assert after is not None
    was, now = before.segments[1], after.segments[1]
    assert (now.name, now.digest, now.records, now.bytes) == (
        *(was.name, was.digest, was.records, was.bytes),
    )
    assert (now.why, now.retired_ns > 0) == (_WHY, True)
    assert [segment.is_retired for segment in after.segments] == [False, True, False]


def test_a_segment_that_a_stranger_deleted_is_still_missed(
    writer: SegmentWriter, tmp_path: Path
) -> None:
    writer.retire({segment_name(0): _WHY})
    (tmp_path / "raw" / segment_name(1)).unlink()

    (finding,) = verify(tmp_path).findings
    assert finding.startswith(f"raw/{segment_name(1)}: is missing")


def test_a_retirement_that_a_stranger_wrote_down_is_found(
    writer: SegmentWriter, tmp_path: Path, signer: Signer
) -> None:
    writer.close()
    copy = tmp_path / "copy"
    shutil.copytree(tmp_path / "raw", copy / "raw")
    shutil.copy(tmp_path / "format", copy)
    stranger = SegmentWriter(copy, signer=Signer(Ed25519PrivateKey.generate()))
    stranger.retire({segment_name(1): _WHY})
    stranger.close()

    assert any(
        "is signed by" in line for line in verify(copy, public_key=signer.public_key).findings
    )
    assert any("was signed by" in line for line in verify(copy).findings)


def test_only_what_is_sealed_and_sound_is_retired(writer: SegmentWriter, tmp_path: Path) -> None:
    writer.retire({segment_name(0): _WHY})

    assert writer.retire({segment_name(0): "twice"}) == []
    assert writer.retire({segment_name(3): "still written to"}) == []
    assert writer.retire({"../format": "no segment"}) == []
    checkpoint = Checkpoint.load(tmp_path)
    assert checkpoint is not None
    assert checkpoint.segments[0].why == _WHY


def test_a_damaged_segment_is_evidence_and_stays(tmp_path: Path, signer: Signer) -> None:
    writer = _open(tmp_path / "data", signer)
    for number in range(3):
        writer.write(b"head", b"body %d" % number).result(60)
    # As a kill leaves it: the last one is not in the checkpoint yet.
    killed = tmp_path / "killed"
    shutil.copytree(tmp_path / "data", killed)
    writer.close()
    path = killed / "raw" / segment_name(2)
    path.write_bytes(path.read_bytes()[:-1] + b"X")
    writer = _open(killed, signer)

    assert writer.recovery.damaged == (segment_name(2),)
    assert writer.retire({segment_name(2): _WHY}) == []
    writer.close()
    assert segment_name(2) in _names(killed)


@pytest.mark.parametrize("left", [(), (0,), (0, 1)])
def test_a_kill_between_checkpoint_and_deletion_is_made_good(
    tmp_path: Path, signer: Signer, left: tuple[int, ...]
) -> None:
    writer = _open(tmp_path / "data", signer)
    for number in range(4):
        writer.write(b"head", b"body %d" % number).result(60)
    saved = {n: (tmp_path / "data" / "raw" / segment_name(n)).read_bytes() for n in (0, 1)}
    writer.retire({segment_name(n): _WHY for n in (0, 1)})
    killed = tmp_path / "killed"
    shutil.copytree(tmp_path / "data", killed)
    writer.close()
    for number in left:
        (killed / "raw" / segment_name(number)).write_bytes(saved[number])

    # Nothing is wrong before the next start, and nothing of it is left behind it; twice.
    assert verify(killed).ok
    for _ in range(2):
        again = _open(killed, signer)
        assert (again.end, again.recovery.findings) == (4, ())
        again.close()
    assert _names(killed) == {segment_name(2), segment_name(3)}
    assert verify(killed).ok


def test_what_is_left_of_a_retired_segment_is_checked_as_well(
    writer: SegmentWriter, tmp_path: Path
) -> None:
    writer.retire({segment_name(1): _WHY})
    (tmp_path / "raw" / segment_name(1)).write_bytes(b"something else")

    assert not verify(tmp_path).ok


def test_a_full_disk_deletes_nothing(
    writer: SegmentWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "store", full)
        with pytest.raises(JournalFull):
            writer.retire({segment_name(0): _WHY})

    assert segment_name(0) in _names(tmp_path)
    assert verify(tmp_path).findings == ()
    assert len(writer.retire({segment_name(0): _WHY})) == 1


def test_a_file_that_cannot_be_deleted_now_goes_at_the_next_start(
    writer: SegmentWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signer: Signer
) -> None:
    def refuse(_: Path) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(_segments_archive, "sync_folder", refuse)
        patch.setattr(Path, "unlink", lambda *_, **__: refuse(Path()))
        assert len(writer.retire({segment_name(0): _WHY})) == 1

    writer.close()
    assert segment_name(0) in _names(tmp_path)
    _open(tmp_path, signer).close()
    assert segment_name(0) not in _names(tmp_path)


def test_nothing_is_retired_without_a_signature_or_by_a_closed_journal(
    tmp_path: Path, signer: Signer
) -> None:
    unsigned = SegmentWriter(tmp_path / "unsigned", segment_bytes=1)
    signed = _open(tmp_path / "signed", signer)
    signed.close()

    with pytest.raises(JournalError, match="key to sign with"):
        unsigned.retire({segment_name(0): _WHY})
    with pytest.raises(JournalError, match="closed"):
        signed.retire({segment_name(0): _WHY})
    unsigned.close()


def test_a_reader_tells_what_was_retired_from_what_is_damaged(
    writer: SegmentWriter, tmp_path: Path
) -> None:
    reader = SegmentReader(tmp_path)
    assert reader.record(1) is not None
    writer.retire({segment_name(1): _WHY})
    other = SegmentReader(tmp_path)

    assert other.record(1) is None
    assert other.retired_until(1) == 2
    assert other.retired_until(2) is None
    assert other.record(2) is not None
    reader.close()
    other.close()


def test_a_folder_of_format_2_is_upgraded_and_no_stranger_is_trusted(
    tmp_path: Path, signer: Signer
) -> None:
    stranger = Signer(Ed25519PrivateKey.generate())
    for number, late in enumerate((signer, stranger)):
        data = tmp_path / f"{number}"
        _open(data, late).close()
        (data / "format").write_text("2\n")

        _open(data, signer).close()

        assert (data / "format").read_text() == "5\n"
        assert verify(data).ok == (late is signer)


@pytest.mark.parametrize("when", ["listed", "opened"])
def test_what_is_retired_while_it_is_verified_is_not_missed(
    writer: SegmentWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    name = {"listed": "segment_paths", "opened": "scan_segment"}[when]
    before = getattr(_verify, name)
    retired: list[object] = []

    def retire_first(*arguments: Any, **options: Any) -> Any:
        if not retired:
            retired.extend(writer.retire({segment_name(n): _WHY for n in (0, 1)}))
        return before(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(_verify, name, retire_first)
        report = verify(tmp_path)

    assert (report.findings, report.retired) == ((), 2)


def test_a_kill_at_any_step_leaves_an_archive_that_is_intact(
    tmp_path: Path, signer: Signer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder is copied as it stands before each change of the disk, and started; twice."""
    data = tmp_path / "data"
    writer = _open(data, signer)
    for number in range(4):
        writer.write(b"head", b"body %d" % number).result(60)
    images: list[Path] = []

    def before(change: Callable[..., Any]) -> Callable[..., Any]:
        def recorded(*arguments: Any, **options: Any) -> Any:
            image = tmp_path / f"image{len(images)}"
            images.append(image)
            shutil.copytree(data, image)
            return change(*arguments, **options)

        return recorded

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", before(Path.replace))
        patch.setattr(Path, "unlink", before(Path.unlink))
        patch.setattr(os, "fsync", before(os.fsync))
        writer.retire({segment_name(n): _WHY for n in (0, 2)})
    writer.close()

    assert len(images) >= 6
    for image in images:
        assert verify(image, public_key=signer.public_key).findings == ()
        for _ in range(2):
            again = _open(image, signer)
            assert (again.end, again.recovery.findings) == (4, ())
            again.close()
        report = verify(image, public_key=signer.public_key)
        assert report.findings == ()
        assert (report.records, report.retired) in {(4, 0), (2, 2)}


def test_a_segment_that_was_begun_long_ago_is_sealed_without_another_record(
    tmp_path: Path, signer: Signer
) -> None:
    now_ns = 1_000
    writer = SegmentWriter(tmp_path, signer=signer, clock=lambda: now_ns)
    writer.seal_begun_before(10**18)
    writer.write(b"head", b"0").result(60)
    now_ns = 2_000
    writer.write(b"head", b"1").result(60)

    writer.seal_begun_before(1_000)
    writer.write(b"head", b"2").result(60)
    assert _names(tmp_path) == {segment_name(0)}
    writer.seal_begun_before(1_001)
    deadline = time.monotonic() + 60
    while _names(tmp_path) != {segment_name(0), segment_name(3)}:
        assert time.monotonic() < deadline, "not sealed"
    # Nothing is in the new one, however long that lasts.
    writer.seal_begun_before(10**18)
    writer.close()

    assert _names(tmp_path) == {segment_name(0)}
    assert verify(tmp_path).records == 3


def test_a_segment_that_cannot_be_begun_now_is_with_the_next_record(
    tmp_path: Path, signer: Signer, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = SegmentWriter(tmp_path, signer=signer)
    writer.write(b"head", b"0").result(60)
    tried = threading.Event()

    def full(*_: object) -> None:
        tried.set()
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "store", full)
        writer.seal_begun_before(2**62)
        assert tried.wait(60)
        with pytest.raises(JournalFull):
            writer.write(b"head", b"lost").result(60)

    assert writer.write(b"head", b"1").result(60) == 1
    writer.close()
    assert _names(tmp_path) == {segment_name(0), segment_name(1)}
    assert verify(tmp_path).findings == ()
