"""What was made of erased inferences goes: rows of the lake, labels, explanations, replies."""

import logging
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Final, Literal

from sidelight.adapters import Compaction, Lake, LakeError, Manifest
from sidelight.adapters._erasure import (
    documents_beginning,
    erase_rows,
    ids_of_requests,
    scrub,
    unnamed_files,
)
from sidelight.adapters._lake_reading import LakeReader
from sidelight.logger import Commit, Document, Documents, Journals
from sidelight.service._archive_copies import every
from sidelight.service._erased import note_erased
from sidelight.service._lake_commits import LakeCommits
from sidelight.service._lake_moving import OBJECTS, SENDING
from sidelight.service._stage import (
    ERASING,
    LABEL_CHANGES,
    OBSOLETE_REFERENCES,
    REFERENCE_ERASURES,
)

log = logging.getLogger(__name__)

SEARCH_ERASURES: Final = "search_erasures"
_TABLES: Final[tuple[Literal["inferences", "scores"], ...]] = ("inferences", "scores")
_QUARANTINE: Final = "quarantine"
_PAGE: Final = 500


class ErasureDerived:
    """Deletes in slices; each of them can be done again.

    Parameters
    ----------
    journals : Journals
        Where the changes are committed.
    documents : Documents
        The manifest and the results.
    lake : Lake
    data : Path
        The data folder.

    """

    def __init__(self, journals: Journals, documents: Documents, lake: Lake, data: Path) -> None:
        self._commits = LakeCommits(journals, documents, lake)
        self._documents = documents
        self._lake = lake
        self._data = data
        self._manifest = Manifest(documents)
        self._replaced: set[str] = set()

    def of_requests(self, deployment: str, request_ids: Collection[str]) -> Iterator[set[str]]:
        """Yield ids of all inferences of these requests, file by file."""
        reader = LakeReader(self._lake.folder)
        files = self._manifest.files("inferences", deployment=deployment, fresh=True)
        yield from ids_of_requests(reader, files, request_ids)

    def ask_reference(self, erasure: str, deployment: str, values: Collection[int]) -> None:
        """Have rows taken out of the reference, by their ``row_values``; detection does it."""
        # What could not be done is asked again, whoever asked for it.
        found = self._documents.find(REFERENCE_ERASURES, limit=_PAGE)
        asked = {key: value for _, key, value in found if value.pop("failure", "")}
        if values:
            asked[erasure] = {"deployment": deployment, "values": sorted(values)}
        self._commit(
            [
                Document(collection=REFERENCE_ERASURES, key=key, value=value)
                for key, value in asked.items()
            ]
        )

    def is_reference_done(self) -> bool:
        """Whether no reference has rows any more that it was asked to forget.

        Raises
        ------
        LakeError
            When one cannot be read, or not be written anew.

        """
        for _, _, value in self._documents.find(REFERENCE_ERASURES, limit=_PAGE):
            if "failure" in value:
                raise LakeError(value["failure"])
        return not any(
            self._documents.find(collection, limit=1)
            for collection in (REFERENCE_ERASURES, OBSOLETE_REFERENCES)
        )

    def rows(self, deployment: str, ids: Collection[str]) -> Iterator[None]:
        """Delete rows and scores; the files that held them are gone at the end."""
        while (moved := self._settled()) is not None:
            self._replace(moved)
            yield
        for table in _TABLES if ids else ():
            for file in self._manifest.files(table, deployment=deployment, fresh=True):
                change = erase_rows(self._lake, file, ids)
                if change is not None:
                    self._replace(change)
                yield
        # Files that a merge has replaced wait for readers; these read the manifest anew instead.
        self._lake.remove(sorted(self._manifest.removed()))

    def unnamed(self) -> list[str]:
        """Return files that nobody names: a merge may have read what is erased."""
        # A query that had begun before may have fetched one of these once more from the bucket.
        named = self._named()
        self._lake.remove(self._replaced - named)
        self._lake.sweep_copies()
        return unnamed_files(self._lake, named | self._manifest.removed())

    def forget_files(self) -> None:
        """Delete the entries of the files that were replaced, when everybody has seen them."""
        self._commit(self._lake.remove(sorted(self._replaced)))
        self._replaced.clear()

    def is_bucket_done(self) -> bool:
        """Whether the bucket of the lake, if it has one, has no file that nobody names."""
        named = self._named()
        return all(
            path in named
            for collection in (SENDING, OBJECTS)
            for path, _ in every(self._documents, collection)
        )

    def _named(self) -> set[str]:
        return {file.entry for table in _TABLES for file in self._manifest.files(table)}

    def results(
        self, deployment: str, ids: Collection[str], request_ids: Collection[str]
    ) -> Iterator[None]:
        """Delete labels, explanations, replies, and notes about them."""
        wanted = frozenset(request_ids)
        gone: list[Document] = []
        prefixes = [f"{deployment}|{request_id}|" for request_id in sorted(wanted)]
        for start in range(0, len(prefixes), _PAGE):
            for collection in ("labels", "replies"):
                # The id of another request may begin with one of these and a stroke.
                gone += [
                    Document(collection=collection, key=key)
                    for key, value in documents_beginning(
                        self._data, collection, prefixes[start : start + _PAGE]
                    )
                    if value.get("request_id") in wanted
                ]
            self._commit(gone)
            gone = []
            yield
        gone += self._explanations(deployment, frozenset(ids))
        labels = {f"{deployment}|{request_id}" for request_id in wanted}
        gone += [
            Document(collection=LABEL_CHANGES, key=key)
            for key, value in documents_beginning(self._data, LABEL_CHANGES, [""])
            if str(value.get("key", "")).rpartition("|")[0] in labels
        ]
        self._commit(gone)
        yield

    def quarantined(self) -> list[str]:
        """Return where everything stands in the archive that could not be worked on."""
        return [key for key, _ in every(self._documents, _QUARANTINE)]

    def release(self, refs: Iterator[str | None]) -> Iterator[None]:
        """Delete what is kept of these events; it may hold a piece of what was sent."""
        gone: list[Document] = []
        for ref in refs:
            if ref is not None:
                gone.append(Document(collection=_QUARANTINE, key=ref))
            yield
        self._commit(gone)

    def note_erased(self, deployment: str, ids: Collection[str], erasure: str) -> None:
        """Have whoever asks for one of these told that it was erased."""
        self._commit(note_erased(ids, deployment=deployment, erasure=erasure))

    def ask_search(
        self, deployment: str, ids: Collection[str], request_ids: Collection[str]
    ) -> None:
        """Have the search server forget them; the indexing stage does it."""
        wanted = {name: {"id": name} for name in ids}
        # Replies of detectors, whose inference may never have come.
        wanted |= {f"request|{name}": {"request_id": name} for name in request_ids}
        self._commit(
            [
                Document(
                    collection=SEARCH_ERASURES,
                    key=f"{deployment}|{key}",
                    deployment=deployment,
                    value={"deployment": deployment, **what},
                )
                for key, what in sorted(wanted.items())
            ]
        )

    def is_search_done(self) -> bool:
        """Whether the search server has acknowledged all that it was asked."""
        return not self._documents.find(SEARCH_ERASURES, limit=1)

    def scrub(self) -> None:
        """Leave nothing in the database of what was deleted."""
        scrub(self._data)

    def _explanations(self, deployment: str, ids: Collection[str]) -> Iterator[Document]:
        after: tuple[str, str] | None = None
        while True:
            page = self._documents.find(
                "explanations", deployment=deployment, descending=False, after=after, limit=_PAGE
            )
            for _, key, value in page:
                if value.get("inference_id") in ids:
                    yield Document(collection="explanations", key=key)
            if len(page) < _PAGE:
                return
            after = page[-1][0], page[-1][1]

    def _settled(self) -> Compaction | None:
        with self._commits.staging():
            return self._lake.settle(self._manifest)

    def _replace(self, change: Compaction) -> None:
        self._commit(change.documents)
        # The entries say for a while yet that they are gone: who sends files to a bucket sees it.
        self._lake.remove(change.obsolete)
        self._replaced.update(change.obsolete)

    def _commit(self, documents: Sequence[Document]) -> None:
        if documents:
            self._commits.commit(
                Commit(group=ERASING, journal="inferences", documents=documents, erase=True)
            )
