"""What waits for detection in the database is bounded, and detection that is gone stops nobody."""

from typing import Any

import pytest

from sidelight.service import _pace
from sidelight.service._pace import Pace
from sidelight.service._stage import DECODING, DETECTION
from sidelight.service._stage_decoding import DecodingStage

_SECOND_NS = 1_000_000_000


class Decoded:
    """Decoding alone over a folder, paced, with something new for each step."""

    def __init__(self, folder: Any) -> None:
        self.folder = folder
        self.stage = DecodingStage(
            folder.journals,
            folder.documents,
            orphan_after_s=60.0,
            max_inflated_bytes=1 << 20,
            must_wait=Pace(folder.journals).must_wait,
        )

    def steps(self, number: int) -> None:
        for _ in range(number):
            self.folder.ask([[float(n), "f"] for n in range(50)])
            self.folder.now_ns += 3 * _SECOND_NS
            self.stage.step(self.folder.now_ns)

    @property
    def waiting_bytes(self) -> int:
        return int(self.folder.journals.waiting_bytes(DETECTION))

    @property
    def left(self) -> int:
        """How many events are not decoded."""
        journals = self.folder.journals
        return int(journals.ends("events")[0] - journals.positions(DECODING, "events")[0])


@pytest.fixture
def decoded(folder: Any, monkeypatch: pytest.MonkeyPatch) -> Decoded:
    monkeypatch.setattr(_pace, "_MOST_BYTES", 20_000)
    return Decoded(folder)


def test_what_waits_for_detection_is_bounded_and_goes_on_with_it(decoded: Decoded) -> None:
    decoded.steps(2)
    a_step = decoded.waiting_bytes
    decoded.steps(16)

    assert decoded.left
    assert 20_000 < decoded.waiting_bytes <= 20_000 + a_step
    decoded.folder.detection.step(decoded.folder.now_ns)
    assert decoded.waiting_bytes == 0
    decoded.steps(1)
    assert decoded.left == 0


def test_detection_that_does_not_get_on_is_not_waited_for(
    decoded: Decoded, caplog: pytest.LogCaptureFixture
) -> None:
    decoded.steps(40)

    assert decoded.left == 0
    assert decoded.waiting_bytes > 40_000
    said = [record.message for record in caplog.records if record.name == _pace.__name__]
    assert said == [
        "detection is far behind: decoding waits for it",
        "detection does not get on: decoding goes on without it",
    ]


def test_an_empty_journal_and_a_clock_set_back_let_nobody_wait(folder: Any) -> None:
    pace = Pace(folder.journals)

    assert not pace.must_wait(10**18)
    assert not pace.must_wait(10**17)
