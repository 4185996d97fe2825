from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from sidelight.logger._emitter_event import CapturedEvent
from sidelight.logger._outlet import EmitterLimits, Outlet, SpoolFolder, check_outlets
from sidelight.logger._sink import Delivery

FOLDER = SpoolFolder(folder=Path("spool"))


class Nowhere:
    async def send(self, events: Sequence[CapturedEvent]) -> Delivery:
        return Delivery(n_taken=len(events))

    async def close(self) -> None:
        pass


def outlet(name: str = "sink", **changed: Any) -> Outlet:
    values: dict[str, Any] = {"sink": Nowhere(), "overflow": "drop_newest"} | changed
    return Outlet(name=name, **values)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        pytest.param({"name": ""}, "a name", id="no name"),
        pytest.param({"overflow": "wait"}, "'wait'", id="no policy"),
        pytest.param({"overflow": "spool"}, "a folder", id="no folder"),
        pytest.param({"spool": FOLDER}, "expected none", id="folder for nothing"),
    ],
)
def test_what_does_not_go_together_is_named(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        outlet(**changed)


@pytest.mark.parametrize("name", ["linger_s", "open_after_failures", "memory_bytes"])
def test_a_bound_that_is_none_is_named(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        EmitterLimits(**{name: 0})


def test_outlets_are_the_same_by_name_and_settings_whatever_the_sink() -> None:
    one = outlet(settings={"url": "a"})

    assert one.is_same(outlet(settings={"url": "a"}))
    assert not one.is_same(outlet(settings={"url": "b"}))
    assert not one.is_same(outlet("other", settings={"url": "a"}))
    assert not one.is_same(outlet(settings={"url": "a"}, limits=EmitterLimits(batch_events=1)))
    assert not one.is_same(outlet(settings={"url": "a"}, overflow="drop_oldest"))


def test_without_settings_only_the_same_sink_is_the_same() -> None:
    sink = Nowhere()

    assert outlet(sink=sink).is_same(outlet(sink=sink))
    assert not outlet(sink=sink).is_same(outlet())


def test_outlets_have_names_and_folders_of_their_own() -> None:
    here = {"overflow": "spool", "spool": FOLDER}
    again = {"overflow": "spool", "spool": SpoolFolder(folder=Path.cwd() / "spool")}

    with pytest.raises(ValueError, match="at least one"):
        check_outlets([])
    with pytest.raises(ValueError, match="name of their own, got sink"):
        check_outlets([outlet(), outlet()])
    with pytest.raises(ValueError, match="folder of their own"):
        check_outlets([outlet("a", **here), outlet("b", **again)])
    assert len(check_outlets([outlet("a", **here), outlet("b")])) == 2
