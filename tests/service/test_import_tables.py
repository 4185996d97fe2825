"""Rows of tables as events: times, as people write them."""

from datetime import UTC, date, datetime
from typing import Any

import orjson
import pytest

from sidelight.service._import_tables import Mapped, Table, row_events
from sidelight.service.errors import BadRequest

MAPPED = Mapped(deployment="a/b", time="t")


def _time(value: Any) -> str | None:
    row = {"t": value, "x": 1}
    (event,) = row_events([row], MAPPED, Table.of([row], MAPPED), digest=b"")
    time: str | None = orjson.loads(event.attributes + b"}").get("time")
    return time


@pytest.mark.parametrize(
    ("value", "time"),
    [
        pytest.param(1_700_000_000, "2023-11-14T22:13:20+00:00", id="seconds"),
        pytest.param(1_700_000_000.5, "2023-11-14T22:13:20.500000+00:00", id="half seconds"),
        pytest.param(-86_400, "1969-12-31T00:00:00+00:00", id="before 1970"),
        pytest.param(1_700_000_000_001, "2023-11-14T22:13:20.001000+00:00", id="milliseconds"),
        pytest.param(1_700_000_000_001.0, "2023-11-14T22:13:20.001000+00:00", id="as a float"),
        pytest.param(1_700_000_000_000_001, "2023-11-14T22:13:20.000001+00:00", id="microseconds"),
        pytest.param(
            1_700_000_000_000_001_999, "2023-11-14T22:13:20.000001+00:00", id="nanoseconds"
        ),
        pytest.param("2026-01-02 10:00", "2026-01-02T10:00:00+00:00", id="without a zone"),
        pytest.param("2026-01-02T10:00Z", "2026-01-02T10:00:00+00:00", id="with a zone"),
        pytest.param(date(2026, 1, 2), "2026-01-02T00:00:00+00:00", id="a date"),
        pytest.param(datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02T00:00:00+00:00", id="a moment"),
        pytest.param(None, None, id="none"),
        pytest.param("", None, id="empty"),
    ],
)
def test_times_are_read_as_people_write_them(value: Any, time: str | None) -> None:
    assert _time(value) == time


@pytest.mark.parametrize("value", ["soon", True, [1], float("nan"), float("inf"), 10**40])
def test_what_is_no_time_is_refused_before_anything_is_sent(value: Any) -> None:
    with pytest.raises(BadRequest, match="row 1: the time cannot be read: expected RFC 3339"):
        Table.of([{"t": 0, "x": 1}, {"t": value, "x": 1}], MAPPED)


@pytest.mark.parametrize(
    ("value", "word"),
    [
        pytest.param("007", "007", id="text"),
        pytest.param(7, "7", id="whole"),
        pytest.param(7.0, "7", id="whole as a float"),
        pytest.param(1.5, "1.5", id="fraction"),
        pytest.param(b"ab", "ab", id="bytes of text"),
        pytest.param(b"\xff", "/w==", id="bytes"),
        pytest.param(None, None, id="none"),
        pytest.param(float("nan"), None, id="no number"),
        pytest.param("", None, id="empty"),
    ],
)
def test_ids_and_versions_are_the_text_that_is_meant(value: Any, word: str | None) -> None:
    mapped = Mapped(deployment="a/b", request_id="id", version="v")
    row = {"id": value, "v": value, "x": 1}

    (event,) = row_events([row], mapped, Table.of([row], mapped), digest=b"")

    attributes = orjson.loads(event.attributes + b"}")
    assert attributes.get("modelversion") == word
    assert (attributes["id"] == word) == (word is not None)
