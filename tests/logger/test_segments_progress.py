"""What is signed while a segment is written to: after a kill nobody can make it anew unnoticed."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sidelight.logger import Signer, verify
from sidelight.logger._checkpoint import Checkpoint, LogHead
from sidelight.logger._segments import SegmentWriter
from sidelight.logger._segments_archive import Archive
from sidelight.logger._segments_format import (
    SEGMENT_HEADER_BYTES,
    chain_seed,
    encode_group,
    segment_paths,
)

_SIGNER = Signer(Ed25519PrivateKey.generate())


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    opened = _open(tmp_path / "data")
    yield opened
    opened.close()


def _open(data: Path) -> Archive:
    return Archive(data, segment_bytes=1 << 20, signer=_SIGNER, clock=lambda: 1, sync=None)


def _killed(archive: Archive, tmp_path: Path) -> Path:
    """Return the folder as a kill leaves it now."""
    target = tmp_path / "killed"
    shutil.copytree(archive._data, target)
    return target


def _forge(data: Path, bodies: list[bytes]) -> None:
    """Make the last segment anew, with a chain that holds."""
    first, path = segment_paths(data / "raw")[-1]
    header = path.read_bytes()[:SEGMENT_HEADER_BYTES]
    records = [(b"head", body, None) for body in bodies]
    group = encode_group(chain_seed(header), first=first, time_ns=1, records=records)
    path.write_bytes(header + group[0] + group[1])


def _stored_behind_a_write(writer: SegmentWriter, data: Path) -> Checkpoint:
    """Write one record, and return the checkpoint as the writer's turn leaves it."""
    writer.write(b"head", b"after").result(60)
    # The thread holds it from before it writes until it has signed what was asked for before.
    with writer._writing:
        stored = Checkpoint.load(data)
    assert stored is not None
    return stored


def test_signed_progress_is_intact_after_a_kill_and_what_came_since_is_counted(
    archive: Archive, tmp_path: Path
) -> None:
    archive.write([(b"head", b"one", None), (b"head", b"two", None)])
    archive.sign_progress()
    archive.write([(b"head", b"three", None)])
    data = _killed(archive, tmp_path)
    report = verify(data, public_key=_SIGNER.public_key)

    assert (report.ok, report.records, report.unsigned) == (True, 3, 1)
    _open(data).close()
    report = verify(data, public_key=_SIGNER.public_key)
    assert (report.ok, report.records, report.unsigned) == (True, 3, 0)


def test_chain_that_was_made_anew_behind_the_last_full_segment_is_found(
    archive: Archive, tmp_path: Path
) -> None:
    archive.write([(b"head", b"one", None)])
    archive.write([(b"head", b"two", None)])
    archive.sign_progress()
    data = _killed(archive, tmp_path)
    _forge(data, [b"one", b"2"])
    finding = "raw/00000000000000000000.seg: records 0 to 1 are not what was signed"

    assert verify(data).findings == (finding,)
    # It stays written down, whatever a start makes of it.
    _open(data).close()
    assert finding in verify(data).findings


def test_segment_that_is_gone_after_it_was_signed_is_found(
    archive: Archive, tmp_path: Path
) -> None:
    archive.write([(b"head", b"one", None)])
    archive.sign_progress()
    data = _killed(archive, tmp_path)
    segment_paths(data / "raw")[-1][1].unlink()
    (data / "run" / "durable").unlink()
    finding = "raw/00000000000000000000.seg: is missing, with records 0 to 0"

    assert verify(data).findings == (finding,)
    _open(data).close()
    assert finding in verify(data).findings


def test_copy_of_what_was_sealed_may_lack_the_segment_that_was_signed_while_written_to(
    archive: Archive, tmp_path: Path
) -> None:
    archive.write([(b"head", b"one", None)])
    archive.roll()
    archive.write([(b"head", b"two", None)])
    archive.sign_progress()
    data = _killed(archive, tmp_path)
    segment_paths(data / "raw")[-1][1].unlink()
    shutil.rmtree(data / "run")

    assert not verify(data).ok
    report = verify(data, sealed_only=True)
    assert (report.ok, report.records, report.unsigned) == (True, 1, 0)
    segment_paths(data / "raw")[0][1].unlink()
    assert not verify(data, sealed_only=True).ok


def test_nothing_new_is_not_signed_again(archive: Archive) -> None:
    path = archive._data / "raw" / "checkpoint.json"
    before = path.stat().st_ino, path.stat().st_mtime_ns
    archive.sign_progress()
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == before
    archive.write([(b"head", b"one", None)])
    archive.sign_progress()
    signed = path.stat().st_ino, path.stat().st_mtime_ns
    archive.sign_progress()

    assert (path.stat().st_ino, path.stat().st_mtime_ns) == signed != before


def test_segment_that_is_full_or_closed_is_covered_as_a_whole(archive: Archive) -> None:
    archive.write([(b"head", b"one", None)])
    archive.sign_progress()
    archive.roll()
    rolled = Checkpoint.load(archive._data)
    archive.write([(b"head", b"two", None)])
    archive.sign_progress()
    archive.close()
    closed = Checkpoint.load(archive._data)

    assert rolled is not None
    assert (len(rolled.segments), rolled.open) == (1, None)
    assert closed is not None
    assert (len(closed.segments), closed.open, closed.closed) == (2, None, True)


def test_checkpoint_that_cannot_be_stored_leaves_the_former_one(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive.write([(b"head", b"one", None)])
    archive.sign_progress()
    archive.write([(b"head", b"two", None)])
    with monkeypatch.context() as patch:

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        patch.setattr(Checkpoint, "store", full)
        with pytest.raises(OSError, match="space"):
            archive.sign_progress()
    archive.sign_progress()
    stored = Checkpoint.load(archive._data)

    assert stored is not None
    assert stored.open is not None
    assert stored.open.records == 2


def test_writer_signs_when_it_is_asked(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path, signer=_SIGNER)
    writer.write(b"head", b"one").result(60)
    writer.sign_progress()
    stored = _stored_behind_a_write(writer, tmp_path)
    writer.close()

    assert stored.open is not None
    assert stored.open.records in {1, 2}


def test_questions_alone_are_signed_when_there_are_new_ones_and_events_wait(
    tmp_path: Path,
) -> None:
    heads = [LogHead()]
    writer = SegmentWriter(tmp_path, signer=_SIGNER, watch=lambda _: (heads[-1], None))
    signed = []
    for grows in (False, True, False):
        if grows:
            heads.append(LogHead(entries=1, file="log", bytes=9, digest="d"))
        writer.write(b"head", b"before").result(60)
        writer.sign_progress(for_events=False)
        stored = _stored_behind_a_write(writer, tmp_path)
        signed.append((stored.access, 0 if stored.open is None else stored.open.records))
    writer.close()

    assert signed[0] == (LogHead(), 0)
    assert signed[1][0] == heads[1]
    assert signed[1][1] in {3, 4}
    assert signed[2] == signed[1]
