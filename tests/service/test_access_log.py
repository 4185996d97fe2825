"""The access log: every entry is durable, chained, and found to be changed when it was."""

import json
import os
import random
import threading
from pathlib import Path
from typing import Any

import pytest

from sidelight.service._access_log import AccessLog
from sidelight.service._access_log_check import verify_access_log


def _file(data: Path) -> Path:
    (path,) = (data / "access").glob("log-*.jsonl")
    return path


def test_entries_follow_each_other_over_restarts_and_threads(tmp_path: Path) -> None:
    def write(name: str) -> None:
        log = AccessLog(tmp_path)
        for number in range(5):
            log.append({"caller": name, "number": number})

    threads = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    report = verify_access_log(tmp_path)
    assert (report.entries, report.findings) == (20, ())
    entries = [json.loads(line) for line in _file(tmp_path).read_text().splitlines()]
    assert {(entry["caller"], entry["number"]) for entry in entries} == {
        (name, number) for name in "abcd" for number in range(5)
    }


def test_the_chain_goes_on_in_the_next_month(tmp_path: Path) -> None:
    log = AccessLog(tmp_path)
    log.append({"n": 1})
    path = _file(tmp_path)
    path.rename(path.with_name("log-2001-01.jsonl"))
    log.append({"n": 2})
    assert verify_access_log(tmp_path).entries == 2
    assert verify_access_log(tmp_path).findings == ()
    (tmp_path / "access" / "log-2001-01.jsonl").unlink()
    assert len(verify_access_log(tmp_path).findings) == 1


def test_a_torn_line_is_cut_and_the_chain_goes_on(tmp_path: Path) -> None:
    log = AccessLog(tmp_path)
    log.append({"n": 1})
    with _file(tmp_path).open("ab") as file:
        file.write(b'{"n": 2, "previ')
    assert verify_access_log(tmp_path).findings == ()
    assert verify_access_log(tmp_path).entries == 1
    log.append({"n": 3})
    assert verify_access_log(tmp_path).findings == ()
    assert verify_access_log(tmp_path).entries == 2


@pytest.mark.parametrize("torn", [b"", b"x" * 300_000])
def test_entries_longer_than_a_look_back_are_chained(tmp_path: Path, torn: bytes) -> None:
    log = AccessLog(tmp_path)
    for number in range(3):
        log.append({"number": number, "parameters": ["x" * 100_000] * (number + 1)})
        with _file(tmp_path).open("ab") as file:
            file.write(torn)
    log.append({"number": 3})
    report = verify_access_log(tmp_path)
    assert (report.entries, report.findings) == (4, ())


@pytest.mark.parametrize("seed", range(20))
def test_any_changed_byte_and_any_missing_or_moved_line_is_found(tmp_path: Path, seed: int) -> None:
    log = AccessLog(tmp_path)
    for number in range(6):
        log.append({"caller": "x", "number": number})
    choose = random.Random(seed)
    path = _file(tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)
    # The last line has nobody behind it that knows its digest.
    match seed % 3:
        case 0:
            text = bytearray(b"".join(lines[:-1]))
            text[choose.randrange(len(text) - 1)] ^= 1 << choose.randrange(8)
            path.write_bytes(bytes(text) + lines[-1])
        case 1:
            del lines[choose.randrange(5)]
            path.write_bytes(b"".join(lines))
        case _:
            place = choose.randrange(4)
            lines[place], lines[place + 1] = lines[place + 1], lines[place]
            path.write_bytes(b"".join(lines))
    assert verify_access_log(tmp_path).findings


def test_a_full_disk_is_said_and_leaves_no_half_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = AccessLog(tmp_path)
    log.append({"n": 1})
    real = os.write

    def full(file: int, data: Any) -> int:
        real(file, bytes(data)[:5])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space"):
            log.append({"n": 2})
    log.append({"n": 3})
    assert verify_access_log(tmp_path).entries == 2
    assert verify_access_log(tmp_path).findings == ()


def test_a_folder_without_a_log_is_right(tmp_path: Path) -> None:
    assert verify_access_log(tmp_path).entries == 0
