from datetime import date, datetime

import msgspec
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidelight.service.demo import FlightStream, LabelFeed, date_of, labels_for
from sidelight.service.demo._inference_protocol import decode_infer

NAN = float("nan")


def flights(n_rows: int) -> pd.DataFrame:
    departs = pd.date_range("2013-04-01 05:00", periods=n_rows, freq="6h")
    return pd.DataFrame(
        {
            "request_id": [f"{day:%Y-%m-%d}-UA-{row}-EWR" for row, day in enumerate(departs)],
            "departs": departs,
            "hour": departs.hour,
            "carrier": "UA",
            "origin": "EWR",
            "distance": 1400,
            "temp": 50.0,
            "humid": 60.0,
            "wind_speed": 10.0,
            "precip": 0.0,
            "pressure": NAN,
            "visib": 10.0,
            # Each third flight is late, each fifth never arrives.
            "arr_delay": [NAN if row % 5 == 4 else row % 3 * 10.0 for row in range(n_rows)],
            "late": [NAN if row % 5 == 4 else float(row % 3 == 2) for row in range(n_rows)],
        }
    )


@given(n_rows=st.integers(0, 60), every=st.integers(1, 9), group=st.integers(1, 9))
def test_requests_cover_each_row_once_and_in_order(n_rows: int, every: int, group: int) -> None:
    stream = FlightStream(flights(n_rows), group_every=every, group_rows=group)

    assert [row for request in stream.requests for row in request.rows] == list(range(n_rows))
    assert len({request.id for request in stream.requests}) == len(stream.requests)


def test_a_request_carries_its_rows_under_its_first_flights_name() -> None:
    stream = FlightStream(flights(12), group_every=3, group_rows=4)
    request = stream.requests[2]

    decoded = decode_infer(stream.body(request))

    assert (request.first, request.n_rows) == (2, 4)
    assert decoded.id == request.id == "2013-04-01-UA-2-EWR"
    assert decoded.columns["hour"] == [17, 23, 5, 11]


def test_a_missing_value_goes_over_the_wire_as_null() -> None:
    stream = FlightStream(flights(1))

    body = msgspec.json.decode(stream.body(stream.requests[0]))

    values = {tensor["name"]: tensor["data"] for tensor in body["inputs"]}
    assert values["pressure"] == [None]
    assert values["temp"] == [50.0]


def test_rows_beyond_the_ends_have_the_date_of_the_end() -> None:
    stream = FlightStream(flights(4))

    assert stream.departs(-7) == datetime(2013, 4, 1, 5)  # noqa: DTZ001 - New York's clock
    assert stream.departs(99) == datetime(2013, 4, 1, 23)  # noqa: DTZ001


def test_a_request_id_begins_with_its_date() -> None:
    assert date_of("2013-12-17-B6-1-JFK") == date(2013, 12, 17)


def test_a_foreign_request_id_has_no_date() -> None:
    with pytest.raises(ValueError, match="explain-1"):
        date_of("explain-1")


def test_flights_that_never_arrived_have_no_label() -> None:
    stream = FlightStream(flights(5), group_every=1, group_rows=5)

    labels = labels_for(stream, stream.requests[0], deployment="a/b", time="2026-01-01T00:00:00Z")

    assert [item["row"] for item in labels] == [0, 1, 2, 3]
    assert labels[2]["labels"] == {"late": True, "arr_delay": 20.0}
    assert {item["request_id"] for item in labels} == {"2013-04-01-UA-0-EWR"}


def test_labels_come_a_day_after_the_flight() -> None:
    stream = FlightStream(flights(12), group_every=99)
    feed = LabelFeed(stream, deployment="a/b", list_rows=1)

    before = [item["request_id"] for items in feed.due(3) for item in items]
    after = [item["request_id"] for items in feed.due(5) for item in items]

    # Four flights a day: with row 5 the flights 0 and 1 are a day past.
    assert before == []
    assert after == [stream.requests[0].id, stream.requests[1].id]


@given(
    n_rows=st.integers(0, 60),
    every=st.integers(1, 9),
    list_rows=st.integers(1, 20),
    looks=st.lists(st.integers(0, 60), max_size=5),
)
def test_each_label_is_handed_out_once_whenever_one_looks(
    n_rows: int, every: int, list_rows: int, looks: list[int]
) -> None:
    stream = FlightStream(flights(n_rows), group_every=every)
    feed = LabelFeed(stream, deployment="a/b", list_rows=list_rows)

    lists = [items for row in sorted(looks) if n_rows for items in feed.due(row)]
    lists += list(feed.rest())

    handed = [(item["request_id"], item["row"]) for items in lists for item in items]
    arrived = sum(stream.late(row) is not None for row in range(n_rows))
    assert len(handed) == len(set(handed)) == arrived
    assert all(1 <= len(items) <= list_rows for items in lists)
