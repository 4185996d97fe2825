"""What the demo calls lost."""

import pytest

from sidelight.service._demo_client import Metrics
from sidelight.service._demo_run import _is_settled, _missing

_EVENTS = """
sidelight_capture_events_total{outcome="seen"} 10
sidelight_inferences_total{deployment="flights"} %d
sidelight_duplicate_events_total{deployment="flights"} %d
"""


@pytest.mark.parametrize(
    ("stored", "twice", "missing"),
    [
        pytest.param(5, 0, 0, id="each-once"),
        pytest.param(5, 3, 0, id="some-sent-again"),
        pytest.param(4, 0, 2, id="lost"),
        pytest.param(4, 2, 2, id="lost-and-others-sent-again"),
    ],
)
def test_what_was_sent_again_makes_up_for_nothing(stored: int, twice: int, missing: int) -> None:
    metrics = Metrics(_EVENTS % (stored, twice))

    assert _missing(metrics) == missing
    assert _is_settled(metrics) is (missing == 0)
