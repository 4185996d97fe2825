import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from sidelight.service.demo import (
    DemoNumbers,
    FlightStream,
    Outlier,
    Shift,
    TrafficReport,
    flight_day,
    json_line,
    print_summary,
    tell_alarm,
    tell_explanation,
    write_reference,
)

NAN = float("nan")
KEYS = [
    "events_seen",
    "inferences_stored",
    "orphans",
    "quarantined",
    "dropped",
    "duplicates",
    "lost",
    "rows",
    "drift_alarms",
    "outlier_rows",
    "explanation",
]
ALARM: dict[str, Any] = {
    "id": "a1",
    "deployment": "default/flights",
    "version": "1",
    "kind": "drift",
    "detector": "simple_jumper",
    "state": "open",
    "since": "2026-01-01T00:00:01Z",
    "raised_at": "2026-01-01T00:00:02Z",
    "raised_at_row": 3,
    "ended_at": None,
    "features": [{"name": "temp", "distance": 2.1, "share": 0.9}],
    "log10_evidence": 4.5,
}
EXPLANATION: dict[str, Any] = {
    "id": "e1",
    "state": "done",
    "inference_id": "i1",
    "method": "shapley",
    "rows": [
        {
            "prediction": 0.75,
            "base": 0.25,
            "attributions": {
                "temp": {"value": -0.1, "standard_error": 0.0},
                "precip": {"value": 0.6, "standard_error": 0.0},
                "pressure": {"value": 0.0, "standard_error": 0.0},
            },
            "rule": None,
        }
    ],
    "cost": {"model_rows": 1234},
    "quality": {"converged": True},
}
# The first of January 2026, midnight UTC.
NEW_YEAR = 1767225600.0


def flights() -> pd.DataFrame:
    departs = pd.date_range("2013-04-01 05:00", periods=4, freq="D")
    table = pd.DataFrame({"request_id": [f"{day:%Y-%m-%d}-UA-1-EWR" for day in departs]})
    weather = {"temp": 50.5, "humid": 60.0, "wind_speed": 1.0, "precip": 0.0, "pressure": NAN}
    rest = {"carrier": "UA", "origin": "EWR", "hour": 5, "distance": 1400, "visib": 10.0}
    return table.assign(departs=departs, arr_delay=27.0, late=1.0, **weather, **rest)


def report(stream: FlightStream) -> TrafficReport:
    return TrafficReport(
        requests=4,
        rows=4,
        failures={},
        seconds=4.0,
        p50_ms=1.0,
        p99_ms=1.0,
        probabilities=(0.5,) * 4,
        sent_at=tuple(NEW_YEAR + place for place in range(len(stream.requests))),
    )


def numbers() -> DemoNumbers:
    stream = FlightStream(flights())
    return DemoNumbers(
        events_seen=8,
        inferences_stored=4,
        orphans=0,
        quarantined=0,
        dropped=0,
        duplicates=0,
        lost=0,
        rows=4,
        outlier_rows=1,
        drift_alarms=(tell_alarm(ALARM, stream, report(stream)),),
        outliers=(Outlier(request_id="2013-04-02-UA-1-EWR", score=9.0, features={"precip": 1.2}),),
        explanation=tell_explanation(EXPLANATION, stream, stream.requests[0]),
        requests=4,
        failures=0,
        labels=4,
        first_day="2013-04-01",
        last_day="2013-04-04",
        auc_held_out=0.716,
        auc_stream=NAN,
        seconds=12.3456,
        url="http://127.0.0.1:8090",
        data="demo-data",
        shifts=(
            Shift(feature="temp", typical=0.93, within_quarter=0.41, since="2013-04-17"),
            Shift(feature="humid", typical=0.17, within_quarter=0.26, since=None),
        ),
    )


def printed(value: DemoNumbers, *, width: int = 120) -> str:
    out = io.StringIO()
    print_summary(Console(file=out, width=width), value)
    return out.getvalue()


def never_came() -> DemoNumbers:
    flight = numbers().explanation
    assert flight is not None
    flight = replace(flight, delay_minutes=None, converged=False)
    return replace(numbers(), explanation=flight)


def words(text: str) -> str:
    return " ".join(text.split())


