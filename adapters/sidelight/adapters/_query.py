"""Audit queries on the lake: filters, pages, one inference by its id, exports."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from sidelight.adapters._lake_file import LakeFile
from sidelight.adapters._lake_manifest import Manifest, overlapping
from sidelight.adapters._lake_reading import LakeReader
from sidelight.adapters._query_check import check_columns
from sidelight.adapters._query_columns import SCORE
from sidelight.adapters._query_cursor import Cursor
from sidelight.adapters._query_engine import Engine, FileVanished
from sidelight.adapters._query_export import EXPORTS, Export, ExportFormat
from sidelight.adapters._query_export_columns import label_columns, payload_columns
from sidelight.adapters._query_labels import LabelTable, all_labels
from sidelight.adapters._query_page import Pages, Snapshot
from sidelight.adapters._query_question import (
    Question,
    checked_limit,
    checked_order,
    checked_question,
)
from sidelight.adapters._query_search import Search
from sidelight.adapters._query_stream import portion, walk
from sidelight.adapters._where import ColumnName
from sidelight.adapters.errors import LakeError, QueryError
from sidelight.logger._journal import Documents
from sidelight.payloads import Inference

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")

_MEMORY_BYTES = 1_000_000_000


class Inferences:
    """The stored inferences of a data folder, for any number of threads.

    Parameters
    ----------
    data_dir : Path
        The data folder.
    documents : Documents
        Where the manifest of the lake and the labels are published.
    memory_bytes : int, default 1 GB
        Bound of the query engine's memory.

    """

    def __init__(
        self, data_dir: Path, documents: Documents, *, memory_bytes: int = _MEMORY_BYTES
    ) -> None:
        folder = (Path(data_dir) / "lake").absolute()
        self.manifest = Manifest(documents)
        self._documents = documents
        self._engine = Engine(folder, memory_bytes=memory_bytes)
        self._reader = LakeReader(folder)
        self._pages = Pages(reader=self._reader, documents=documents, engine=self._engine)

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
        """Return one page of matching inferences with all their rows, and the next page's cursor.

        Parameters
        ----------
        deployment : str or None
            ``namespace/name``; None means all of them.
        version : str or None
            Of the model that answered.
        from_, to : str or None
            Times of the request, RFC 3339 with zone or a date; ``from_`` is included, ``to`` is
            not.
        where : str or None
            An expression of the ``where`` language; one matching row is enough.
        order : "time" or "-time"
            Oldest or newest first; equal times by id.
        limit : int
            Inferences, 1 to 1000.
        cursor : str or None
            What the page before returned for the same filters and order.

        Raises
        ------
        QueryError
            If a parameter cannot be understood; ``WhereError`` when it is ``where``.
        LakeError
            If a visible file cannot be read.

        """
        question = checked_question(deployment, version, from_, to, where)
        descending = checked_order(order) == "-time"
        checked_limit(limit)
        digest = question.digest(order)
        after = Cursor.decode(cursor, digest) if cursor else None

        def page(fresh: bool) -> tuple[list[Inference], str | None]:  # noqa: FBT001 - one use
            search, snapshot = self._search(question, fresh=fresh)
            items, end = self._page(
                search, snapshot, descending=descending, after=after, limit=limit
            )
            return items, end.encode(digest) if end else None

        return self._robust(page)

    def get(self, inference_id: str) -> Inference | None:
        """Return one inference of any deployment, or None when there is none of that id."""

        def one(fresh: bool) -> Inference | None:  # noqa: FBT001 - one use
            return self._pages.get(inference_id, self._snapshot(None, fresh=fresh))

        return self._robust(one)

    def count(
        self,
        *,
        deployment: str | None = None,
        version: str | None = None,
        from_: str | None = None,
        to: str | None = None,
        where: str | None = None,
    ) -> int:
        """Return how many inferences match; parameters and errors as for ``find``."""
        question = checked_question(deployment, version, from_, to, where)
        return self._robust(lambda fresh: self._search(question, fresh=fresh)[0].count())

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
        """Return every matching inference as a stream, which holds some of them at a time.

        What is stored while it is read is not in it.

        Parameters
        ----------
        format : "jsonl", "csv" or "parquet"
            One inference a line; or one row of an inference a row, with the columns
            ``features.*``, ``outputs.*`` and ``labels.*``.
        limit : int, optional
            Inferences at most; all when absent.

        Raises
        ------
        QueryError
            If a parameter cannot be understood; raised at once, before the first byte.
        LakeError
            While it is read, if a visible file cannot be.

        """
        if format not in EXPORTS:
            raise QueryError("format", expected=", ".join(sorted(EXPORTS)), got=ascii(format))
        question = checked_question(deployment, version, from_, to, where)
        descending = checked_order(order) == "-time"
        if limit is not None and limit < 1:
            raise QueryError("limit", expected="at least 1", got=str(limit))
        search, snapshot = self._robust(lambda fresh: self._search(question, fresh=fresh))

        def page(after: Cursor | None, size: int) -> tuple[list[Inference], Cursor | None]:
            def read(fresh: bool) -> tuple[list[Inference], Cursor | None]:  # noqa: FBT001 - one use
                nonlocal search, snapshot
                if fresh:
                    search, snapshot = self._search(question, fresh=True)
                return self._page(search, snapshot, descending=descending, after=after, limit=size)

            return self._robust(read)

        layouts = dict.fromkeys(file.columns for file in snapshot.files)
        labels = all_labels(self._documents, deployment)
        return EXPORTS[format](
            Export(
                pages=lambda: walk(page, limit=limit),
                columns=lambda: {**payload_columns(layouts), **label_columns(labels)},
            )
        )

    def close(self) -> None:
        """Give the query engine's memory back."""
        self._engine.close()

    def _robust(self, work: Callable[[bool], Answer]) -> Answer:
        """Work with the manifest as known; once more with a fresh one if a file is gone.

        Compaction deletes files a while after it replaced them. Who read the manifest before
        and comes late finds them gone, and finds the rows in the new file.
        """
        try:
            return work(False)  # noqa: FBT003 - the parameter of a local function
        except (FileVanished, FileNotFoundError):
            log.info("a lake file vanished, reading the manifest again")
        try:
            return work(True)  # noqa: FBT003 - the parameter of a local function
        except FileNotFoundError as error:
            raise LakeError(f"a visible file of the lake is missing: {error}") from error

    def _page(
        self,
        search: Search,
        snapshot: Snapshot,
        *,
        descending: bool,
        after: Cursor | None,
        limit: int,
    ) -> tuple[list[Inference], Cursor | None]:
        """Return one page, and its end unless it is the last."""
        hits = search.page(descending=descending, after=after, limit=limit + 1)
        items, n_read = portion(lambda some: self._pages.assemble(some, snapshot), hits[:limit])
        if n_read == len(hits):
            return items, None
        last = hits[n_read - 1]
        return items, Cursor(time_us=last.time_us, id=last.id)

    def _snapshot(self, deployment: str | None, *, fresh: bool) -> Snapshot:
        return Snapshot(
            files=self.manifest.files("inferences", deployment=deployment, fresh=fresh),
            scores=self.manifest.files("scores", deployment=deployment),
        )

    def _search(self, question: Question, *, fresh: bool) -> tuple[Search, Snapshot]:
        snapshot = self._snapshot(question.deployment, fresh=fresh)
        labels = self._labels(question)
        if question.where is not None and question.text is not None:
            check_columns(question.text, question.where, snapshot.files, labels)
        files = overlapping(
            snapshot.files,
            start_us=question.start_us,
            end_us=question.end_us,
            version=question.version,
        )
        search = Search(
            engine=self._engine,
            files=files,
            reader=self._reader,
            revised=self._pages.revised(snapshot),
            version=question.version,
            start_us=question.start_us,
            end_us=question.end_us,
            where=question.where,
            labels=labels,
            scores=self._scores(question, snapshot),
        )
        return search, snapshot

    def _labels(self, question: Question) -> LabelTable | None:
        names = [column.name for column in question.columns if column.section == "labels"]
        if not names:
            return None
        unique = list(dict.fromkeys(names))
        return LabelTable(self._documents, deployment=question.deployment, names=unique)

    def _scores(self, question: Question, snapshot: Snapshot) -> dict[str, list[LakeFile]]:
        if ColumnName(section="", name=SCORE) not in question.columns:
            return {}
        scores: dict[str, list[LakeFile]] = {}
        for file in overlapping(
            snapshot.scores, start_us=question.start_us, end_us=question.end_us
        ):
            scores.setdefault(file.deployment, []).append(file)
        return scores
