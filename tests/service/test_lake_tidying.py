"""Tidying: in a thread, committed in the stage, and never over what somebody else did."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sidelight.adapters import Inferences, Lake, LakeError, Manifest, _lake_rows
from sidelight.adapters._lake_writing import write_file
from sidelight.logger.errors import JournalError
from sidelight.service._background import Background
from sidelight.service._lake_tidying import LakeTidying

_STEP_NS = 20_000_000_000


class Tidied:
    """The tidying of a folder, with a clock of its own."""

    def __init__(self, folder: Any) -> None:
        self.lake = Lake(folder.data)
        self.manifest = Manifest(folder.documents)
        self.tidying = LakeTidying(folder.journals, folder.documents, self.lake, self.manifest)
        self.now_ns = 10**18

    def step(self) -> bool:
        """Begin what is due, or take what is done."""
        self.now_ns += _STEP_NS
        return self.tidying.step(self.now_ns)


@pytest.fixture
def many(folder: Any) -> Any:
    """A folder with a hot file of many deployments."""
    for number in range(12):
        folder.ask([[number, "f"]], deployment=f"prod/d{number}", request_id=f"r{number}")
    for stage in (folder.decoding, folder.storing):
        folder.now_ns += 10**9
        stage.step(folder.now_ns)
    return folder


def _hot(folder: Any) -> list[Path]:
    return sorted((folder.data / "lake" / "hot").rglob("*.arrows"))


def _until(tidied: Tidied, true: Callable[[], bool] = lambda: True) -> None:
    """Step until something is committed and a condition holds; each step waits for the thread."""
    for _ in range(100):
        if tidied.step() and true():
            return
        tidied.tidying._work.wait()
    pytest.fail("nothing was committed")


def test_hot_rows_move_when_nothing_comes(many: Any) -> None:
    tidied = Tidied(many)
    hot = _hot(many)

    _until(tidied)
    _until(tidied, lambda: not _hot(many))

    queries = Inferences(many.data, many.documents)
    assert len(hot) == 1
    assert len(list((many.data / "lake" / "inferences").rglob("*.parquet"))) == 12
    assert queries.count() == 12
    queries.close()


def test_what_is_under_way_at_the_end_is_committed(many: Any) -> None:
    tidied = Tidied(many)
    tidied.step()

    tidied.tidying.close()

    files = tidied.manifest.files("inferences", fresh=True)
    assert [file.hot for file in files] == [None] * 12


def test_hot_rows_stay_while_more_come(many: Any) -> None:
    tidied = Tidied(many)

    for _ in range(4):
        tidied.tidying.note(tidied.now_ns + _STEP_NS)
        assert not tidied.step()
        tidied.tidying._work.wait()

    assert len(_hot(many)) == 1


def test_what_somebody_replaced_meanwhile_is_not_committed(
    many: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tidied = Tidied(many)
    settle = tidied.lake.settle

    def replaced(manifest: Manifest, *, min_files: int = 1) -> Any:
        done = settle(manifest, min_files=min_files)
        if done is not None:
            many.documents.put(done.documents[:1])
        return done

    monkeypatch.setattr(tidied.lake, "settle", replaced)
    tidied.step()
    tidied.tidying._work.wait()
    tidied.step()

    assert list((many.data / "lake" / "inferences").rglob("*.parquet")) == []
    assert tidied.manifest.files("inferences", fresh=True) == []


def test_a_lake_that_cannot_be_written_is_tidied_later(
    many: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tidied = Tidied(many)
    with monkeypatch.context() as patch:
        patch.setattr(tidied.lake, "settle", _refuse)
        tidied.step()
        tidied.tidying._work.wait()
        tidied.step()

    _until(tidied)

    assert len(list((many.data / "lake" / "inferences").rglob("*.parquet"))) == 12


def _refuse(*_: Any, **__: Any) -> None:
    raise LakeError("no room")


def test_an_error_of_the_thread_is_the_stage_s() -> None:
    work: Background[int] = Background("test")
    work.start(lambda: 1 // 0)
    work.wait()

    with pytest.raises(ZeroDivisionError):
        work.take()
    assert not work.is_busy
    assert work.take() == []


def test_a_result_is_taken_once() -> None:
    work: Background[int] = Background("test")
    gate = threading.Event()
    work.start(lambda: 7 if gate.wait(100) else 0)

    before = work.take()
    gate.set()
    work.wait()

    assert (before, work.take(), work.take()) == ([], [7], [])


def _parquet(folder: Any) -> list[Path]:
    return sorted((folder.data / "lake" / "inferences").rglob("*.parquet"))


def test_what_was_merged_for_a_commit_that_failed_goes_though_nothing_is_merged_any_more(
    many: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tidied = Tidied(many)
    tidied.step()
    tidied.tidying._work.wait()
    with monkeypatch.context() as patch:
        patch.setattr(many.journals, "commit", _full)
        with pytest.raises(JournalError):
            tidied.step()
    assert len(_parquet(many)) == 12

    monkeypatch.setattr(tidied.lake, "settle", lambda *_, **__: None)
    tidied.step()

    assert _parquet(many) == []
    assert len(tidied.manifest.files("inferences", fresh=True)) == 12


def test_what_was_merged_is_made_again_when_its_commit_failed(
    many: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tidied = Tidied(many)
    tidied.step()
    tidied.tidying._work.wait()
    with monkeypatch.context() as patch:
        patch.setattr(many.documents, "get", _full)
        with pytest.raises(JournalError):
            tidied.step()

    _until(tidied, lambda: len(_parquet(many)) == 12)

    files = tidied.manifest.files("inferences", fresh=True)
    assert [file.hot for file in files] == [None] * 12


def test_a_merge_whose_files_somebody_deleted_is_not_committed(many: Any) -> None:
    tidied = Tidied(many)
    tidied.step()
    tidied.tidying._work.wait()
    _parquet(many)[0].unlink()

    tidied.step()

    assert _parquet(many) == []
    assert {file.hot is None for file in tidied.manifest.files("inferences", fresh=True)} == {False}


def test_a_move_that_fails_half_way_leaves_nothing(
    many: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tidied = Tidied(many)
    calls = [0]

    def failing(*arguments: Any, **options: Any) -> int:
        calls[0] += 1
        if calls[0] == 2:
            raise OSError(28, "No space left on device")
        return write_file(*arguments, **options)

    monkeypatch.setattr(_lake_rows, "write_file", failing)
    tidied.step()
    tidied.tidying._work.wait()
    tidied.step()

    assert _parquet(many) == []


def _full(*_: Any) -> None:
    raise JournalError("no room")
