"""What the processes under the supervisor tell it and each other."""

import os
import subprocess
import sys
import time
from pathlib import Path

from sidelight.service._run_folder import RunFolder


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


def test_a_consumer_of_a_former_service_does_not_count_as_alive(tmp_path: Path) -> None:
    former = RunFolder(tmp_path)
    former.create()
    former.mark_consumer()
    age_s = former.consumer_age_s(time.time())

    RunFolder(tmp_path).create()

    assert age_s is not None
    assert RunFolder(tmp_path).consumer_age_s(time.time()) is None
