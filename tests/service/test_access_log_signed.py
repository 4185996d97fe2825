"""The end of the access log is signed: lines that are cut off, replaced or gone are found."""

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from sidelight.logger import LogHead, Signer
from sidelight.logger._checkpoint import Checkpoint
from sidelight.logger._segments import SegmentWriter
from sidelight.logger._segments_archive import Archive
from sidelight.logger._segments_folder import folder_version
from sidelight.logger.errors import JournalError
from sidelight.service import _access_log
from sidelight.service._access_log import AccessLog
from sidelight.service._access_log_check import verify_access_log
from sidelight.service._offline import run_verify

_SIGNER = Signer(Ed25519PrivateKey.generate())
_Print = pytest.CaptureFixture[str]


def _open(data: Path) -> SegmentWriter:
    return SegmentWriter(data, signer=_SIGNER, watch=AccessLog(data).watch)


def _file(data: Path) -> Path:
    (path,) = (data / "access").glob("log-*.jsonl")
    return path


def _asked(data: Path, n: int) -> None:
    log = AccessLog(data)
    for number in range(n):
        log.append({"caller": "somebody", "number": number})


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Return a folder that was stopped cleanly after five questions."""
    writer = _open(tmp_path)
    writer.write(b"head", b"body").result(100)
    _asked(tmp_path, 5)
    writer.close()
    return tmp_path


def _cut_last(path: Path) -> None:
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))


def _cut_line_end(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def _made_anew(path: Path) -> None:
    lines = path.read_bytes().splitlines()
    path.unlink()
    for number in range(len(lines) + 3):
        AccessLog(path.parent.parent).append({"caller": "nobody", "number": number})


def _last_changed(path: Path) -> None:
    text = path.read_bytes()
    path.write_bytes(text.replace(b'"number":4', b'"number":9'))


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        pytest.param(_cut_last, "was cut at byte", id="last line cut off"),
        pytest.param(_cut_line_end, "was cut at byte", id="end of the last line cut off"),
        pytest.param(Path.unlink, "is missing", id="file deleted"),
        pytest.param(lambda path: shutil.rmtree(path.parent), "is missing", id="folder deleted"),
        pytest.param(_made_anew, "is not what was signed", id="made anew, and longer"),
        pytest.param(_last_changed, "is not what was signed", id="last line changed"),
    ],
)
def test_what_was_signed_and_is_not_there_is_named_and_stays_named(
    data: Path, capsys: _Print, harm: Callable[[Path], None], words: str
) -> None:
    path = _file(data)
    assert run_verify(data) == 0
    assert "5 entries of the access log, signed by" in capsys.readouterr().out
    harm(path)

    assert run_verify(data) == 1
    said = capsys.readouterr().out
    assert f"access/{path.name}: {words}" in said
    assert "entries up to number 5 were signed" in said
    # Whatever is signed from now on does not vouch for it.
    _open(data).close()
    _asked(data, 1)
    _open(data).close()
    assert run_verify(data) == 1
    assert f"access/{path.name}: {words}" in capsys.readouterr().out


def test_a_folder_in_the_place_of_the_log_is_named_once(data: Path, capsys: _Print) -> None:
    path = _file(data)
    path.unlink()
    path.mkdir()

    assert run_verify(data) == 1
    assert capsys.readouterr().out.count("cannot be read: Is a directory") == 1


def test_entries_after_the_last_signature_are_right_and_counted(data: Path, capsys: _Print) -> None:
    _asked(data, 2)
    assert run_verify(data) == 0
    assert "7 entries of the access log (2 since the last signature)" in capsys.readouterr().out
    _open(data).close()
    assert run_verify(data) == 0
    assert "7 entries of the access log, signed by" in capsys.readouterr().out


def test_clock_that_is_set_back_over_the_end_of_a_month_does_not_break_the_chain(
    tmp_path: Path,
) -> None:
    _asked(tmp_path, 1)
    later = _file(tmp_path).rename(tmp_path / "access" / "log-2999-01.jsonl")
    _asked(tmp_path, 2)

    assert _file(tmp_path) == later
    report = verify_access_log(tmp_path)
    assert (report.findings, report.entries) == ((), 3)


def test_month_that_is_over_is_missed_too(tmp_path: Path, capsys: _Print) -> None:
    writer = _open(tmp_path)
    _asked(tmp_path, 3)
    former = _file(tmp_path).rename(tmp_path / "access" / "log-2001-01.jsonl")
    _asked(tmp_path, 2)
    writer.close()
    assert run_verify(tmp_path) == 0
    capsys.readouterr()
    former.unlink()

    assert run_verify(tmp_path) == 1
    assert "line 1 does not follow" in capsys.readouterr().out


def test_questions_are_signed_without_events_and_nothing_new_is_not_signed_again(
    tmp_path: Path,
) -> None:
    archive = Archive(
        tmp_path,
        segment_bytes=1 << 20,
        signer=_SIGNER,
        clock=lambda: 1,
        sync=None,
        watch=AccessLog(tmp_path).watch,
    )
    stored = []
    for n_questions in (0, 3, 0, 1):
        _asked(tmp_path, n_questions)
        archive.look_beside()
        archive.sign_progress()
        checkpoint = Checkpoint.load(tmp_path)
        assert checkpoint is not None
        assert checkpoint.access is not None
        inode = (tmp_path / "raw" / "checkpoint.json").stat().st_mtime_ns
        stored.append((checkpoint.access.entries, inode))
    archive.close()

    assert [entries for entries, _ in stored] == [0, 3, 3, 4]
    assert stored[1] == stored[2]
    assert len(set(stored)) == 3


def test_checkpoints_of_before_say_that_the_end_is_not_covered(
    tmp_path: Path, capsys: _Print
) -> None:
    writer = SegmentWriter(tmp_path, signer=_SIGNER)
    writer.write(b"head", b"body").result(100)
    _asked(tmp_path, 2)
    writer.close()
    (tmp_path / "format").write_text("3\n")

    assert run_verify(tmp_path) == 0
    assert "2 entries of the access log (its end is not signed)" in capsys.readouterr().out
    _open(tmp_path).close()
    assert folder_version(tmp_path) == 5
    assert run_verify(tmp_path) == 0
    assert "2 entries of the access log, signed by" in capsys.readouterr().out


@pytest.mark.parametrize("former", [None, "1", "2", "3"])
@pytest.mark.parametrize("n_records", [0, 1])
def test_no_kill_leaves_a_checkpoint_that_is_newer_than_its_folder_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, former: str | None, n_records: int
) -> None:
    if former is not None:
        writer = SegmentWriter(tmp_path, signer=None if former == "1" else _SIGNER)
        for _ in range(n_records):
            writer.write(b"head", b"body").result(100)
        writer.close()
        (tmp_path / "format").write_text(f"{former}\n")
    seen: list[tuple[bool, int]] = []
    store = Checkpoint.store

    def killed(checkpoint: Checkpoint, data: Path) -> None:
        seen.append((checkpoint.access is not None, folder_version(data) or 0))
        # The first time before, the second time behind it.
        if len(seen) > 1:
            store(checkpoint, data)
        if len(seen) < 3:
            raise OSError(5, "killed")

    monkeypatch.setattr(Checkpoint, "store", killed)
    for _ in range(2):
        with pytest.raises(JournalError):
            _open(tmp_path)
    writer = _open(tmp_path)
    writer.close()

    assert writer.recovery.findings == ()
    assert seen[-1] == (True, 5)
    assert all(version == 5 for has_access, version in seen if has_access)
    assert run_verify(tmp_path) == 0


@pytest.mark.parametrize("version", [1, 2, 3, 4])
def test_format_that_was_made_an_older_one_is_named(
    data: Path, capsys: _Print, version: int
) -> None:
    (data / "format").write_text(f"{version}\n")

    assert run_verify(data) == 1
    assert f"format: says {version}, its checkpoint is of 5 or later" in capsys.readouterr().out


def test_folder_with_sealed_events_stays_one_when_it_is_upgraded(tmp_path: Path) -> None:
    _open(tmp_path).close()
    (tmp_path / "format").write_text("4\n")
    _open(tmp_path).close()

    assert folder_version(tmp_path) == 6


def test_copy_of_what_was_sealed_may_lack_the_access_log(data: Path, capsys: _Print) -> None:
    shutil.rmtree(data / "access")

    assert run_verify(data) == 1
    assert run_verify(data, sealed_only=True) == 0
    assert "0 entries of the access log (its end is not signed)" in capsys.readouterr().out


def test_writer_without_the_log_keeps_what_was_signed_of_it(data: Path) -> None:
    SegmentWriter(data, signer=_SIGNER).close()
    checkpoint = Checkpoint.load(data)

    assert checkpoint is not None
    assert checkpoint.access is not None
    assert checkpoint.access.entries == 5


def test_log_that_somebody_keeps_to_himself_or_that_cannot_be_read_is_signed_as_before(
    data: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_access_log, "_PATIENCE_S", 0.0)
    good, _ = AccessLog(data).watch(None)
    with (data / "access" / "log.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert AccessLog(data).watch(good) == (good, None)
        assert AccessLog(data).watch(None) == (None, None)

    def refuse(_: Path) -> LogHead:
        raise PermissionError(13, "no")

    monkeypatch.setattr(_access_log, "end_of", refuse)
    assert AccessLog(data).watch(good) == (good, None)
    assert "cannot be read" in caplog.text


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from(["ask", "torn", "sign", "killed", "month"]), max_size=14))
def test_no_order_of_questions_signatures_and_kills_looks_forged(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str]
) -> None:
    data = tmp_path_factory.mktemp("data")
    former = data / "access" / "log-2001-01.jsonl"
    log, head, n = AccessLog(data), None, 0
    for step in steps:
        match step:
            case "ask":
                log.append({"n": n})
                n += 1
            case "torn" if n:
                with max((data / "access").glob("log-*")).open("ab") as file:
                    file.write(b'{"n": 9, "previ')
            # A month that was signed keeps its name.
            case "month" if n and head is None and not former.exists():
                max(former.parent.glob("log-*.jsonl")).rename(former)
            case "sign":
                head, lost = log.watch(head)
                assert lost is None
                assert head is not None
                assert head.entries == n
            case "killed":
                log = AccessLog(data)
    report = verify_access_log(data, head)
    assert (report.findings, report.entries) == ((), n)
