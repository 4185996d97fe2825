"""Whoever waits for an erasure is told why it does not come on, and what to do."""

import os
from pathlib import Path
from typing import Any

import httpx
import pytest

from sidelight.adapters import Lake
from sidelight.service import _stage_erasing
from sidelight.service._cli_erase import _Told
from sidelight.service._erasing_remote import erase_remotely
from sidelight.service._erasure_orders import ErasureAnswer, ErasureOrder, ErasureOrders
from sidelight.service._erasure_progress import ErasureProgress, ErasureProgressFile
from sidelight.service._settings import Settings
from sidelight.service._stage_erasing import ErasingStage
from sidelight.service.errors import NotReady

_NAME = "prod/flights"
_STRAY = "lake/inferences/notes.txt"


class Working:
    """The stages of a folder with one inference, and the one that erases."""

    def __init__(self, folder: Any) -> None:
        self.folder = folder
        folder.ask([[1.0, "f"]], request_id="r1", minutes=1)
        folder.work()
        self.orders = ErasureOrders(folder.data)
        self.begin()

    def begin(self) -> None:
        settings = Settings(data=self.folder.data)
        append = lambda head, body: self.folder.writer.write(head, body).result(100)  # noqa: E731
        self.stage = ErasingStage(
            self.folder.journals,
            self.folder.documents,
            Lake(self.folder.data),
            settings,
            self.folder.stages,
            append,
        )

    def order(self, **what: Any) -> str:
        what = {"request_ids": ("r1",), **what}
        order = ErasureOrder(deployment=_NAME, by="me", reason="asked", **what)
        self.orders.ask(order)
        return order.id

    def steps(self, n: int, *, others: bool = True) -> None:
        for _ in range(n):
            self.folder.now_ns += 10**9
            for stage in (*(self.folder.stages if others else ()), self.stage):
                stage.step(self.folder.now_ns)

    def stray(self) -> Path:
        path: Path = self.folder.data / _STRAY
        path.write_text("by hand")
        return path


@pytest.fixture
def working(folder: Any, monkeypatch: pytest.MonkeyPatch) -> Working:
    monkeypatch.setattr(_stage_erasing, "_TIDY_STEPS", 3)
    return Working(folder)


def _shown(api: Any, erasure_id: str) -> dict[str, Any]:
    """Return what the API says of one, the same in both of its routes."""
    answer = api.get(f"/v1/erasures/{erasure_id}")
    one: dict[str, Any] = answer.json()
    (item,) = [item for item in api.items("/v1/erasures") if item["id"] == erasure_id]
    assert answer.status_code == (202 if one["state"] == "running" else 200)
    assert one.items() <= item.items()
    return one


def test_a_stray_file_in_the_lake_is_named_with_what_to_do_until_it_is_gone(
    working: Working, api: Any
) -> None:
    path, erasure = working.stray(), working.order()
    working.steps(60)
    shown = _shown(api, erasure)

    assert shown["state"] == "running"
    assert shown["since"].endswith("Z")
    assert _STRAY in shown["last_error"]
    assert "move it out of lake/" in shown["hint"]
    assert shown["failed_tries"] > 1
    assert shown["failed_at"] < shown["next_try"]
    path.unlink()
    working.steps(60)
    shown = _shown(api, erasure)
    assert shown["state"] == "done"
    assert shown.keys().isdisjoint({"since", "waits_for", "failed_tries", "last_error", "hint"})


def test_what_an_erasure_waits_for_is_said_before_it_fails(working: Working, api: Any) -> None:
    working.stray()
    erasure = working.order()
    told = []
    for _ in range(60):
        working.steps(1)
        shown = _shown(api, erasure)
        told.append(shown.get("waits_for"))
        if "last_error" in shown:
            break

    assert any(text and text.startswith(f"{_STRAY} to go: move it out of lake/") for text in told)


def test_answers_that_nobody_comes_for_go_while_the_service_runs(working: Working) -> None:
    old, new = working.order(dry_run=True), working.order(dry_run=True)
    working.steps(60)
    os.utime(working.folder.data / "run" / "erasures" / f"{old}.answer", (0, 0))
    before = [working.orders.state(order) is None for order in (old, new)]
    working.steps(90, others=False)

    assert before == [False, False]
    assert [working.orders.state(order) is None for order in (old, new)] == [True, False]


def test_a_kill_before_the_answer_of_what_found_nothing_loses_no_order(
    working: Working, monkeypatch: pytest.MonkeyPatch
) -> None:
    erasure = working.order(request_ids=(), where="features.age = 7")

    class Killed(BaseException):
        """Nothing more is done."""

    def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(ErasureOrders, "close", killed)
        with pytest.raises(Killed):
            working.steps(60)
    working.begin()
    working.steps(60)
    found = working.orders.state(erasure)

    assert found is not None
    assert (found[0], found[1].state, found[1].inferences) == (_NAME, "done", 0)


