"""What goes from the search server: erased inferences, old rows; holds keep them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.adapters.conftest import MemoryDocuments

from sidelight.adapters import StoreError
from sidelight.logger import Document
from sidelight.service._deployments import put_all_settings
from sidelight.service._holds import Holds
from sidelight.service._search_upkeep import SEARCH_ERASURES, SearchErasures, SearchRetention
from sidelight.service._settings import Settings
from sidelight.service._settings_deployment import DeploymentSettings

_DAY_NS = 86_400 * 10**9
_NOW_NS = 1_000 * _DAY_NS


class Expiry:
    """Answers as a server that has some pieces to delete."""

    def __init__(self, **pieces: int) -> None:
        self.left = {name.replace("__", "/"): number for name, number in pieces.items()}
        self.asked: list[tuple[str, int, Sequence[Any]]] = []
        self.is_down = False

    def deployments(self) -> list[str]:
        return sorted(self.left)

    def expire(self, deployment: str, *, before_us: int, kept: Sequence[Any] = ()) -> int:
        if self.is_down:
            raise StoreError("down")
        self.asked.append((deployment, before_us, list(kept)))
        self.left[deployment] = self.left.get(deployment, 0) - 1
        return 7 if self.left[deployment] >= 0 else 0


def _retention(
    data: Path, expiry: Expiry, *known: DeploymentSettings, retention: Any = None
) -> SearchRetention:
    documents = MemoryDocuments()
    put_all_settings(documents, known)
    settings = Settings(data=data, retention=retention)
    return SearchRetention(documents, settings, expiry)  # type: ignore[arg-type]


def _swept(retention: SearchRetention, now_ns: int = _NOW_NS) -> tuple[bool, dict[str, int]]:
    deleted: dict[str, int] = {}

    def note(name: str, number: int) -> None:
        deleted[name] = deleted.get(name, 0) + number

    return retention.sweep(now_ns, note), deleted


def test_rows_past_the_retention_of_their_deployment_go_piece_by_piece(tmp_path: Path) -> None:
    expiry = Expiry(prod__a=3, prod__b=3)
    known = DeploymentSettings.model_validate({"name": "prod/a", "retention": "10d"})

    done = _swept(_retention(tmp_path, expiry, known))

    assert done == (True, {"prod/a": 21})
    assert {before_us for _, before_us, _ in expiry.asked} == {990 * _DAY_NS // 1000}


def test_a_retention_for_all_reaches_deployments_that_nobody_knows_any_more(tmp_path: Path) -> None:
    expiry = Expiry(prod__gone=1)

    assert _swept(_retention(tmp_path, expiry, retention="1d")) == (True, {"prod/gone": 7})


def test_what_is_on_hold_is_kept(tmp_path: Path) -> None:
    expiry = Expiry(prod__a=1)
    Holds(tmp_path).add("prod/a", reason="r", by="b", from_us=5, to_us=9)
    Holds(tmp_path).add("prod/b", reason="r", by="b")

    _swept(_retention(tmp_path, expiry, retention="1d"))

    assert [kept for _, _, kept in expiry.asked] == [[(5, 9)], [(5, 9)]]


def test_a_long_past_goes_in_several_sweeps(tmp_path: Path) -> None:
    expiry = Expiry(prod__a=30)
    retention = _retention(tmp_path, expiry, retention="1d")

    _, first = _swept(retention)
    is_due = retention.is_due(_NOW_NS + 1)
    _, second = _swept(retention, _NOW_NS + 1)

    assert (first, is_due, second) == ({"prod/a": 140}, True, {"prod/a": 70})
    assert not retention.is_due(_NOW_NS + 2)


def test_a_server_that_is_down_is_asked_again_and_no_hold_waits_for_it(tmp_path: Path) -> None:
    expiry = Expiry(prod__a=1)
    expiry.is_down = True
    retention = _retention(tmp_path, expiry, retention="1d")

    failed = _swept(retention)
    Holds(tmp_path).add("prod/a", reason="r", by="b")
    expiry.is_down = False

    assert failed == (False, {})
    assert not retention.is_due(_NOW_NS + 1)
    assert _swept(retention, _NOW_NS + 120 * 10**9) == (True, {"prod/a": 7})


def test_holds_that_cannot_be_read_delete_nothing(tmp_path: Path) -> None:
    (tmp_path / "access").mkdir()
    (tmp_path / "access" / "holds.json").write_text("?")
    expiry = Expiry(prod__a=1)

    assert _swept(_retention(tmp_path, expiry, retention="1d")) == (False, {})
    assert expiry.asked == []


def _asked(documents: MemoryDocuments, *ids: str) -> None:
    documents.put(
        [
            Document(
                collection=SEARCH_ERASURES,
                key=f"prod/a|{name}",
                deployment="prod/a",
                value={"deployment": "prod/a", "id": name},
            )
            for name in ids
        ]
    )


def test_an_erasure_is_due_when_what_was_waiting_has_gone_by() -> None:
    documents = MemoryDocuments()
    erasures = SearchErasures(documents)
    _asked(documents, "x")

    found = [erasures.next(position=at, end=end) for at, end in ((3, 5), (4, 9), (5, 9))]

    assert [item.standing for item in found] == [{("prod/a", "x")}] * 3
    assert [dict(item.due) for item in found] == [{}, {}, {"prod/a|x": ("prod/a", "x")}]


def test_an_erasure_that_is_done_and_asked_again_waits_again() -> None:
    documents = MemoryDocuments()
    erasures = SearchErasures(documents)
    _asked(documents, "x")
    assert erasures.next(position=5, end=5).due
    documents.put([Document(collection=SEARCH_ERASURES, key="prod/a|x")])
    assert not erasures.next(position=5, end=5).standing

    _asked(documents, "x")

    assert not erasures.next(position=5, end=6).due


@pytest.mark.parametrize("at", [0, 7])
def test_without_erasures_nothing_stands(at: int) -> None:
    found = SearchErasures(MemoryDocuments()).next(position=at, end=at)

    assert (found.standing, found.due) == (frozenset(), {})