def test_the_last_line_is_one_line_of_strict_json_with_the_promised_keys() -> None:
    line = json_line(numbers())

    value = json.loads(line, parse_constant=pytest.fail)
    assert "\n" not in line
    assert list(value)[: len(KEYS)] == KEYS
    assert value["drift_alarms"][0]["features"][0]["name"] == "temp"
    assert value["explanation"]["attributions"] == {"precip": 0.6, "temp": -0.1, "pressure": 0.0}
    assert value["auc_stream"] is None


def test_without_an_explanation_the_object_is_empty() -> None:
    assert json.loads(json_line(replace(numbers(), explanation=None)))["explanation"] == {}


def test_an_alarm_is_told_with_the_dates_of_its_flights() -> None:
    stream = FlightStream(flights())

    story = tell_alarm(ALARM | {"ended_at": "2026-01-01T01:00:03+01:00"}, stream, report(stream))

    assert story.raised_on == "2013-04-03"
    assert story.since == "2013-04-02"
    assert story.ended_on == "2013-04-04"
    assert story.feature_words == "temp: temperature (°F)"


def test_rows_before_the_stream_are_taken_off() -> None:
    stream = FlightStream(flights())

    story = tell_alarm(ALARM, stream, report(stream), rows_before=2)

    assert story.raised_on == "2013-04-01"


def test_a_time_before_the_first_flight_is_the_first_day() -> None:
    stream = FlightStream(flights())

    assert flight_day(stream, report(stream), "2025-12-31T00:00:00Z") == "2013-04-01"
    assert flight_day(stream, report(stream), None) is None


def test_the_summary_names_features_dates_bars_and_what_comes_next() -> None:
    text = printed(numbers())

    for expected in (
        "2013-04-01 to 2013-04-04",
        "0.716",
        "temperature (°F)",
        "2013-04-03 (row 3)",
        "still open",
        "yes, beyond it from 2013-04-17",
        "1 of 4 flights",
        "rain in the hour (inches) 1.2",
        "75% against 25%",
        "it came 27 minutes late",
        "not known on this stream",
        "missing",
        "1,234 rows",
        "every event is accounted for",
        "http://127.0.0.1:8090/v1/alarms",
        "sidelight verify --data demo-data",
    ):
        assert expected in words(text)
    lengths = [line.count("█") for line in text.splitlines() if "█" in line]
    assert lengths == [24, 4]


def test_what_is_missing_is_said_in_words() -> None:
    bare = replace(
        numbers(),
        drift_alarms=(),
        shifts=(),
        outliers=(),
        explanation=None,
        url=None,
        failures=2,
        lost=1,
    )

    text = printed(bare)

    assert "No drift alarm." in text
    assert "No flight was explained." in text
    assert "2 of them failed" in text
    assert "not equal" in text
    assert "it never came" in words(printed(never_came()))
    assert "cut short by the deadline" in words(printed(never_came()))
    assert "sidelight serve --data demo-data" in text


def test_an_outlier_without_weather_is_told_so() -> None:
    outlier = Outlier(request_id="2013-12-01-UA-1-EWR", score=9.0, features={"temp": None})

    assert "no weather report" in printed(replace(numbers(), outliers=(outlier,)))


@pytest.mark.parametrize(
    ("change", "accounted"),
    [
        pytest.param({}, True, id="all-stored"),
        pytest.param({"events_seen": 11, "orphans": 1, "dropped": 2}, True, id="elsewhere"),
        pytest.param({"events_seen": 9}, False, id="one-too-many"),
        pytest.param({"lost": 1}, False, id="lost"),
    ],
)
def test_the_account_holds_or_not(change: dict[str, int], accounted: bool) -> None:  # noqa: FBT001
    assert replace(numbers(), **change).accounted is accounted  # type: ignore[arg-type] # one of int


def test_the_reference_file_has_the_names_and_types_of_the_wire(tmp_path: Path) -> None:
    path = tmp_path / "reference.parquet"

    write_reference(path, flights(), {"probability": [0.5] * 4, "late": [True] * 4})

    table = pq.read_table(path)
    assert table.num_rows == 4
    assert str(table.schema.field("features.hour").type) == "int64"
    assert table["features.pressure"].null_count == 4
    assert table["features.carrier"].to_pylist() == ["UA"] * 4
    assert table["outputs.late"].to_pylist() == [True] * 4
