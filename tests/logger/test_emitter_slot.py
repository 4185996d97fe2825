import os
import subprocess
import sys
from pathlib import Path

import pytest

from sidelight.logger._emitter_slot import claim, claim_left


def test_each_claim_takes_the_first_folder_that_is_free(tmp_path: Path) -> None:
    slots = [claim(tmp_path / "spool") for _ in range(3)]
    slots[1].close()
    again = claim(tmp_path / "spool")

    assert [slot.folder.name for slot in slots] == ["0", "1", "2"]
    assert again.folder.name == "1"
    for slot in (*slots, again):
        slot.close()


def test_a_folder_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    slot = claim(tmp_path / "spool")

    assert (tmp_path / "spool").stat().st_mode & 0o77 == 0
    assert slot.folder.stat().st_mode & 0o77 == 0
    slot.close()


def test_only_folders_that_hold_events_and_nobody_are_taken_over(tmp_path: Path) -> None:
    held, left, empty = (claim(tmp_path) for _ in range(3))
    for slot in (held, left):
        (slot.folder / "sink").mkdir()
        (slot.folder / "sink" / "0-0.spool1").touch()
    (tmp_path / "unrelated").mkdir()
    left.close()
    empty.close()

    taken = claim_left(tmp_path)

    assert taken is not None
    assert taken.folder == left.folder
    assert claim_left(tmp_path) is None
    taken.close()
    held.close()


def test_closing_twice_does_not_close_what_has_the_number_now(tmp_path: Path) -> None:
    slot = claim(tmp_path)
    slot.close()
    with (tmp_path / "other").open("w") as file:
        slot.close()
        file.write("still open")

    assert (tmp_path / "other").read_text() == "still open"


def test_the_folder_of_a_killed_process_is_free(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from sidelight.logger._emitter_slot import claim\n"
        "slot = claim(Path(sys.argv[1]))\n"
        "print(slot.folder.name)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, check=False
    )

    slot = claim(tmp_path)

    assert done.returncode == -9
    assert slot.folder.name == "0"
    slot.close()


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)

    with pytest.raises(OSError, match="denied"):
        claim(tmp_path / "spool")
