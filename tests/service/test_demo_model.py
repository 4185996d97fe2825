from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped] # has no types

from sidelight.service.demo import FEATURES, area_under_curve, load_flights, stream_rows
from sidelight.service.demo._model import FlightModel, train_model


@pytest.fixture(scope="module")
def flights() -> pd.DataFrame:
    return load_flights()


@pytest.fixture(scope="module")
def model(flights: pd.DataFrame) -> Iterator[FlightModel]:
    # As in the server: threads that wait for each other make small predictions a thousand times
    # slower while other tests run.
    with threadpool_limits(limits=1):
        yield train_model(flights)


def columns(rows: pd.DataFrame) -> dict[str, list[object]]:
    return {name: rows[name].tolist() for name in FEATURES}


def test_the_model_ranks_flights_it_never_saw(model: FlightModel, flights: pd.DataFrame) -> None:
    later = stream_rows(flights, 20_000).dropna(subset=["late"])
    answers = model.probability(model.matrix(columns(later)))

    # Measured 0.716 on the end of March and 0.69 on all of April to December; an area of 0.5 would
    # be chance, and 0.8 would mean that something known only afterwards slipped in.
    assert 0.70 < model.auc < 0.75
    assert 0.66 < area_under_curve(later["late"].to_numpy() > 0, answers) < 0.75


def test_as_many_are_called_late_in_training_as_were_late(
    model: FlightModel, flights: pd.DataFrame
) -> None:
    rows = flights[flights["month"] <= 3].dropna(subset=["late"])
    called = model.probability(model.matrix(columns(rows))) >= model.threshold

    assert called.mean() == pytest.approx(rows["late"].mean(), abs=0.01)
    assert model.n_rows == len(rows)


def test_the_same_flights_give_the_same_model(model: FlightModel, flights: pd.DataFrame) -> None:
    again = train_model(flights)
    rows = model.matrix(columns(stream_rows(flights, 500)))

    np.testing.assert_array_equal(again.probability(rows), model.probability(rows))


def test_answers_do_not_depend_on_the_company(model: FlightModel, flights: pd.DataFrame) -> None:
    rows = model.matrix(columns(stream_rows(flights, 40)))

    alone = np.concatenate([model.probability(rows[row : row + 1]) for row in range(len(rows))])

    np.testing.assert_array_equal(model.probability(rows), alone)


def test_an_unknown_airline_and_missing_weather_get_an_answer(model: FlightModel) -> None:
    unknown: dict[str, list[object]] = {name: [None] for name in FEATURES}
    row = unknown | {"hour": [17], "carrier": ["??"], "origin": [None]}

    (answer,) = model.probability(model.matrix(row))

    assert 0 < answer < 1
