"""The loop of the consumer: what one part cannot do costs the others nothing."""

import threading
from pathlib import Path
from typing import Any

import pytest

from sidelight.logger.errors import JournalFull
from sidelight.service import _stage_loop
from sidelight.service._consumer_process import _Signs
from sidelight.service._settings import Settings
from sidelight.service._stage_loop import work


class _Stage:
    """Works a number of times, then asks the loop to stop."""

    name = "stage"

    def __init__(self, stopping: threading.Event, n_steps: int) -> None:
        self._stopping = stopping
        self.left = n_steps

    def step(self, now_ns: int) -> bool:
        del now_ns
        self.left -= 1
        if not self.left:
            self._stopping.set()
        return True

    def reset(self) -> None:
        raise AssertionError("nothing failed")


def test_a_full_disk_costs_a_gauge_and_not_the_process(
    folder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(_: Any) -> None:
        raise JournalFull("state.db")

    monkeypatch.setattr(folder.documents, "put", full)
    monkeypatch.setattr(_stage_loop, "_MARK_S", -1.0)
    (tmp_path / "run").mkdir()
    stopping = threading.Event()
    stage = _Stage(stopping, n_steps=3)

    work([stage], stopping, _Signs(Settings(data=tmp_path), folder.journals, folder.documents).give)

    assert stage.left == 0
    assert caplog.text.count("lag not published") == 3
