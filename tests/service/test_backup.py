"""A backup is one moment of a data folder, whole or not there."""

import json
import shutil
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sidelight.adapters import EmbeddedDocuments, Inferences
from sidelight.logger import Signer, verify
from sidelight.logger._segments import SegmentReader, SegmentWriter
from sidelight.logger._segments_format import segment_name
from sidelight.logger.errors import FolderInUse
from sidelight.service import _backup
from sidelight.service._backup import back_up
from sidelight.service._offline import run_backup
from sidelight.service.errors import ConfigurationError, ServiceError


def _ids(data: Path) -> list[str]:
    documents = EmbeddedDocuments(data)
    inferences = Inferences(data, documents)
    try:
        return sorted(item.request_id for item in inferences.find(limit=1000)[0])
    finally:
        inferences.close()
        documents.close()


def _records(data: Path) -> list[bytes]:
    reader = SegmentReader(data)
    records = reader.read(reader.begin(), max_records=1000, max_bytes=1 << 30)
    reader.close()
    return [record.body for record in records]


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "copies" / "monday"


def test_a_backup_of_a_running_folder_holds_everything_and_is_intact(
    folder: Any, target: Path
) -> None:
    for number in range(5):
        folder.ask([[number, "f"]], request_id=f"r{number}")
        if number == 2:
            folder.work()

    report = back_up(folder.data, target)

    assert (report.records, report.findings) == (10, ())
    assert verify(target).records == 10
    assert _records(target) == _records(folder.data)
    assert _ids(target) == ["r0", "r1", "r2"]
    assert not any((target / "run").glob("*.tmp"))


def test_work_goes_on_from_a_backup_as_from_the_folder_itself(
    folder: Any, make_folder: Any, target: Path
) -> None:
    for number in range(5):
        folder.ask([[number, "f"]], request_id=f"r{number}")
        if number == 2:
            folder.work()
    back_up(folder.data, target)
    restored = make_folder()
    restored.close()
    shutil.rmtree(restored.data)
    shutil.copytree(target, restored.data)

    restored.__init__(restored.data)
    restored.ask([[5, "f"]], request_id="r5")
    restored.work()
    folder.work()

    assert restored.writer.recovery.findings == ()
    assert _ids(restored.data) == [f"r{number}" for number in range(6)]
    assert _ids(folder.data) == [f"r{number}" for number in range(5)]
    assert restored.counter("inferences_total") == 6


def test_a_closed_folder_is_copied_as_well(folder: Any, target: Path) -> None:
    folder.ask([[1, "f"]], request_id="r")
    folder.work()
    folder.close()

    assert back_up(folder.data, target).findings == ()
    assert verify(target).ok
    assert _ids(target) == ["r"]


def test_what_is_torn_or_not_durable_yet_is_left_out(folder: Any, target: Path) -> None:
    folder.ask([[1, "f"]], request_id="r")
    (segment,) = (folder.data / "raw").glob("*.seg")
    with segment.open("ab") as file:
        file.write(segment.read_bytes()[52:80])

    report = back_up(folder.data, target)

    assert (report.records, report.findings) == (2, ())
    assert verify(target).tail_bytes == 0


def test_a_tail_that_is_cut_off_the_backup_is_missed(folder: Any, target: Path) -> None:
    folder.ask([[1, "f"]], request_id="r")
    folder.ask([[2, "f"]], request_id="s")
    back_up(folder.data, target)
    (segment,) = (target / "raw").glob("*.seg")
    content = segment.read_bytes()
    segment.write_bytes(content[: content.rindex(b"\xf5SLg")])

    assert "missing at the end" in verify(target).findings[0]


@pytest.mark.parametrize("place", [100, -1])
def test_damage_is_copied_and_named(folder: Any, target: Path, place: int) -> None:
    folder.ask([[1, "f"]], request_id="r")
    (segment,) = (folder.data / "raw").glob("*.seg")
    content = bytearray(segment.read_bytes())
    content[place] ^= 1
    segment.write_bytes(content)

    assert run_backup(folder.data, target) == 1
    assert not verify(target).ok


