"""Commits that name files of the lake, and the files of those that failed."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

from sidelight.adapters import LakeError, ScoreTable
from sidelight.adapters._lake_file import COLLECTION
from sidelight.logger import Commit, Document, Documents, Journals
from sidelight.logger.errors import JournalError


class LakeCommits:
    """Commits of one stage; the files of one that failed go after the next one that does not.

    What failed may stand in the log of the database all the same, and would be found there after
    a kill: a file that was deleted at once would be named then. The next commit takes its place.
    After a kill the sweep at start finds what nobody names.

    Parameters
    ----------
    journals : Journals
        Where the commits go.
    documents : Documents
        The manifest as it is committed.
    files : ScoreTable
        The lake, or what stands in its place.

    """

    def __init__(self, journals: Journals, documents: Documents, files: ScoreTable) -> None:
        self._journals = journals
        self._documents = documents
        self._files = files
        self._unsure: set[str] = set()

    @property
    def are_unsure(self) -> bool:
        """Whether files wait for the next commit."""
        return bool(self._unsure)

    @contextmanager
    def staging(self) -> Iterator[None]:
        """Delete at once what is written in here if the rest cannot be: nothing names it."""
        try:
            yield
        except LakeError as error:
            # An earlier try may have had the same names.
            self._files.unstage(set(error.written) - self._unsure)
            raise

    def commit(self, commit: Commit) -> None:
        """Commit; ``JournalError`` means that it is to be done again."""
        try:
            self._journals.commit(commit)
        except BaseException:
            self.doubt(commit.documents)
            raise
        self._settle()

    def doubt(self, documents: Iterable[Document]) -> None:
        """Take note of files that are to go after the next commit, unless an entry names them."""
        self._unsure.update(
            item.key
            for item in documents
            if item.collection == COLLECTION and item.value and not item.value.get("removed")
        )

    def give_up(self, documents: Iterable[Document]) -> None:
        """Delete files of work that the commit of somebody else has overtaken."""
        self.doubt(documents)
        self._settle()

    def _settle(self) -> None:
        # What cannot be done now waits for the next commit: this one has happened.
        with suppress(JournalError, OSError):
            self._files.unstage(
                path for path in self._unsure if self._documents.get(COLLECTION, path) is None
            )
            self._unsure.clear()
