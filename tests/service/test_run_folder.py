"""What the processes tell each other through files."""

from pathlib import Path
from typing import Any

import pytest

from sidelight.service._run_folder import CONSUMER, RunFolder


def test_a_sign_that_has_no_room_costs_no_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = RunFolder(tmp_path)
    folder.create()

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "touch", full)
        folder.mark(CONSUMER)
    assert folder.age_s(CONSUMER, 0.0) is None
    assert "No space left on device" in caplog.records[-1].__dict__["reason"]

    folder.mark(CONSUMER)
    assert folder.age_s(CONSUMER, 0.0) is not None