def test_a_file_that_a_compaction_replaced_meanwhile_is_no_loss(
    folder: Any, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        folder.ask([[number, "f"]], request_id=f"r{number}")
        folder.work()
    copy = _backup._copy_database
    copies = []

    def compact_behind(source: Path, to: Path) -> None:
        copy(source, to)
        copies.append(to)
        if len(copies) == 1:
            change = folder.storing._lake.compact(folder.storing._manifest, min_files=2)
            folder.documents.put(change.documents)
            folder.documents.put(folder.storing._lake.remove(change.obsolete))

    monkeypatch.setattr(_backup, "_copy_database", compact_behind)
    report = back_up(folder.data, target)

    assert (len(copies), report.files) == (2, 1)
    assert _ids(target) == ["r0", "r1", "r2"]
    assert len(list((target / "lake").rglob("*.parquet"))) == 1


def test_a_segment_that_is_retired_meanwhile_is_no_loss(
    tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    writer = SegmentWriter(data, segment_bytes=1, signer=Signer(Ed25519PrivateKey.generate()))
    for number in range(4):
        writer.write(b"head", b"%d" % number).result(100)
    copy = _backup._copy_file
    retired: list[object] = []

    def retire_before(source: Path, to: Path) -> None:
        if source.suffix == ".seg" and not retired:
            retired.extend(writer.retire({segment_name(1): "old"}))
        copy(source, to)

    monkeypatch.setattr(_backup, "_copy_file", retire_before)
    report = back_up(data, target)
    writer.close()

    assert (report.records, report.findings, len(retired)) == (4, (), 1)
    assert verify(target).retired == 1


def test_a_backup_under_load_loses_nothing_that_was_acknowledged(
    tmp_path: Path, target: Path
) -> None:
    data = tmp_path / "data"
    signer = Signer(Ed25519PrivateKey.generate())
    writer = SegmentWriter(data, segment_bytes=4000, signer=signer)
    stopping = threading.Event()
    acknowledged = [0]

    def load() -> None:
        while not stopping.is_set():
            acknowledged[0] = writer.write(b"head", b"body" * 20).result(100) + 1

    thread = threading.Thread(target=load)
    thread.start()
    try:
        for number in range(5):
            before = acknowledged[0]
            report = back_up(data, target / f"{number}")

            assert report.findings == ()
            assert report.records >= before
            assert verify(target / f"{number}", public_key=signer.public_key).ok
            again = SegmentWriter(target / f"{number}", signer=signer)
            assert (again.end, again.recovery.findings) == (report.records, ())
            again.close()
    finally:
        stopping.set()
        thread.join()
        writer.close()


def _full_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full)


def _full_database(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorcode = sqlite3.SQLITE_FULL
        raise error

    monkeypatch.setattr(sqlite3, "connect", full)


@pytest.mark.parametrize("fail", [_full_copy, _full_database])
def test_a_full_disk_leaves_nothing_behind(
    folder: Any,
    target: Path,
    monkeypatch: pytest.MonkeyPatch,
    fail: Callable[[pytest.MonkeyPatch], None],
) -> None:
    folder.ask([[1, "f"]])
    with monkeypatch.context() as patch:
        fail(patch)
        with pytest.raises(ServiceError, match="No space left"):
            back_up(folder.data, target)

    assert list(target.parent.iterdir()) == []
    assert back_up(folder.data, target).findings == ()


@pytest.mark.parametrize("step", ["_copy_archive", "_copy_access", "verify"])
def test_a_killed_backup_is_none_and_the_next_one_is_whole(
    folder: Any, target: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    folder.ask([[1, "f"]], request_id="r")
    folder.work()

    def kill(*_: Any) -> None:
        raise KeyboardInterrupt

    for _ in range(2):
        with monkeypatch.context() as patch:
            patch.setattr(_backup, step, kill)
            with pytest.raises(KeyboardInterrupt):
                back_up(folder.data, target)
        assert not target.exists()

    assert back_up(folder.data, target).findings == ()
    assert [path.name for path in target.parent.iterdir()] == ["monday"]
    assert _ids(target) == ["r"]


def test_two_backups_to_one_target_are_one(
    folder: Any, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.ask([[1, "f"]], request_id="r")
    refused: list[str] = []

    def begin_another(data: Path) -> Any:
        with pytest.raises(FolderInUse) as caught:
            back_up(folder.data, target)
        refused.append(str(caught.value))
        return verify(data)

    monkeypatch.setattr(_backup, "verify", begin_another)

    assert back_up(folder.data, target).findings == ()
    assert len(refused) == 1
    assert verify(target).records == 2


def test_a_folder_of_somebody_else_is_not_taken_for_an_unfinished_backup(
    folder: Any, target: Path
) -> None:
    other = target.with_name(".monday.unfinished")
    other.mkdir(parents=True)
    (other / "notes").write_text("mine")

    with pytest.raises(ConfigurationError, match="expected nothing"):
        back_up(folder.data, target)
    assert (other / "notes").read_text() == "mine"


def test_tokens_holds_keys_and_the_log_are_in_it_for_their_owner_alone(
    folder: Any, target: Path
) -> None:
    access = folder.data / "access"
    access.mkdir()
    (access / "tokens.json").write_text("{}")
    (access / "tokens.lock").write_text("")
    (access / "checkpoints.pem").write_text("key")
    (access / "checkpoints.pem").chmod(0o600)

    assert run_backup(folder.data, target) == 0

    names = {path.name for path in (target / "access").iterdir()}
    (log,) = (target / "access").glob("log-*.jsonl")
    assert names == {"tokens.json", "checkpoints.pem", log.name}
    assert json.loads(log.read_text())["command"] == "export --backup"
    assert (target / "access" / "checkpoints.pem").stat().st_mode & 0o777 == 0o600
    assert target.stat().st_mode & 0o077 == 0


def test_what_is_there_is_never_written_over(folder: Any, tmp_path: Path, target: Path) -> None:
    target.mkdir(parents=True)
    with pytest.raises(ConfigurationError, match="expected nothing at"):
        back_up(folder.data, target)
    with pytest.raises(ConfigurationError, match="outside"):
        back_up(folder.data, folder.data / "copy")
    with pytest.raises(ConfigurationError, match="a data folder"):
        back_up(tmp_path / "none", tmp_path / "copy")
    assert list(target.iterdir()) == []
