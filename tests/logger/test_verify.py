"""Whatever is done to the archive, `verify` sees it and names the place."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sidelight.logger._checkpoint import Checkpoint
from sidelight.logger._segments import SegmentWriter
from sidelight.logger._segments_format import segment_name
from sidelight.logger._segments_signature import Signer
from sidelight.logger._verify import verify


def write(writer: SegmentWriter, groups: list[list[bytes]]) -> None:
    for group in groups:
        writer._commit([(b"head", body, lambda _, __: None) for body in group])


def kill(writer: SegmentWriter) -> None:
    writer._stopping = True
    writer._tokens.put(None)
    writer._thread.join()
    writer._archive._release()


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Three closed segments with positions 0..2, 3..4 and 5."""
    data = tmp_path / "data"
    for groups in ([[b"a"], [b"bb", b"ccc"]], [[b"d"], [b"e"]], [[b"f"]]):
        writer = SegmentWriter(data)
        write(writer, groups)
        writer.close()
    return data


def test_a_closed_archive_is_intact_and_counted(archive: Path) -> None:
    report = verify(archive)

    assert report.ok
    assert report.findings == ()
    assert (report.segments, report.records) == (3, 6)
    assert report.bytes == sum(path.stat().st_size for path in (archive / "raw").iterdir())


@pytest.mark.parametrize("number", range(4))
def test_a_folder_in_the_place_of_a_file_is_named(archive: Path, number: int) -> None:
    path = sorted((archive / "raw").iterdir())[number]
    path.unlink()
    path.mkdir()

    assert f"raw/{path.name}: cannot be read: Is a directory" in verify(archive).findings


def test_signature_in_other_letters_is_a_changed_byte(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path, signer=Signer(Ed25519PrivateKey.generate()))
    write(writer, [[b"a"]])
    writer.close()
    path = tmp_path / "raw" / "checkpoint.json"
    text = path.read_bytes()
    signature = json.loads(text)["signature"].encode()
    assert verify(tmp_path).ok
    path.write_bytes(text.replace(signature, signature.upper()))

    assert verify(tmp_path).findings[0].startswith("raw/checkpoint.json: was changed")


@pytest.mark.parametrize("mark", ["kept", "lost"])
def test_every_flipped_byte_is_found_and_named(archive: Path, mark: str) -> None:
    if mark == "lost":
        shutil.rmtree(archive / "run")
    for path in (archive / "raw").iterdir():
        content = path.read_bytes()
        for place in range(len(content)):
            changed = bytearray(content)
            changed[place] ^= 1 << (place % 8)
            path.write_bytes(changed)
            report = verify(archive)
            assert not report.ok, (path.name, place)
            assert any(path.name in finding for finding in report.findings)
        path.write_bytes(content)
    assert verify(archive).ok


@pytest.mark.parametrize("size", [(1 << 20) - 60, 1 << 20, (1 << 20) + 60, 5 << 19])
def test_a_long_group_is_checked_to_its_last_byte(tmp_path: Path, size: int) -> None:
    writer = SegmentWriter(tmp_path)
    write(writer, [[bytes(size), b"x"], [b"y"]])
    writer.close()
    assert verify(tmp_path).ok

    (path,) = (tmp_path / "raw").glob("*.seg")
    content = bytearray(path.read_bytes())
    for place in (size // 2, size, content.rindex(b"x")):
        content[place] ^= 1
        path.write_bytes(content)
        assert not verify(tmp_path).ok
        content[place] ^= 1


def test_a_finding_names_byte_and_record(archive: Path) -> None:
    path = archive / "raw" / segment_name(3)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)

    (finding,) = verify(archive).findings
    assert finding.startswith(f"raw/{path.name}: was changed, at byte ")
    assert "record 4" in finding


@pytest.mark.parametrize("first", [0, 3, 5])
@pytest.mark.parametrize("size", [0, 10, 60, -1])
def test_a_truncated_segment_is_found(archive: Path, first: int, size: int) -> None:
    path = archive / "raw" / segment_name(first)
    os.truncate(path, size if size >= 0 else path.stat().st_size - 1)

    report = verify(archive)
    assert not report.ok
    assert path.name in report.findings[0]


