"""An index a day, and not one more for every time that somebody sends."""

from datetime import UTC, datetime

from sidelight.adapters._elastic_days import Days


def _days(*known: str, most: int = 3) -> Days:
    return Days(
        lambda stem: [f"{stem}-{day}" for day in known],
        most=most,
        today=lambda: datetime(2026, 11, 21, tzinfo=UTC),
    )


def test_a_day_has_an_index_of_its_own() -> None:
    assert _days().index_of("s-a", "2013-01-01") == "s-a-2013-01-01"


def test_days_beyond_the_most_share_an_index() -> None:
    days = _days("2013-01-01", "2013-01-02", "other-times")

    names = [days.index_of("s", f"2013-01-0{day}") for day in (3, 4, 1, 3)]

    assert names == ["s-2013-01-03", "s-other-times", "s-2013-01-01", "s-2013-01-03"]


def test_a_day_around_today_has_an_index_whatever_others_there_are() -> None:
    days = _days(most=1)

    names = [days.index_of("s", day) for day in ("9999-12-31", "2026-11-23", "2026-11-24")]

    assert names == ["s-9999-12-31", "s-2026-11-23", "s-other-times"]


def test_stems_are_counted_apart() -> None:
    days = _days(most=1)

    names = [days.index_of(stem, "2013-01-01") for stem in ("a", "b")]

    assert names == ["a-2013-01-01", "b-2013-01-01"]


def test_days_whose_index_is_gone_make_room_when_they_are_looked_for_again() -> None:
    known = ["2013-01-01"]
    days = Days(lambda stem: [f"{stem}-{day}" for day in known], most=1)
    before = days.index_of("s", "2013-01-02")

    known.clear()
    days.forget()

    assert (before, days.index_of("s", "2013-01-02")) == ("s-other-times", "s-2013-01-02")
