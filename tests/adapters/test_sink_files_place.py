from pathlib import PurePosixPath
from urllib.parse import unquote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.adapters.captured_events import ATTRIBUTES, captured, event_of

from sidelight.adapters._sink_files_place import Place, file_name, place_of, places

NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)


@settings(deadline=None)
@given(NAMES, NAMES)
def test_no_name_leaves_its_folder_or_grows_too_long_for_one(namespace: str, name: str) -> None:
    folder = Place(namespace=namespace, name=name, date="2026-01-31").folder()

    parts = PurePosixPath(folder).parts
    assert [part.partition("=")[0] for part in parts] == ["namespace", "deployment", "date"]
    assert all(part.isascii() and part.isprintable() and len(part) <= 255 for part in parts)
    assert ".." not in parts


@settings(deadline=None)
@given(st.lists(st.tuples(NAMES, NAMES), unique=True, max_size=5))
def test_every_deployment_has_a_folder_of_its_own(names: list[tuple[str, str]]) -> None:
    folders = {Place(namespace=namespace, name=name, date="").folder() for namespace, name in names}

    assert len(folders) == len(names)


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=16))
def test_a_name_can_be_read_from_its_folder(name: str) -> None:
    part = Place(namespace="n", name=name, date="").folder().split("/")[1]

    assert unquote(part.removeprefix("deployment=")) == name


def test_a_long_name_is_cut_between_its_characters() -> None:
    for length in range(60, 80):
        part = Place(namespace="n", name="é" * length, date="").folder().split("/")[1]
        assert "�" not in unquote(part, errors="replace")


@pytest.mark.parametrize(
    ("time", "date"),
    [
        ("2026-01-31T23:59:59.999999Z", "2026-01-31"),
        ("2026-01-31T23:59:59-02:00", "2026-02-01"),
        ("2026-13-31T23:59:59Z", ""),
        ("2026-01-31T23:59:59", ""),
        ("../../../T/etcZ", ""),
        ("２０２６-01-31T00:00:00Z", ""),  # noqa: RUF001 - digits of another script
        ("0001-01-01T00:00:00+23:00", ""),
        ("soon", ""),
        (None, ""),
    ],
)
def test_the_day_is_that_of_the_event_in_utc(time: str | None, date: str) -> None:
    assert place_of(captured(time=time)).date == date


def test_what_has_no_name_and_no_day_has_a_folder_that_readers_take_for_null() -> None:
    event = captured(time=None, namespace=None, inferenceservicename=None, modelname=None)

    nothing = "__HIVE_DEFAULT_PARTITION__"
    assert place_of(event).folder() == (f"namespace={nothing}/deployment={nothing}/date={nothing}")


def test_events_keep_their_order_in_their_places() -> None:
    events = [
        captured(id=str(number), inferenceservicename=name)
        for number, name in enumerate(["b", "a", "b", "a", "b"])
    ]

    found = places(events)

    assert [place.name for place in found] == ["b", "a"]
    assert list(found.values()) == [[events[0], events[2], events[4]], [events[1], events[3]]]


@settings(deadline=None)
@given(st.lists(st.tuples(ATTRIBUTES, st.binary(max_size=9)), min_size=1, max_size=4))
def test_a_name_depends_on_the_first_event_alone(
    content: list[tuple[dict[str, str], bytes]],
) -> None:
    events = [event_of(attributes, data) for attributes, data in content]

    assert file_name(events, "parquet") == file_name(events[:1], "parquet")


@pytest.mark.parametrize(
    "other",
    [captured(id="2"), captured(b"[2]"), captured(time="2026-01-31T10:20:30.123457Z")],
)
def test_another_first_event_gives_another_name(other: object) -> None:
    assert file_name([captured()], "jsonl") != file_name([other], "jsonl")  # type: ignore[list-item]