def test_a_stage_that_stands_still_is_named(working: Working, api: Any) -> None:
    working.folder.ask([[2.0, "f"]], request_id="r2", minutes=2)
    erasure = working.order()
    working.steps(3, others=False)

    assert _shown(api, erasure)["waits_for"] == "decoding to take what came before"


def test_an_order_behind_another_says_so_and_names_nobody(working: Working, api: Any) -> None:
    working.stray()
    first = working.order()
    working.steps(30)
    second = working.order(request_ids=(), subject="sex=marker", dry_run=True)
    listed = api.get("/v1/erasures").text

    assert _shown(api, second)["waits_for"] == f"{first}, which came before"
    assert [item["id"] for item in api.items("/v1/erasures")] == [second, first]
    assert "marker" not in listed
    assert api.items("/v1/erasures", deployment="prod/other") == []


def test_what_nobody_foresaw_is_told_by_its_kind_alone(
    working: Working, api: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise ZeroDivisionError("the subject is somebody")

    monkeypatch.setattr(working.stage._derived, "note_erased", fails)
    erasure = working.order()
    with pytest.raises(ZeroDivisionError):
        working.steps(60)
    shown = _shown(api, erasure)

    assert shown["last_error"] == "nobody foresaw this: ZeroDivisionError"
    assert shown["hint"] == "the log of the service says more"


def test_tries_go_on_after_a_restart_and_are_counted_anew(working: Working, api: Any) -> None:
    path, erasure = working.stray(), working.order()
    working.steps(60)
    working.begin()
    assert "failed_tries" not in _shown(api, erasure)

    working.steps(60)
    assert _shown(api, erasure)["failed_tries"] > 0
    path.unlink()
    working.steps(60)
    assert _shown(api, erasure)["state"] == "done"


def test_metrics_say_since_when_and_how_often(working: Working, api: Any) -> None:
    path, _ = working.stray(), working.order()
    waiting = _metrics(api)
    working.steps(60)
    failing = _metrics(api)
    path.unlink()
    working.steps(60)
    done = _metrics(api)

    since = "sidelight_erasure_since_timestamp_seconds"
    failed = "sidelight_erasure_failed_tries"
    assert (waiting[failed], failing[failed] > 1, done[failed]) == (0, True, 0)
    assert failing[since] == pytest.approx(waiting[since], abs=0.002)
    assert since not in done


def _metrics(api: Any) -> dict[str, float]:
    lines = [line for line in api.get("/metrics").text.splitlines() if "erasure_" in line]
    return {
        name: float(value) for name, value in (line.split() for line in lines if line[0] != "#")
    }


def test_a_disk_that_is_full_costs_what_is_told_and_not_the_erasure(
    working: Working, api: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    erasure = working.order()
    working.steps(60)

    assert _shown(api, erasure)["state"] == "done"


@pytest.mark.parametrize("content", [b"", b"[]", b'{"id": 1}', b'{"more": 1}', b"\xff"])
def test_what_cannot_be_read_of_progress_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "erasing.json").write_bytes(content)

    assert ErasureProgressFile(tmp_path).read() is None


_FAILING = ErasureProgress(
    id="e", since="2026-03-01T12:00:00.000Z", failed_tries=2, last_error="no", hint="do this"
)


def test_the_command_says_each_reason_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sidelight.service._erasing_remote._PAUSE_S", 0)
    running = ErasureAnswer(id="e", state="running")
    failing = running.with_progress(_FAILING)
    done = ErasureAnswer(id="e", state="done", inferences=3)
    answers = [(202, running), (202, failing), (202, failing), (200, done)]
    left = [httpx.Response(status, json=answer.to_json()) for status, answer in answers]
    transport = httpx.MockTransport(lambda _: left.pop(0))

    assert erase_remotely("http://x", None, {}, tell=_Told(), transport=transport) == done
    said = "sidelight: e is not done and tried again: no\n  do this\n"
    assert capsys.readouterr().err == said


def test_the_command_says_what_is_waited_for_when_it_stays_so(
    capsys: pytest.CaptureFixture[str],
) -> None:
    told = _Told()
    for waits_for, times in (("a", 20), ("", 40), ("b", 40), ("a", 5), ("b", 40)):
        for _ in range(times):
            told(ErasureAnswer(id="e", state="running", waits_for=waits_for))

    assert capsys.readouterr().err == "sidelight: e waits for b\n"


def test_who_does_not_wait_longer_is_told_why(folder: Any) -> None:
    orders = ErasureOrders(folder.data)
    order = ErasureOrder(deployment=_NAME, by="me", reason="asked", request_ids=("r1",))
    orders.ask(order)
    progress = ErasureProgressFile(folder.data)
    progress.begin(order.id, "2026-03-01T12:00:00.000Z")
    progress.failed("no", "do this", now_ns=0, next_ns=1)

    with pytest.raises(NotReady, match="tried 1 times, no; do this"):
        orders.wait(order, patience_s=-1, pause=lambda _: None)
