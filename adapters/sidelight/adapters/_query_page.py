"""From found ids to whole inferences: rows, labels and scores."""

import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sidelight.adapters._lake_file import LakeFile
from sidelight.adapters._lake_ids import IdIndex
from sidelight.adapters._lake_manifest import overlapping
from sidelight.adapters._lake_reading import LakeReader, pattern
from sidelight.adapters._query_columns import grouped
from sidelight.adapters._query_engine import Engine
from sidelight.adapters._query_labels import has_labels, labels_of
from sidelight.adapters._query_rows import Place, StoredRow, read_rows, tags_of, winners
from sidelight.adapters._query_search import Hit
from sidelight.adapters._query_time import format_time, timestamp_sql
from sidelight.adapters.errors import LakeError
from sidelight.logger._journal import Documents
from sidelight.payloads import ROW_SCHEMA, Inference, InferenceRow

_OWN = ", ".join(f"c{place}" for place in range(len(ROW_SCHEMA)))
_KEYS: pa.Schema = pa.schema([ROW_SCHEMA.field(name) for name in ("id", "revision")])
_REVISION = ROW_SCHEMA.names.index("revision")
_CACHED_FILES = 512


Labels = Mapping[tuple[str, int], Mapping[str, Any]]
ScoresByRow = Mapping[tuple[str, int, int], float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The visible files that one answer is made of."""

    files: Sequence[LakeFile]
    scores: Sequence[LakeFile]


class Pages:
    """Reads rows where they stand.

    Parameters
    ----------
    reader : LakeReader
        Of the lake.

    """

    def __init__(self, *, reader: LakeReader, documents: Documents, engine: Engine) -> None:
        self._reader = reader
        self._documents = documents
        self._engine = engine
        self._lock = threading.Lock()
        self._revised: OrderedDict[str, pa.Table] = OrderedDict()
        self._index = IdIndex(documents)

    def revised(self, snapshot: Snapshot) -> pa.Table:
        """Return ``id, revision`` of every inference that replaced an older one."""
        tables = [self._revised_of(file) for file in snapshot.files if file.max_revision > 0]
        return pa.concat_tables([_KEYS.empty_table(), *tables])

    def get(self, inference_id: str, snapshot: Snapshot) -> Inference | None:
        """Return one inference, or None."""
        files = self._index.candidates([inference_id], snapshot.files)
        found = winners(self._locate([inference_id], files, ""))
        built = self._build(found, snapshot)
        return built.get(inference_id)

    def assemble(self, hits: Sequence[Hit], snapshot: Snapshot) -> list[Inference]:
        """Return the inferences of a page, in its order."""
        if not hits:
            return []
        times = [hit.time_us for hit in hits]
        near = overlapping(snapshot.files, start_us=min(times), end_us=max(times) + 1)
        during = f" AND c4 BETWEEN {timestamp_sql(min(times))} AND {timestamp_sql(max(times))}"
        ids = [hit.id for hit in hits]
        changed = self._changed(ids, snapshot)
        places = self._locate([item for item in ids if item not in changed], near, during)
        # Another revision may have another time, so these are looked for everywhere.
        everywhere = self._index.candidates(changed, snapshot.files) if changed else []
        places += self._locate(sorted(changed), everywhere, "")
        built = self._build(winners(places), snapshot)
        return [built[item] for item in ids if item in built]

    def _changed(self, ids: list[str], snapshot: Snapshot) -> set[str]:
        revised = self.revised(snapshot)
        if not revised.num_rows:
            return set()
        mask = pc.is_in(revised.column("id"), value_set=pa.array(ids, pa.string()))
        return set(revised.column("id").filter(mask).to_pylist())

    def _locate(self, ids: list[str], files: Sequence[LakeFile], during: str) -> list[Place]:
        if not ids:
            return []
        found = [
            _place(self._reader.part(file), file, number)
            for file, number in self._reader.find(ids, files)
        ]
        # A single id is compared by =, because DuckDB asks the bloom filters for that alone.
        wanted = "= ?" if len(ids) == 1 else f"IN ({', '.join('?' * len(ids))})"
        for group in grouped((file for file in files if file.hot is None), ()):
            paths = {str(self._reader.path(file)): file.path for file in group}
            rows = self._engine.query(
                "SELECT c0, c1, c2, filename, file_row_number"  # noqa: S608 - places, no names
                " FROM read_parquet(?, hive_partitioning = false, filename = true,"
                f" file_row_number = true) AS f({_OWN}) WHERE c0 {wanted}{during}",
                [[pattern(self._reader.path(file)) for file in group], *ids],
            )
            found += [
                Place(id=name, row=row, revision=revision, path=paths[path], number=number)
                for name, row, revision, path, number in rows
            ]
        return found

    def _build(self, places: list[Place], snapshot: Snapshot) -> dict[str, Inference]:
        rows: dict[str, list[StoredRow]] = {}
        for stored in self._rows(places, snapshot):
            rows.setdefault(stored.own["id"], []).append(stored)
        everything = [row for group in rows.values() for row in group]
        scores = self._scores(everything, snapshot)
        labels = self._labels(everything)
        return {
            name: _inference(sorted(group, key=lambda row: row.own["row"]), labels, scores)
            for name, group in rows.items()
        }

    def _labels(self, rows: list[StoredRow]) -> dict[tuple[str, int], dict[str, Any]]:
        # Without this a row of a deployment that never has labels costs a lookup too.
        labelled = {
            deployment
            for deployment in {row.deployment for row in rows}
            if has_labels(self._documents, deployment)
        }
        return {
            (row.own["id"], row.own["row"]): labels_of(
                self._documents, row.deployment, row.own["request_id"], row.own["row"]
            )
            for row in rows
            if row.deployment in labelled
        }

    def _rows(self, places: Iterable[Place], snapshot: Snapshot) -> Iterable[StoredRow]:
        files = {file.path: file for file in snapshot.files}
        by_path: dict[str, list[int]] = {}
        for place in places:
            by_path.setdefault(place.path, []).append(place.number)
        for path, numbers in by_path.items():
            try:
                yield from read_rows(self._reader, files[path], sorted(numbers))
            except pa.ArrowInvalid as error:
                raise LakeError(f"{path} cannot be read: {error}") from error

    def _scores(self, rows: list[StoredRow], snapshot: Snapshot) -> ScoresByRow:
        deployments = {row.deployment for row in rows}
        times = [row.own["time"] for row in rows]
        if not times:
            return {}
        files = overlapping(
            (file for file in snapshot.scores if file.deployment in deployments),
            start_us=min(times),
            end_us=max(times) + 1,
        )
        if not files:
            return {}
        ids = sorted({row.own["id"] for row in rows})
        wanted = "= ?" if len(ids) == 1 else f"IN ({', '.join('?' * len(ids))})"
        tables: dict[str, pa.Table] = {}
        source, parameters = self._reader.source(files, tables)
        found = self._engine.query(
            "SELECT s0, s1, s2, CASE WHEN isfinite(s4) THEN s4 END"  # noqa: S608 - places
            f" FROM {source} AS s(s0, s1, s2, s3, s4)"
            f" WHERE s0 {wanted} AND s3 BETWEEN {timestamp_sql(min(times))}"
            f" AND {timestamp_sql(max(times))}",
            [*parameters, *ids],
            tables,
        )
        return {(name, row, revision): score for name, row, revision, score in found}

    def _revised_of(self, file: LakeFile) -> pa.Table:
        with self._lock:
            known = self._revised.get(file.path)
            if known is not None:
                self._revised.move_to_end(file.path)
                return known
        table = _revisions(self._reader, file)
        with self._lock:
            self._revised[file.path] = table
            while len(self._revised) > _CACHED_FILES:
                self._revised.popitem(last=False)
        return table


def _inference(rows: list[StoredRow], labels: Labels, scores: ScoresByRow) -> Inference:
    own = rows[0].own
    return Inference(
        id=own["id"],
        deployment=rows[0].deployment,
        version=own["version"],
        component=own["component"],
        request_id=own["request_id"],
        time=format_time(own["time"]),
        latency_ms=own["latency_ms"],
        status=own["status"],
        protocol=own["protocol"],
        rows=tuple(_row(row, labels, scores) for row in rows),
        orphan=own["orphan"],
        synthetic=own["synthetic"],
        tags=tags_of(own["tags"]),
        request_ref=own["request_ref"],
        response_ref=own["response_ref"],
    )


def _row(row: StoredRow, labels: Labels, scores: ScoresByRow) -> InferenceRow:
    own = row.own
    return InferenceRow(
        features=row.features,
        outputs=row.outputs,
        labels=labels.get((own["id"], own["row"]), {}),
        outlier_score=scores.get((own["id"], own["row"], own["revision"])),
    )


def _place(part: pa.Table, file: LakeFile, number: int) -> Place:
    found = {name: part.column(name)[number].as_py() for name in ("id", "row", "revision")}
    return Place(**found, path=file.path, number=number)


def _revisions(reader: LakeReader, file: LakeFile) -> pa.Table:
    """Return ``id, revision`` of what a file holds of other than first revisions."""
    if file.hot is not None:
        table = reader.table(file, _KEYS.names)
    else:
        with pq.ParquetFile(reader.path(file), memory_map=True) as parquet:
            groups = [
                group
                for group in range(parquet.metadata.num_row_groups)
                if _may_be_revised(parquet.metadata.row_group(group).column(_REVISION).statistics)
            ]
            table = parquet.read_row_groups(groups, columns=_KEYS.names)
    rows = table.filter(pc.greater(table.column("revision"), 0))
    newest = rows.group_by("id").aggregate([("revision", "max")])
    columns = {"id": newest.column("id"), "revision": newest.column("revision_max")}
    return pa.table(columns, schema=_KEYS)


def _may_be_revised(statistics: Any) -> bool:
    return statistics is None or not statistics.has_min_max or statistics.max > 0
