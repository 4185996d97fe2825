"""Times and latencies are those of their row, whatever else is in its batch."""

from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidelight.adapters._decoding_facts import times

_MOMENTS = st.datetimes(datetime(1700, 1, 1), datetime(2200, 1, 1))  # noqa: DTZ001 - the zone is written behind
_ZONES = st.sampled_from(["Z", "z", "+00:00", "-05:30", "+14:00"])


@st.composite
def written(draw: st.DrawFn) -> str:
    """Write a time with up to nine digits behind its second."""
    text = draw(_MOMENTS).replace(microsecond=0).isoformat()
    digits = draw(st.text("0123456789", max_size=9))
    return f"{text}{'.' + digits if digits else ''}{draw(_ZONES)}"


@settings(deadline=None)
@given(st.lists(st.tuples(written(), written()), min_size=1, max_size=5))
def test_a_neighbour_whose_time_is_none_changes_nothing(pairs: list[tuple[str, str]]) -> None:
    begun, answered = ([pair[side] for pair in pairs] for side in (0, 1))
    alone, spent = times(begun, answered, [0] * len(pairs))
    # A week is a time that Python reads and Arrow does not; the other is none for both.
    for neighbour in ("no time", "2026-W01-1"):
        beside, beside_spent = times(
            [*begun, neighbour], [*answered, neighbour], [0] * (len(pairs) + 1)
        )
        assert beside[:-1].equals(alone)
        assert beside_spent is not None
        np.testing.assert_array_equal(beside_spent[:-1], spent)


@pytest.mark.parametrize("neighbour", ["2026-05-01T10:00:00Z", "no time", None])
def test_latency_has_nanoseconds(neighbour: str | None) -> None:
    begun = "2026-05-01T10:00:00.000000001Z"
    answered = "2026-05-01T10:00:00.0165432Z"
    found, spent = times([begun, neighbour], [answered, neighbour], [0, 0])

    assert spent is not None
    assert spent[0] == pytest.approx(16.543199, abs=1e-9)
    assert found[0].as_py() == datetime(2026, 5, 1, 10, tzinfo=UTC)


def test_time_before_1970_is_exact_too() -> None:
    begun = "1969-12-31T23:59:59.999999999Z"
    _, spent = times([begun, "x"], ["1970-01-01T00:00:00.000000001Z", "x"], [0, 0])

    assert spent is not None
    assert spent[0] == 2e-6


@pytest.mark.parametrize(
    ("sent", "came"),
    [
        ("1755-01-01T00:00:00Z", "2048-01-01T00:00:00Z"),
        ("2048-01-01T00:00:00Z", "1755-01-01T00:00:00Z"),
    ],
)
def test_more_than_nanoseconds_hold_is_no_latency(sent: str, came: str) -> None:
    found, spent = times([sent, "2026-05-01T10:00:00Z"], [came, "2026-05-01T10:00:01Z"], [0, 0])

    assert spent is not None
    assert np.isnan(spent[0])
    assert spent[1] == 1000
    assert found[0].as_py().isoformat() == sent.replace("Z", "+00:00")
