from typing import Any

import pandas as pd
import pytest

from sidelight.detectors import DeploymentMonitor, Reference, Rows
from sidelight.service.demo import (
    FlightStream,
    Shift,
    control_rows,
    load_flights,
    reference_rows,
    stream_rows,
    tell_shifts,
    yardstick,
)
from sidelight.service.demo._season import _arrays


@pytest.fixture(scope="module")
def flights() -> pd.DataFrame:
    return load_flights()


@pytest.fixture(scope="module")
def reference(flights: pd.DataFrame) -> pd.DataFrame:
    return reference_rows(flights, 1000)


def watched(rows: pd.DataFrame, reference: pd.DataFrame) -> tuple[list[dict[str, Any]], list[str]]:
    monitor = DeploymentMonitor("a/b", reference=Reference.fit(_arrays(reference)))
    step = monitor.update(Rows(times=[""] * len(rows), columns=_arrays(rows)))
    return [verdict.to_json() for verdict in step.verdicts], [alarm.kind for alarm in step.alarms]


def test_the_control_is_the_quarter_in_order_without_the_reference(
    flights: pd.DataFrame, reference: pd.DataFrame
) -> None:
    control = control_rows(flights, reference, 2000)

    assert len(control) == 2000
    assert set(control["month"]) == {1, 2, 3}
    assert control["departs"].is_monotonic_increasing
    assert not set(control["request_id"]) & set(reference["request_id"])


def test_the_quarter_in_order_alarms_and_shuffled_does_not(
    flights: pd.DataFrame, reference: pd.DataFrame
) -> None:
    control = control_rows(flights, reference, 8000)

    _, in_order = watched(control, reference)
    _, shuffled = watched(control.sample(frac=1, random_state=7), reference)

    # Why the yardstick exists: the test is sound, weather is not a random sample.
    assert "drift" in in_order
    assert "drift" not in shuffled


@pytest.mark.parametrize("n_rows", [6000, 24_000])
def test_the_temperature_is_seasonal_and_the_timetable_is_not(
    flights: pd.DataFrame, reference: pd.DataFrame, n_rows: int
) -> None:
    rows = stream_rows(flights, n_rows)
    verdicts, _ = watched(rows, reference)

    within = yardstick(control_rows(flights, reference, n_rows // 3), reference)
    shifts = tell_shifts(verdicts, FlightStream(rows), within, rows_before=1000)

    by_name = {shift.feature: shift for shift in shifts}
    assert shifts[0].feature == "temp"
    assert by_name["temp"].is_seasonal
    assert str(by_name["temp"].since).startswith("2013-04")
    assert not by_name["origin"].is_seasonal
    assert not by_name["pressure"].is_seasonal


def test_a_shift_is_seasonal_when_it_is_large_and_beyond_the_quarter() -> None:
    assert Shift(feature="x", typical=0.3, within_quarter=0.2, since="2013-04-01").is_seasonal
    assert not Shift(feature="x", typical=0.2, within_quarter=0.2, since=None).is_seasonal
    assert not Shift(feature="x", typical=0.05, within_quarter=0.01, since="2013-04-01").is_seasonal


def test_verdicts_without_a_distance_or_a_yardstick_are_left_out(flights: pd.DataFrame) -> None:
    verdict = {"detector": "kolmogorov_smirnov", "feature": "temp", "rows": 3, "distance": 0.5}
    others = [verdict | {"distance": None}, verdict | {"feature": "y"}, verdict | {"detector": "d"}]
    stream = FlightStream(stream_rows(flights, 10))

    (shift,) = tell_shifts([verdict, *others], stream, {"temp": 0.4})

    assert (shift.typical, shift.since) == (0.5, stream.departs(2).date().isoformat())
