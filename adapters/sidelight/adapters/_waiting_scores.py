"""Outlier scores that wait for the search server where there is no lake to keep them."""

import base64
from collections.abc import Iterable, Sequence
from typing import Any, Final, Protocol

import pyarrow as pa

from sidelight.adapters._lake_scores import JoinedScores, Scores
from sidelight.logger._journal import Document, Documents

COLLECTION: Final = "waiting_scores"
_PAGE: Final = 100


class ScoreTable(Protocol):
    """Where detectors leave the scores of rows: the lake, or ``WaitingScores``."""

    def stage_scores(
        self,
        scores: Sequence[Scores | JoinedScores],
        *,
        first: int,
        last: int,
        partition: int = 0,
    ) -> list[Document]:
        """Keep scores; return what is to be committed with the positions of their rows."""
        ...

    def unstage(self, paths: Iterable[str]) -> None:
        """Delete files of scores that no document can name any more."""
        ...


class WaitingScores:
    """Scores as documents, until the rows that they belong to are in the search server."""

    def stage_scores(
        self,
        scores: Sequence[Scores | JoinedScores],
        *,
        first: int,
        last: int,
        partition: int = 0,
    ) -> list[Document]:
        """Return documents with the scores of rows, to be committed with their positions."""
        parts = (part for item in scores for part in item.by_deployment())
        return [
            Document(
                collection=COLLECTION,
                key=f"{partition}-{first}-{number}",
                deployment=deployment,
                order=_order(partition, last),
                value={
                    "partition": partition,
                    "first": first,
                    "last": last,
                    "records": base64.b64encode(_ipc(records)).decode(),
                },
            )
            for number, (deployment, records) in enumerate(parts)
            if len(records)
        ]

    def unstage(self, paths: Iterable[str]) -> None:
        """Nothing stands anywhere but in the documents."""


def waiting_scores(
    documents: Documents, deployment: str, *, partition: int, first: int, last: int
) -> list[pa.RecordBatch]:
    """Return the scores of a deployment's rows between two positions of the journal."""
    found: list[pa.RecordBatch] = []
    after: tuple[str, str] | None = (_order(partition, first), "")
    while after is not None:
        page = documents.find(
            COLLECTION, deployment=deployment, descending=False, after=after, limit=_PAGE
        )
        for _, _, value in page:
            if value["partition"] != partition or value["first"] > last:
                return found
            found.append(_records(value))
        after = (page[-1][0], page[-1][1]) if len(page) == _PAGE else None
    return found


def indexed_scores(documents: Documents, partition: int, last: int) -> list[Document]:
    """Return what deletes scores of rows up to a position, for its commit."""
    found: list[Document] = []
    after: tuple[str, str] | None = (_order(partition, 0), "")
    while after is not None:
        page = documents.find(COLLECTION, descending=False, after=after, limit=_PAGE)
        for _, key, value in page:
            if value["partition"] != partition or value["last"] > last:
                return found
            found.append(Document(collection=COLLECTION, key=key))
        after = (page[-1][0], page[-1][1]) if len(page) == _PAGE else None
    return found


def _order(partition: int, position: int) -> str:
    return f"{partition:06d}-{position:020d}"


def _ipc(records: pa.RecordBatch) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, records.schema) as writer:
        writer.write_batch(records)
    return bytes(sink.getvalue())


def _records(value: dict[str, Any]) -> pa.RecordBatch:
    with pa.ipc.open_stream(pa.py_buffer(base64.b64decode(value["records"]))) as reader:
        return reader.read_next_batch()
