"""Legal holds: durable, exclusive of deletions, and never lost silently."""

import fcntl
import threading
from pathlib import Path
from typing import Any

import pytest

from sidelight.service._holds import Hold, Holds, refuse_held
from sidelight.service._problems import problem_of
from sidelight.service.errors import ConfigurationError, NotFound, OnHold


def _add(holds: Holds, deployment: str = "prod/flights", **span: int) -> Hold:
    return holds.add(deployment, reason="case 17", by="user ann", **span)


def test_a_hold_is_kept_until_it_is_released_and_remembered_behind_that(tmp_path: Path) -> None:
    hold = _add(Holds(tmp_path))
    with Holds(tmp_path).kept() as active:
        assert active == (hold,)

    released = Holds(tmp_path).release(hold.id, reason="case closed", by="user bob")

    with Holds(tmp_path).kept() as active:
        assert active == ()
    assert Holds(tmp_path).list() == (released,)
    assert (released.by, released.released_by) == ("user ann", "user bob")
    assert (released.reason, released.release_reason) == ("case 17", "case closed")
    assert (tmp_path / "access" / "holds.json").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("known", [True, False])
def test_what_is_not_held_cannot_be_released(tmp_path: Path, *, known: bool) -> None:
    holds = Holds(tmp_path)
    hold_id = "hold-0"
    if known:
        hold_id = _add(holds).id
        holds.release(hold_id, reason="", by="x")

    with pytest.raises(NotFound, match=hold_id):
        holds.release(hold_id, reason="", by="x")


@pytest.mark.parametrize(
    ("first", "last", "covered"),
    [(0, 9, False), (0, 10, True), (10, 10, True), (19, 30, True), (20, 30, False), (0, 99, True)],
)
def test_a_hold_covers_from_its_first_moment_to_before_its_end(
    tmp_path: Path, first: int, last: int, *, covered: bool
) -> None:
    hold = _add(Holds(tmp_path), from_us=10, to_us=20)

    assert hold.covers("prod/flights", first, last) == covered
    assert not hold.covers("prod/other", first, last)


def test_a_refusal_names_the_hold_and_why(tmp_path: Path) -> None:
    hold = _add(Holds(tmp_path))

    with pytest.raises(OnHold, match=f"{hold.id}.*user ann: case 17") as caught:
        refuse_held([hold], "prod/flights", 0, 1)
    assert problem_of(caught.value)["status"] == 409
    refuse_held([hold], "prod/other", 0, 1)


@pytest.mark.parametrize("content", [b"", b"{", b'{"format": 2}', b'{"holds": [{"id": "x"}]}'])
def test_a_file_that_is_none_of_ours_lets_nothing_be_deleted(
    tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "access").mkdir()
    (tmp_path / "access" / "holds.json").write_bytes(content)

    with pytest.raises(ConfigurationError, match="nothing is deleted"), Holds(tmp_path).kept():
        pytest.fail("deleted")
    with pytest.raises(ConfigurationError):
        _add(Holds(tmp_path))
    assert (tmp_path / "access" / "holds.json").read_bytes() == content


def test_no_hold_is_added_while_something_is_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    holds = Holds(tmp_path)
    adding = threading.Thread(target=_add, args=(Holds(tmp_path),))
    waits = threading.Event()
    flock = fcntl.flock

    def noted(file: Any, operation: int) -> None:
        if threading.current_thread() is adding:
            waits.set()
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", noted)
    with holds.kept() as active:
        adding.start()
        assert waits.wait(100)
        # However long: it is not added.
        adding.join(0.2)

        assert adding.is_alive()
        assert holds.list() == active == ()
    adding.join()
    assert len(holds.list()) == 1
