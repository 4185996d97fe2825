"""Takes erased rows out of references, beside detection, whose state references are.

The erasing stage asks with a document and waits until it is gone: it may work in another process,
and nobody but the process that detects may change what detection goes on from.
"""

import logging
from collections.abc import Collection
from pathlib import Path
from typing import Final

from sidelight.logger import Commit, Document, Documents, Journals
from sidelight.logger.errors import JournalError
from sidelight.service._erasure_references import without_rows
from sidelight.service._reference_files import reference_path
from sidelight.service._stage import (
    DETECTION,
    OBSOLETE_REFERENCES,
    REFERENCE_ERASURES,
    Stage,
)

log = logging.getLogger(__name__)

_LOOK_NS: Final = 200_000_000
_PAGE: Final = 100


class ForgettingStage:
    """Works off what the erasing stage asks of references.

    Parameters
    ----------
    journals : Journals
        Where the changes are committed.
    documents : Documents
        What is asked.
    data : Path
        The data folder.
    detection : Stage
        Begins again from what is committed after each change.

    """

    name = "forgetting"

    def __init__(
        self, journals: Journals, documents: Documents, data: Path, detection: Stage
    ) -> None:
        self._journals = journals
        self._documents = documents
        self._data = data
        self._detection = detection
        self._next_ns = 0

    def reset(self) -> None:
        """Nothing is kept that is not committed."""

    def step(self, now_ns: int) -> bool:
        """Do what is asked; look for it now and then."""
        # A clock that was set back makes nobody wait for what it showed before.
        if 0 <= self._next_ns - now_ns < 2 * _LOOK_NS:
            return False
        self._next_ns = now_ns + _LOOK_NS
        # First what a kill left: a former reference must not outlive the answer.
        worked = self._delete_files()
        for _, key, value in self._documents.find(
            REFERENCE_ERASURES, descending=False, limit=_PAGE
        ):
            # What failed is asked again; the others do not wait for it.
            if "failure" in value:
                continue
            try:
                self._forget(key, value["deployment"], frozenset(value["values"]))
            except JournalError:
                raise
            except Exception as error:
                log.exception("reference not changed", extra={"deployment": value["deployment"]})
                failure = f"the reference of {value['deployment']} cannot be changed: {error}"
                told = value | {"failure": failure}
                self._commit([Document(collection=REFERENCE_ERASURES, key=key, value=told)], {})
            worked = self._delete_files() or True
        return worked

    def _forget(self, key: str, deployment: str, values: Collection[int]) -> None:
        change = without_rows(self._journals, self._documents, self._data, deployment, values)
        documents = [Document(collection=REFERENCE_ERASURES, key=key)]
        if change is not None:
            documents += change.documents
            documents += [
                Document(collection=OBSOLETE_REFERENCES, key=digest, value={})
                for digest in change.obsolete
            ]
        self._commit(documents, {} if change is None else change.state)
        if change is not None:
            self._detection.reset()
            log.info("reference without erased rows", extra={"deployment": deployment})

    def _delete_files(self) -> bool:
        """Delete the files of references that are not used any more."""
        found = self._documents.find(OBSOLETE_REFERENCES, limit=_PAGE)
        for _, digest, _ in found:
            reference_path(self._data, digest).unlink(missing_ok=True)
        if found:
            gone = [Document(collection=OBSOLETE_REFERENCES, key=digest) for _, digest, _ in found]
            self._commit(gone, {})
        return bool(found)

    def _commit(self, documents: list[Document], state: dict[bytes, bytes | None]) -> None:
        self._journals.commit(
            Commit(
                group=DETECTION,
                journal="inferences",
                state=state,
                documents=documents,
                erase=True,
            )
        )
