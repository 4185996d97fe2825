"""First half of a query: which inferences match, newest or oldest first."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from sidelight.adapters._lake_file import LakeFile
from sidelight.adapters._lake_reading import LakeReader
from sidelight.adapters._query_columns import SCORE, grouped, places, source_of
from sidelight.adapters._query_cursor import Cursor
from sidelight.adapters._query_engine import Engine
from sidelight.adapters._query_labels import LabelTable
from sidelight.adapters._query_time import timestamp_sql
from sidelight.adapters._where import ColumnName, Expression, predicates
from sidelight.adapters._where_sql import Source, to_sql

# Files are read newest (or oldest) first until the page cannot change any more.
_FIRST_FILES = 8
_MORE_FILES = 4
# Rows of an inference share its time, so a page is the first rows in order; more are asked for
# when inferences have many rows.
_ROWS_PER_INFERENCE = 4
# Rows for each wanted inference in the spans of time that are tried before all of it.
_PROBES = (8, 128)

_ID, _ROW, _REVISION, _REQUEST_ID, _TIME, _VERSION = "c0", "c1", "c2", "c3", "c4", "c5"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """An inference that matches, and the time of its request in microseconds since 1970 UTC."""

    time_us: int
    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """One question to the lake, with all that its SQL needs.

    Parameters
    ----------
    files : sequence of LakeFile
        Visible files that may hold rows of the answer.
    scores : mapping of deployment to files
        Files with outlier scores; only read when the expression asks for them.
    revised : pyarrow.Table
        Columns ``id, revision`` of every inference that was stored more than once.
    reader : LakeReader
        Of the lake.

    """

    engine: Engine
    files: Sequence[LakeFile]
    reader: LakeReader
    revised: pa.Table
    version: str | None = None
    start_us: int | None = None
    end_us: int | None = None
    where: Expression | None = None
    labels: LabelTable | None = None
    scores: Mapping[str, Sequence[LakeFile]] = field(default_factory=dict)

    def page(self, *, descending: bool, after: Cursor | None, limit: int) -> list[Hit]:
        """Return the first matching inferences behind ``after``, at most ``limit``."""
        best: dict[str, Hit] = {}
        hits: list[Hit] = []
        for files, horizon_us in self._chunks(descending=descending):
            for hit in self._top(files, descending=descending, after=after, limit=limit):
                best.setdefault(hit.id, hit)
            hits = sorted(best.values(), key=lambda hit: (hit.time_us, hit.id), reverse=descending)[
                :limit
            ]
            best = {hit.id: hit for hit in hits}
            if len(hits) == limit and horizon_us is not None:
                last = hits[-1].time_us
                if last > horizon_us if descending else last < horizon_us:
                    break
        return hits

    def count(self) -> int:
        """Return the number of matching inferences."""
        if not self.files:
            return 0
        tables = self._tables()
        sql, parameters = self._matches(self.files, tables, f"SELECT DISTINCT {_ID} AS id")
        rows = self.engine.query(
            f"SELECT count(DISTINCT id) FROM ({sql})",  # noqa: S608 - no text of the user
            parameters,
            tables,
        )
        return int(rows[0][0])

    def _chunks(self, *, descending: bool) -> Iterator[tuple[list[LakeFile], int | None]]:
        """Yield files in order of time, with the time from which on later ones may have rows."""
        ordered = sorted(
            self.files,
            key=lambda file: file.max_us if descending else file.min_us,
            reverse=descending,
        )
        start, size = 0, _FIRST_FILES
        while start < len(ordered):
            rest = ordered[start + size :]
            horizon = (rest[0].max_us if descending else rest[0].min_us) if rest else None
            yield ordered[start : start + size], horizon
            start, size = start + size, size * _MORE_FILES

    def _top(
        self, files: Sequence[LakeFile], *, descending: bool, after: Cursor | None, limit: int
    ) -> list[Hit]:
        for search in self._narrowed(files, descending=descending, after=after, limit=limit):
            hits = search._first(files, descending=descending, after=after, limit=limit)  # noqa: SLF001
            if len(hits) == limit:
                return hits
        return self._first(files, descending=descending, after=after, limit=limit)

    def _narrowed(
        self, files: Sequence[LakeFile], *, descending: bool, after: Cursor | None, limit: int
    ) -> Iterator["Search"]:
        """Yield the search with ends of its time that probably hold a page.

        A large file is then read where the page is; nothing says so without asking first.
        """
        first, last = min(file.min_us for file in files), max(file.max_us for file in files)
        us_per_row = (last - first) / sum(file.rows for file in files)
        first = max(first, first if self.start_us is None else self.start_us)
        last = min(last, last if self.end_us is None else self.end_us - 1)
        if after is not None and descending:
            last = min(last, after.time_us)
        elif after is not None:
            first = max(first, after.time_us)
        for n_rows in _PROBES:
            width = int(us_per_row * n_rows * limit)
            if 2 * width < last - first:
                if descending:
                    yield replace(self, start_us=last - width)
                else:
                    yield replace(self, end_us=first + width + 1)

    def _first(
        self, files: Sequence[LakeFile], *, descending: bool, after: Cursor | None, limit: int
    ) -> list[Hit]:
        direction = "DESC" if descending else "ASC"
        behind, values = _behind(after, descending=descending)
        tables = self._tables()
        inner, parameters = self._matches(
            files, tables, f"SELECT {_TIME} AS t, {_ID} AS id", behind, values
        )
        n_rows = limit * _ROWS_PER_INFERENCE
        while True:
            rows = self.engine.query(
                f"SELECT epoch_us(t), id FROM ({inner})"  # noqa: S608 - no text of the user
                f" ORDER BY t {direction}, id {direction} LIMIT {n_rows}",
                parameters,
                tables,
            )
            hits: dict[str, Hit] = {}
            for time_us, found in rows:
                hits.setdefault(found, Hit(time_us=time_us, id=found))
            if len(hits) >= limit or len(rows) < n_rows:
                return list(hits.values())[:limit]
            n_rows *= 16

    def _matches(
        self,
        files: Sequence[LakeFile],
        tables: dict[str, pa.Table],
        select: str,
        behind: str = "",
        behind_values: Sequence[Any] = (),
    ) -> tuple[str, list[Any]]:
        """Return one statement over all groups of files, and its parameters.

        ``tables`` gets those that the statement names.
        """
        parts: list[str] = []
        parameters: list[Any] = []
        for group in grouped(files, self._columns()):
            part, values = self._group(group, tables, select)
            parts.append(part + behind)
            parameters += [*values, *behind_values]
        return " UNION ALL ".join(parts), parameters

    def _group(
        self, group: list[LakeFile], tables: dict[str, pa.Table], select: str
    ) -> tuple[str, list[Any]]:
        file = group[0]
        source, parameters = self.reader.source(group, tables)
        joins, values = self._joins(file, tables)
        parameters += values
        conditions, values = self._conditions(file)
        parameters += values
        sql = f"{select} FROM {source} AS f({places(file)}){joins} WHERE {' AND '.join(conditions)}"
        return sql, parameters

    def _joins(self, file: LakeFile, tables: dict[str, pa.Table]) -> tuple[str, list[Any]]:
        joins = ""
        parameters: list[Any] = []
        if self.labels is not None:
            joins += (
                f" LEFT JOIN labels ON labels.request_id = {_REQUEST_ID}"
                f" AND labels.row = {_ROW} AND labels.deployment = ?"
            )
            parameters.append(file.deployment)
        if self._scores_of(file):
            # A score has the time of its row: what lies outside need not be joined.
            inside = " AND ".join(_during("s3", self.start_us, self.end_us)) or "TRUE"
            source, values = self.reader.source(self._scores_of(file), tables)
            joins += (
                " LEFT JOIN (SELECT s0, s1, s2,"  # noqa: S608 - no text of the user
                " CASE WHEN isfinite(s4) THEN s4 END AS score"
                f" FROM {source} AS s(s0, s1, s2, s3, s4)"
                f" WHERE {inside}) AS scores"
                f" ON scores.s0 = {_ID} AND scores.s1 = {_ROW} AND scores.s2 = {_REVISION}"
            )
            parameters += values
        return joins, parameters

    def _conditions(self, file: LakeFile) -> tuple[list[str], list[Any]]:
        conditions = ["TRUE", *_during(_TIME, self.start_us, self.end_us)]
        parameters: list[Any] = []
        if self.version is not None:
            conditions.append(f"{_VERSION} = ?")
            parameters.append(self.version)
        if self.where is not None:
            sql, values = to_sql(self.where, lambda column: self._source(file, column))
            conditions.append(sql)
            parameters += values
        if self.revised.num_rows:
            conditions.append(
                "NOT EXISTS (SELECT 1 FROM revised"  # noqa: S608 - no text of the user
                f" WHERE revised.id = {_ID} AND revised.revision > {_REVISION})"
            )
        return conditions, parameters

    def _source(self, file: LakeFile, column: ColumnName) -> Source:
        if column.section == "labels":
            return self.labels.source(column.name) if self.labels else Source()
        if not column.section and column.name == SCORE:
            return Source(sql={"number": "scores.score"} if self._scores_of(file) else {})
        return source_of(file, column)

    def _scores_of(self, file: LakeFile) -> Sequence[LakeFile]:
        return self.scores.get(file.deployment, ())

    def _columns(self) -> list[ColumnName]:
        return [item.column for item in predicates(self.where)] if self.where else []

    def _tables(self) -> dict[str, pa.Table]:
        tables = {"revised": self.revised}
        if self.labels is not None:
            tables["labels"] = self.labels.table
        return tables


def _during(column: str, start_us: int | None, end_us: int | None) -> list[str]:
    bounds = [] if start_us is None else [f"{column} >= {timestamp_sql(start_us)}"]
    return bounds if end_us is None else [*bounds, f"{column} < {timestamp_sql(end_us)}"]


def _behind(after: Cursor | None, *, descending: bool) -> tuple[str, list[Any]]:
    if after is None:
        return "", []
    sign = "<" if descending else ">"
    moment = timestamp_sql(after.time_us)
    condition = f" AND {_TIME} {sign}= {moment} AND ({_TIME} {sign} {moment} OR {_ID} {sign} ?)"
    return condition, [after.id]
