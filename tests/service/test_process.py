"""What the processes under the supervisor tell it and each other."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sidelight.service._run_folder import RunFolder
from sidelight.service.errors import ConfigurationError


def test_a_process_whose_supervisor_is_gone_says_ready_without_complaint() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-c", "from sidelight.service._process import say_ready; say_ready(a=1)"],
        stdout=writing,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(writing)

    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("role", ["consumer", "detection"])
def test_a_process_of_a_former_service_does_not_count_as_alive(tmp_path: Path, role: str) -> None:
    former = RunFolder(tmp_path)
    former.create()
    former.mark(role)
    age_s = former.age_s(role, time.time())

    RunFolder(tmp_path).forget()

    assert age_s is not None
    assert RunFolder(tmp_path).age_s(role, time.time()) is None


def test_a_data_folder_whose_sockets_nobody_could_open_is_refused_in_words(tmp_path: Path) -> None:
    longest = 107 - len("/run/ingest.sock")
    named = tmp_path / ("x" * (longest - len(str(tmp_path)) - 1))
    RunFolder(named).create()

    with pytest.raises(ConfigurationError, match=f"at most {longest} bytes, got {longest + 1}"):
        RunFolder(named.with_name(named.name + "x")).create()


def test_a_data_folder_that_cannot_be_made_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(ConfigurationError, match="expected a folder to write into"):
        RunFolder(tmp_path / "file").create()
