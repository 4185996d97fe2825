"""Storing, whatever is cut off: each row once, and no file that nobody names."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from sidelight.adapters import Inferences, Lake, LakeError, Manifest, _lake_rows
from sidelight.adapters._lake_writing import write_file
from sidelight.logger import Commit
from sidelight.logger.errors import JournalFull
from sidelight.service._stage import STORING
from sidelight.service._stage_storing import StoringStage

_N_DEPLOYMENTS = 9
_TIMES_AROUND = 3
# Renames, deletions and commits, counted: while nine files are merged, which they are as long as
# they are short, and then around the hot file and its move.
_MOMENTS = (1, 16, 22, 29, 2, 3, 7, 11, 12)


class Killed(BaseException):
    """The process is gone."""


class Life:
    """One process after the other over a data folder; each may be killed at a moment."""

    def __init__(self, folder: Any, patch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self._patch = patch
        self.moments = 0
        self._last = 0

    def until_killed(self, last: int) -> None:
        """Work; the process ends at this moment, counted from one."""
        self.moments, self._last = 0, last
        with self._patch.context() as patch:
            commit, replace, remove = self.folder.journals.commit, Path.replace, Path.unlink
            patch.setattr(self.folder.journals, "commit", self._around(commit))
            patch.setattr(Path, "replace", self._around(replace))
            patch.setattr(Path, "unlink", self._around(remove))
            try:
                self._work()
            except Killed:
                return
        pytest.fail("it was never killed")

    def to_the_end(self) -> None:
        """Work until nothing is left."""
        self._work()

    def _around(self, work: Any) -> Any:
        def counted(*arguments: Any, **options: Any) -> Any:
            self.moments += 1
            if self.moments == self._last:
                raise Killed
            return work(*arguments, **options)

        return counted

    def _work(self) -> None:
        lake = Lake(self.folder.data)
        stage = StoringStage(self.folder.journals, self.folder.documents, lake)
        for _ in range(_TIMES_AROUND):
            self.folder.now_ns += 10**9
            stage.step(self.folder.now_ns)
            stage.close()
        for change in (lake.settle, lambda of: lake.compact(of, min_files=2)):
            while (compaction := change(Manifest(self.folder.documents))) is not None:
                self._commit(compaction.documents)
                self._commit(lake.remove(compaction.obsolete))

    def _commit(self, documents: Any) -> None:
        self.folder.journals.commit(
            Commit(group=STORING, journal="inferences", documents=tuple(documents))
        )


@pytest.fixture
def life(folder: Any, monkeypatch: pytest.MonkeyPatch) -> Life:
    return Life(folder, monkeypatch)


def _decode(folder: Any, first: int) -> None:
    for number in range(_N_DEPLOYMENTS):
        folder.ask(
            [[number, "f"], [number + 1, "m"]],
            deployment=f"prod/d{number}",
            request_id=f"r{first}-{number}",
            minutes=first,
        )
    folder.now_ns += 10**9
    folder.decoding.step(folder.now_ns)


def _assert_each_row_once(folder: Any, n: int) -> None:
    queries = Inferences(folder.data, folder.documents)
    items, _ = queries.find(limit=1000)
    queries.close()
    assert len(items) == len({item.id for item in items}) == n
    assert {len(item.rows) for item in items} == {2}
    assert folder.counter("inferences_total") == n
    files = Manifest(folder.documents).files("inferences")
    assert sum(file.rows for file in files) == 2 * n
    lake = folder.data / "lake"
    found = {path.relative_to(lake).as_posix() for path in lake.rglob("*") if path.is_file()}
    assert found == {file.entry for file in files}


def test_each_row_is_stored_once_wherever_the_process_is_killed(folder: Any, life: Life) -> None:
    n = 0
    for number, moment in enumerate(_MOMENTS):
        _decode(folder, number)
        n += _N_DEPLOYMENTS
        life.until_killed(moment)
        life.to_the_end()
        _assert_each_row_once(folder, n)


def test_files_of_commits_that_failed_go_with_the_next_one(
    folder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit, left = folder.journals.commit, [3]

    def full(made: Commit) -> None:
        if made.group == STORING and made.positions and left[0]:
            left[0] -= 1
            raise JournalFull("state.db")
        commit(made)

    monkeypatch.setattr(folder.journals, "commit", full)
    folder.stages = [folder.decoding, folder.storing]
    for number, n_files in enumerate((1, 2, 3, 1)):
        # More has come before it is tried again: the file has another name.
        folder.ask([[number, "f"], [number, "m"]], request_id=f"r{number}", minutes=number)
        with suppress(JournalFull):
            folder.work()
        folder.storing.reset()
        assert len(list((folder.data / "lake").rglob("*.parquet"))) == n_files

    _assert_each_row_once_of(folder, 4)


def test_what_is_stored_in_half_leaves_nothing(
    folder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(2):
        folder.ask([[number, "f"], [number, "m"]], deployment=f"prod/d{number}")
    calls = [0]

    def failing(*arguments: Any, **options: Any) -> int:
        calls[0] += 1
        if calls[0] == 2:
            raise OSError(28, "No space left on device")
        return write_file(*arguments, **options)

    folder.stages = [folder.decoding, folder.storing]
    with monkeypatch.context() as patch:
        patch.setattr(_lake_rows, "write_file", failing)
        with pytest.raises(LakeError):
            folder.work()
    assert list((folder.data / "lake").rglob("*.parquet")) == []

    folder.work()
    _assert_each_row_once_of(folder, 2)


def _assert_each_row_once_of(folder: Any, n: int) -> None:
    folder.storing.close()
    _assert_each_row_once(folder, n)
