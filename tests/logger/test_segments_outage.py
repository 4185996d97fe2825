"""While nothing can be made durable the log says so, and does not fill what is left of the disk."""

import errno
import logging
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sidelight.logger import Signer
from sidelight.logger._checkpoint import Checkpoint
from sidelight.logger._segments import SegmentWriter
from sidelight.logger._segments_outage import Outage
from sidelight.logger.errors import JournalError

FULL = OSError(errno.ENOSPC, "full")


def _said(caplog: pytest.LogCaptureFixture) -> list[tuple[str, object]]:
    return [(record.getMessage(), vars(record)["failed"]) for record in caplog.records]


def test_an_outage_is_told_when_it_begins_each_ten_seconds_and_when_it_is_over(
    caplog: pytest.LogCaptureFixture,
) -> None:
    now = [100.0]
    outage = Outage(clock=lambda: now[0])
    outage.passed()
    for moment in range(250):
        now[0] = 100.0 + moment / 10
        outage.failed(FULL)
    outage.passed()
    outage.passed()
    assert _said(caplog) == [
        ("groups could not be made durable", 1),
        ("groups could not be made durable", 100),
        ("groups could not be made durable", 100),
        ("groups are durable again", 49),
    ]


def test_groups_that_fail_and_pass_in_turn_are_not_told_one_by_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
    now = [100.0]
    outage = Outage(clock=lambda: now[0])
    for moment in range(150):
        now[0] = 100.0 + moment / 10
        outage.failed(FULL)
        outage.passed()
    assert _said(caplog) == [
        ("groups could not be made durable", 1),
        ("groups are durable again", 0),
        ("groups could not be made durable", 100),
        ("groups are durable again", 0),
    ]


def test_a_checkpoint_that_cannot_be_signed_is_told_once_and_when_it_can_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = SegmentWriter(tmp_path, signer=Signer(Ed25519PrivateKey.generate()))
    writer._unsigned = Outage("checkpoints", clock=lambda: 0.0)
    writer.write(b"head", b"body").result(60)

    def full(*_: object) -> None:
        raise FULL

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "store", full)
        for _ in range(3):
            writer._sign_progress()
    # Nothing to sign is no sign that it can be.
    with monkeypatch.context() as patch:
        patch.setattr(writer._archive, "sign_progress", lambda: False)
        writer._sign_progress()
    assert _said(caplog) == [("checkpoints could not be made durable", 1)]
    assert caplog.records[0].exc_info is None
    for _ in range(2):
        writer._sign_progress()
    writer.close()

    assert _said(caplog)[1:] == [("checkpoints are durable again", 2)]


def test_what_nobody_foresaw_costs_its_group_and_neither_the_thread_nor_the_segment(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    failures: list[Exception] = [MemoryError()]

    def sync(file: int) -> None:
        del file
        if failures:
            raise failures.pop()

    writer = SegmentWriter(tmp_path, sync=sync)
    with pytest.raises(JournalError, match="MemoryError"):
        writer.write(b"head", b"one").result(timeout=60)
    assert writer.write(b"head", b"two").result(timeout=60) == 0
    writer.close()
    assert writer.failed_groups == 1
    assert [record.levelno for record in caplog.records] == [logging.ERROR, logging.WARNING]
