"""Files whose commit failed: neither missing where it happened all the same, nor left over."""

from collections.abc import Callable
from typing import Any

import pytest

from sidelight.adapters import Lake, LakeError
from sidelight.adapters._lake_file import COLLECTION
from sidelight.logger import Commit, Document
from sidelight.logger.errors import JournalError
from sidelight.service._lake_commits import LakeCommits
from sidelight.service._stage import STORING

_PATH = "inferences/x.parquet"


class Committing:
    """Commits over a folder, and files that nobody reads."""

    def __init__(self, folder: Any) -> None:
        self.folder = folder
        self.lake = Lake(folder.data)
        self.commits = LakeCommits(folder.journals, folder.documents, self.lake)

    def write(self, path: str = _PATH) -> Document:
        """Write a file; return its entry."""
        (self.lake.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (self.lake.folder / path).write_bytes(b"rows")
        return Document(collection=COLLECTION, key=path, order="o", value={"rows": 1})

    def commit(self, *documents: Document) -> None:
        self.commits.commit(
            Commit(
                group=STORING, journal="inferences", positions={0: 1}, documents=tuple(documents)
            )
        )

    def fail(self, patch: pytest.MonkeyPatch, *documents: Document, happens: bool = False) -> None:
        """Commit; it is told that it failed, which it has done, or not."""
        commit = self.folder.journals.commit

        def failing(made: Commit) -> None:
            if happens:
                commit(made)
            raise JournalError("an I/O error")

        with patch.context() as patched:
            patched.setattr(self.folder.journals, "commit", failing)
            with pytest.raises(JournalError):
                self.commit(*documents)

    def is_there(self, path: str = _PATH) -> bool:
        return (self.lake.folder / path).exists()


@pytest.fixture
def committing(folder: Any) -> Committing:
    return Committing(folder)


def test_a_file_waits_for_the_next_commit_to_be_deleted(
    committing: Committing, monkeypatch: pytest.MonkeyPatch
) -> None:
    committing.fail(monkeypatch, committing.write())
    assert committing.is_there()
    assert committing.commits.are_unsure

    committing.fail(monkeypatch)
    assert committing.is_there()
    committing.commit()
    assert not committing.is_there()
    assert not committing.commits.are_unsure


@pytest.mark.parametrize("named_by", ["the failed commit", "the next one"])
def test_a_file_stays_when_an_entry_names_it(
    committing: Committing, monkeypatch: pytest.MonkeyPatch, named_by: str
) -> None:
    entry = committing.write()
    committing.fail(monkeypatch, entry, happens=named_by == "the failed commit")

    committing.commit(*([entry] if named_by == "the next one" else []))

    assert committing.is_there()


def test_files_that_a_failed_commit_hides_are_left_alone(
    committing: Committing, monkeypatch: pytest.MonkeyPatch
) -> None:
    committing.write()
    hidden = Document(collection=COLLECTION, key=_PATH, order="o", value={"removed": True})
    gone = Document(collection=COLLECTION, key=_PATH)

    committing.fail(monkeypatch, hidden, gone)
    committing.commit()

    assert committing.is_there()


def test_a_manifest_that_cannot_be_read_makes_no_commit_fail(
    committing: Committing, monkeypatch: pytest.MonkeyPatch
) -> None:
    committing.fail(monkeypatch, committing.write())
    with monkeypatch.context() as patch:
        patch.setattr(committing.folder.documents, "get", _raising(JournalError("busy")))
        committing.commit()
    assert committing.is_there()

    committing.commit()
    assert not committing.is_there()


def test_what_is_staged_in_half_goes_at_once_unless_it_may_be_named(
    committing: Committing, monkeypatch: pytest.MonkeyPatch
) -> None:
    committing.fail(monkeypatch, committing.write())
    committing.write("inferences/y.parquet")
    error = LakeError("no room")
    error.written = (_PATH, "inferences/y.parquet")

    with pytest.raises(LakeError), committing.commits.staging():
        raise error

    assert committing.is_there()
    assert not committing.is_there("inferences/y.parquet")


def test_what_somebody_has_overtaken_goes_at_once(committing: Committing) -> None:
    named = committing.write("inferences/y.parquet")
    committing.folder.documents.put([named])

    committing.commits.give_up([committing.write(), named])

    assert not committing.is_there()
    assert committing.is_there("inferences/y.parquet")


def _raising(error: Exception) -> Callable[..., Any]:
    def call(*_: Any) -> None:
        raise error

    return call
