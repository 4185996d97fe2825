"""The allocator's options."""

import subprocess
import sys

import pytest

from sidelight.service._freed_memory import keep_freed_memory

_COUNT = """
import resource, sys
import numpy as np
from sidelight.service._freed_memory import keep_freed_memory

if sys.argv[1] == "kept" and not keep_freed_memory():
    print(-1)
    raise SystemExit
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(100):
    parts = [np.ones(1 << 17) for _ in range(8)]
    del parts
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _faults(what: str) -> int:
    command = [sys.executable, "-c", _COUNT, what]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="an option of glibc")
def test_arrays_that_come_and_go_are_mapped_once() -> None:
    kept = _faults("kept")
    if kept == -1:
        pytest.skip("another allocator")

    assert kept < _faults("given back") / 10


def test_other_systems_are_left_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")

    assert keep_freed_memory() is False