@pytest.mark.parametrize("first", [0, 3, 5])
def test_a_deleted_segment_is_found(archive: Path, first: int) -> None:
    (archive / "raw" / segment_name(first)).unlink()

    report = verify(archive)
    assert not report.ok
    assert f"raw/{segment_name(first)}: is missing" in report.findings[0]


def swap(raw: Path) -> str:
    one, other = raw / segment_name(0), raw / segment_name(3)
    one.rename(raw / "between")
    other.rename(one)
    (raw / "between").rename(other)
    return one.name


def duplicate(raw: Path) -> str:
    shutil.copy(raw / segment_name(5), raw / segment_name(6))
    return segment_name(6)


def append(raw: Path) -> str:
    with (raw / segment_name(5)).open("ab") as file:
        file.write((raw / segment_name(5)).read_bytes()[52:])
    return segment_name(5)


def add(raw: Path) -> str:
    (raw / "note.txt").write_text("hello")
    return "note.txt"


def link(raw: Path) -> str:
    path = raw / segment_name(3)
    path.rename(raw.parent / "elsewhere")
    path.symlink_to(raw.parent / "elsewhere")
    return path.name


def drop_group(raw: Path) -> str:
    path = raw / segment_name(5)
    path.write_bytes(path.read_bytes()[:52])
    return path.name


def forget_checkpoint(raw: Path) -> str:
    (raw / "checkpoint.json").unlink()
    return "checkpoint.json"


def reorder_checkpoint(raw: Path) -> str:
    path = raw / "checkpoint.json"
    content = json.loads(path.read_bytes())
    content["segments"].reverse()
    path.write_text(json.dumps(content))
    return path.name


def nonsense_checkpoint(raw: Path) -> str:
    (raw / "checkpoint.json").write_bytes(b"[" * 100_000)
    return "checkpoint.json"


@pytest.mark.parametrize(
    "tamper",
    [
        swap,
        duplicate,
        append,
        add,
        link,
        drop_group,
        forget_checkpoint,
        reorder_checkpoint,
        nonsense_checkpoint,
    ],
)
def test_tampering_is_found_and_named(archive: Path, tamper: Callable[[Path], str]) -> None:
    name = tamper(archive / "raw")

    report = verify(archive)
    assert not report.ok
    assert any(name in finding for finding in report.findings)


def test_a_checkpoint_made_for_other_records_does_not_fit(archive: Path) -> None:
    checkpoint = Checkpoint.load(archive)
    assert checkpoint is not None
    Checkpoint(segments=checkpoint.segments[:2], closed=True).store(archive)

    report = verify(archive)
    assert not report.ok
    assert segment_name(5) in report.findings[0]


def test_a_live_journal_is_intact(archive: Path) -> None:
    writer = SegmentWriter(archive, segment_bytes=1)
    write(writer, [[b"g"], [b"h"]])

    report = verify(archive)
    assert report.ok
    assert report.records == 8
    writer.close()


def test_a_killed_journal_with_a_torn_tail_is_intact(archive: Path) -> None:
    writer = SegmentWriter(archive)
    write(writer, [[b"g"]])
    kill(writer)
    with (archive / "raw" / segment_name(6)).open("ab") as file:
        file.write(b"\xf5SLg torn")

    report = verify(archive)
    assert report.ok
    assert (report.records, report.tail_bytes) == (7, 9)


def test_acknowledged_records_missing_behind_the_checkpoint_are_found(archive: Path) -> None:
    writer = SegmentWriter(archive)
    write(writer, [[b"g"], [b"h"]])
    kill(writer)
    path = archive / "raw" / segment_name(6)
    os.truncate(path, path.stat().st_size - 1)

    assert "records 7 to 7 are missing" in verify(archive).findings[0]


@pytest.mark.parametrize("what", ["changed", "missing"])
def test_a_start_does_not_whitewash_a_checkpoint(archive: Path, what: str) -> None:
    path = archive / "raw" / "checkpoint.json"
    if what == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes().replace(b"records", b"rekords"))
    for _ in range(2):
        SegmentWriter(archive).close()

    report = verify(archive)
    assert report.records == 6
    assert not report.ok
    assert what in report.findings[0]


def test_no_archive_is_no_intact_one(tmp_path: Path) -> None:
    assert verify(tmp_path).findings == ("raw/checkpoint.json: is missing",)
