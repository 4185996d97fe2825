"""Audit queries on a search server, with the answers that the lake gives."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sidelight.adapters._elastic_client import ElasticClient
from sidelight.adapters._elastic_columns import KnownColumns
from sidelight.adapters._elastic_fields import field_of
from sidelight.adapters._elastic_rows import StoredDocument, inference_of, winners
from sidelight.adapters._elastic_search import ElasticSearch
from sidelight.adapters._query_check import check_columns
from sidelight.adapters._query_columns import SCORE
from sidelight.adapters._query_cursor import Cursor
from sidelight.adapters._query_export import EXPORTS, Export, ExportFormat
from sidelight.adapters._query_export_columns import label_columns, payload_columns
from sidelight.adapters._query_question import (
    Question,
    checked_limit,
    checked_order,
    checked_question,
)
from sidelight.adapters._query_search import Hit
from sidelight.adapters._query_stream import portion, walk
from sidelight.adapters._where_elastic import candidates
from sidelight.adapters._where_rows import holds
from sidelight.adapters.errors import QueryError
from sidelight.payloads import Inference

# Rows of an inference share its time; more are asked for where inferences have many rows.
_ROWS_PER_INFERENCE: Final = 4
_SAMPLES: Final[Mapping[str, Any]] = {"boolean": True, "number": 0.5, "text": "", "other": []}


@dataclass(frozen=True, slots=True)
class _Asked:
    """A question, with what its answer needs to know of the columns."""

    question: Question
    filters: list[Mapping[str, Any]]
    known: Mapping[str, KnownColumns]


class ElasticInferences:
    """The stored inferences of a search server, for any number of threads.

    The server finds candidates, newest or oldest first; what of them is an answer is decided on
    the rows as they were stored, so that answers do not depend on what an index can hold.

    Parameters
    ----------
    client : ElasticClient
        Closed with the store.
    prefix : str, default "sidelight"
        Of every index.

    """

    def __init__(self, client: ElasticClient, *, prefix: str = "sidelight") -> None:
        self._search = ElasticSearch(client, prefix)
        self._prefix = prefix

    def find(  # one keyword for each parameter of the route
        self,
        *,
        deployment: str | None = None,
        version: str | None = None,
        from_: str | None = None,
        to: str | None = None,
        where: str | None = None,
        order: str = "-time",
        limit: int = 100,
        cursor: str | None = None,
    ) -> tuple[list[Inference], str | None]:
        """Return one page; parameters and errors as for the lake, and ``StoreError``."""
        question = checked_question(deployment, version, from_, to, where)
        descending = checked_order(order) == "-time"
        checked_limit(limit)
        digest = question.digest(order)
        after = Cursor.decode(cursor, digest) if cursor else None
        asked = self._asked(question)
        items, end = self._page(asked, descending=descending, after=after, limit=limit)
        return items, end.encode(digest) if end else None

    def refresh(self, deployment: str) -> None:
        """Have the server find what was written; otherwise it does after a while."""
        self._search.refresh(deployment)

    def get(self, inference_id: str) -> Inference | None:
        """Return one inference of any deployment, or None when there is none of that id."""
        found = self._stored(None, [inference_id], self._known(None))
        rows = found.get(inference_id)
        return inference_of(rows) if rows else None

    def count(
        self,
        *,
        deployment: str | None = None,
        version: str | None = None,
        from_: str | None = None,
        to: str | None = None,
        where: str | None = None,
    ) -> int:
        """Return how many inferences match; it reads all of them."""
        asked = self._asked(checked_question(deployment, version, from_, to, where))
        return sum(len(items) for items in self._walk(asked, descending=False))

    def export(  # one keyword for each parameter of the route
        self,
        *,
        format: ExportFormat = "jsonl",  # noqa: A002 - the name of the route's parameter
        deployment: str | None = None,
        version: str | None = None,
        from_: str | None = None,
        to: str | None = None,
        where: str | None = None,
        order: str = "time",
        limit: int | None = None,
    ) -> Iterator[bytes]:
        """Return every matching inference as a stream, page after page."""
        if format not in EXPORTS:
            raise QueryError("format", expected=", ".join(sorted(EXPORTS)), got=ascii(format))
        descending = checked_order(order) == "-time"
        if limit is not None and limit < 1:
            raise QueryError("limit", expected="at least 1", got=str(limit))
        asked = self._asked(checked_question(deployment, version, from_, to, where))
        known = asked.known.values()
        layouts = [layout.columns for each in known for layout in each.layouts.values()]
        labels = [
            {name: _SAMPLES[kind]}
            for each in known
            for name, kinds in each.labels.items()
            for kind in kinds
        ]
        return EXPORTS[format](
            Export(
                pages=lambda: self._walk(asked, descending=descending, limit=limit),
                columns=lambda: {**payload_columns(layouts), **label_columns(labels)},
            )
        )

    def close(self) -> None:
        """Close the connections."""
        self._search.close()

    def _walk(
        self, asked: _Asked, *, descending: bool, limit: int | None = None
    ) -> Iterator[list[Inference]]:
        def page(after: Cursor | None, size: int) -> tuple[list[Inference], Cursor | None]:
            return self._page(asked, descending=descending, after=after, limit=size)

        return walk(page, limit=limit)

    def _page(
        self, asked: _Asked, *, descending: bool, after: Cursor | None, limit: int
    ) -> tuple[list[Inference], Cursor | None]:
        """Return one page, and its end unless it is the last."""
        deployment = asked.question.deployment
        found: list[tuple[Hit, Inference]] = []
        while True:
            # One more than asked tells whether there is another page.
            wanted = limit + 1 - len(found)
            hits, has_more = self._search.hits(
                deployment,
                asked.filters,
                descending=descending,
                after=after,
                size=wanted * (1 if _is_of_whole(asked.question) else _ROWS_PER_INFERENCE),
            )
            looked_at = hits[:wanted]
            items, n_read = portion(lambda some: self._answers(asked, some), looked_at)
            of_id = {hit.id: hit for hit in looked_at}
            found += [(of_id[item.id], item) for item in items]
            if len(found) > limit:
                return [item for _, item in found[:limit]], _end(found[limit - 1][0])
            if n_read < len(looked_at):
                # As much as one answer holds: the next page begins behind it.
                return [item for _, item in found], _end(looked_at[n_read - 1])
            if not has_more and len(hits) <= wanted:
                return [item for _, item in found], None
            after = _end(looked_at[-1])

    def _answers(self, asked: _Asked, hits: Sequence[Hit]) -> list[Inference]:
        """Return which of some candidates are answers, in their order."""
        stored = self._stored(asked.question.deployment, [hit.id for hit in hits], asked.known)
        return [
            inference_of(rows)
            for hit in hits
            # Another revision may have another time: there it is found in its own place.
            if (rows := stored.get(hit.id)) and rows[0].source["time_us"] == hit.time_us
            if any(_is_answer(asked.question, row) for row in rows)
        ]

    def _stored(
        self, deployment: str | None, ids: list[str], known: Mapping[str, KnownColumns]
    ) -> dict[str, list[StoredDocument]]:
        nothing = KnownColumns()
        return winners(
            StoredDocument(source, known.get(source["deployment"], nothing))
            for source in self._search.documents(deployment, ids)
        )

    def _known(self, deployment: str | None) -> dict[str, KnownColumns]:
        by_deployment: dict[str, list[dict[str, Any]]] = {}
        for note in self._search.notes(deployment):
            by_deployment.setdefault(note["deployment"], []).append(note)
        return {name: KnownColumns.of(notes) for name, notes in by_deployment.items()}

    def _asked(self, question: Question) -> _Asked:
        known = self._known(question.deployment)
        filters = _filters(question)
        if question.where is not None and question.text is not None:
            own = {
                name: each for name, each in known.items() if question.deployment in {None, name}
            }
            everybody = KnownColumns.joined(own.values())
            check_columns(
                question.text, question.where, list(everybody.layouts.values()), everybody
            )
            # Who shares an index shares its fields.
            shared = KnownColumns.joined(known.values())
            filters.append(candidates(question.where, lambda column: field_of(column, shared)))
            known = own
        return _Asked(question, filters, known)


def _end(hit: Hit) -> Cursor:
    return Cursor(time_us=hit.time_us, id=hit.id)


def _filters(question: Question) -> list[Mapping[str, Any]]:
    filters: list[Mapping[str, Any]] = []
    times = {
        name: at
        for name, at in (("gte", question.start_us), ("lt", question.end_us))
        if at is not None
    }
    if times:
        filters.append({"range": {"time_us": times}})
    if question.version is not None:
        filters.append(_version(question.version))
    if _is_of_whole(question):
        filters.append({"term": {"row": 0}})
    return filters


def _version(version: str) -> Mapping[str, Any]:
    return {
        "bool": {
            "should": [{"term": {"version": version}}, {"term": {"unfound": "version"}}],
            "minimum_should_match": 1,
        }
    }


def _is_of_whole(question: Question) -> bool:
    """Whether all rows of an inference say the same to a question."""
    return all(not column.section and column.name != SCORE for column in question.columns)


def _is_answer(question: Question, row: StoredDocument) -> bool:
    """Whether one row makes its inference an answer."""
    time_us = row.source["time_us"]
    if question.start_us is not None and time_us < question.start_us:
        return False
    if question.end_us is not None and time_us >= question.end_us:
        return False
    if question.version is not None and row.source["version"] != question.version:
        return False
    return question.where is None or holds(question.where, row.cell) is True
