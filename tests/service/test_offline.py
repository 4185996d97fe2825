"""Commands on a data folder that nobody serves: what they print and how they end."""

import shutil
from pathlib import Path

import pytest

from sidelight.logger._segments import SegmentWriter
from sidelight.service._offline import run_verify

_HEAD = b"POST /events HTTP/1.1\r\n\r\n"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Return a data folder with one record, cleanly stopped."""
    writer = SegmentWriter(tmp_path)
    writer.append(_HEAD, b"[]", lambda *_: None)
    writer.close()
    return tmp_path


def test_an_intact_archive_ends_with_0(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_verify(data) == 0
    assert capsys.readouterr().out.startswith("intact: 1 records")


def test_a_changed_byte_ends_with_1_and_is_named(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    segment = next((data / "raw").glob("*.seg"))
    content = bytearray(segment.read_bytes())
    content[-1] ^= 1
    segment.write_bytes(content)

    assert run_verify(data) == 1
    assert segment.name in capsys.readouterr().out


def test_an_archive_that_is_gone_ends_with_1(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(data / "raw")

    assert run_verify(data) == 1
    assert "raw: is missing" in capsys.readouterr().out


def test_a_folder_that_no_longer_says_its_version_ends_with_1(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (data / "format").unlink()

    assert run_verify(data) == 1
    assert capsys.readouterr().out.startswith("format: is missing\nNOT INTACT: 1 records")


def test_a_folder_that_never_was_one_is_a_wrong_path(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_verify(tmp_path / "nothing") == 2
    assert "no archive" in capsys.readouterr().err


def test_a_folder_of_a_newer_version_is_not_judged(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (data / "format").write_text("99\n")

    assert run_verify(data) == 2
    shown = capsys.readouterr()
    assert "or older, got 99; upgrade Sidelight" in shown.err
    assert "INTACT" not in shown.out
