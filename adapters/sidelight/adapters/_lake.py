"""The lake: Parquet files that are visible through their manifest entries only."""

import hashlib
import logging
import os
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sidelight.adapters._lake_compaction import Compaction, choose
from sidelight.adapters._lake_expiry import Span, meets, remainder, staying_rows
from sidelight.adapters._lake_file import COLLECTION, LakeFile, TableName, file_path
from sidelight.adapters._lake_manifest import Manifest
from sidelight.adapters._lake_scores import Scores
from sidelight.adapters._lake_writing import span, versions, write_file
from sidelight.adapters._query_time import format_time
from sidelight.adapters.errors import LakeError
from sidelight.logger._journal import Document
from sidelight.payloads import Batch

log = logging.getLogger(__name__)

_LAYOUT = b"sidelight.layout"
_DEPLOYMENT = b"sidelight.deployment"
_HOT = "lz4"
_COLD = "zstd"


class Lake:
    """The one writer of the lake of a data folder.

    A file becomes visible when the document that ``stage`` returned for it is committed, together
    with the journal positions whose records it holds. Work that is done again after a crash
    writes the same names again; what was never committed is removed by ``sweep`` at start.

    Parameters
    ----------
    data_dir : Path
        The data folder; files stand below ``lake/`` in it.
    reserve_bytes : int, default 0
        Room on the disk that is left to what cannot wait: a merge that would need it is put off.

    """

    def __init__(self, data_dir: Path, *, reserve_bytes: int = 0) -> None:
        self.folder = Path(data_dir) / "lake"
        self._reserve_bytes = reserve_bytes
        self._lock = threading.Lock()
        self._ordered_us = 0

    def stage(
        self, batches: Sequence[Batch], *, first: int, last: int, partition: int = 0
    ) -> list[Document]:
        """Write decoded rows; return the manifest entries to be committed.

        Parameters
        ----------
        batches : sequence of Batch
            Rows of any deployments. Those of one deployment, layout and column types become one
            file.
        first, last : int
            Positions of the ``inferences`` journal that they came from, both included.

        Raises
        ------
        LakeError
            If a file cannot be written; nothing of it is visible.

        """
        groups: dict[tuple[object, ...], list[pa.RecordBatch]] = {}
        for batch in batches:
            if len(batch):
                groups.setdefault(_kind(batch.records.schema), []).append(batch.records)
        positions = (partition, first, last)
        return [
            self._write("inferences", records[0].schema, records, positions)
            for records in groups.values()
        ]

    def stage_scores(
        self, scores: Sequence[Scores], *, first: int, last: int, partition: int = 0
    ) -> list[Document]:
        """Write scores of rows as ``stage`` does with the rows themselves."""
        groups: dict[str, list[pa.RecordBatch]] = {}
        for item in scores:
            if len(item.records):
                groups.setdefault(item.deployment, []).append(item.records)
        documents = []
        for deployment, records in groups.items():
            schema = records[0].schema.with_metadata({_DEPLOYMENT: deployment.encode()})
            documents.append(self._write("scores", schema, records, (partition, first, last)))
        return documents

    def compact(
        self, manifest: Manifest, *, min_files: int = 32, target_rows: int = 1_000_000
    ) -> Compaction | None:
        """Merge small files of one kind into one; None when there are not enough of them.

        Nothing changes until the documents are committed. Call it again until it returns None.
        """
        for table in ("inferences", "scores"):
            files = manifest.files(table)
            chosen = choose(files, min_files=min_files, target_rows=target_rows)
            if chosen and self._has_room(sum(file.bytes for file in chosen)):
                return self._merge(chosen)
        return None

    def expire(
        self, file: LakeFile, *, before_us: int, kept: Sequence[Span] = ()
    ) -> Compaction | None:
        """Hide a file whose rows are all older, or put the rest in its place; None when none is.

        Nothing changes until the documents are committed. Done again, it gives the same file.

        Parameters
        ----------
        file : LakeFile
            A visible one.
        before_us : int
            Rows of an earlier time go, microseconds since 1970 UTC.
        kept : sequence of (from, to), default empty
            Rows of these times stay, however old they are.

        Raises
        ------
        LakeError
            If the file cannot be read, or the rest not be written.

        """
        if file.min_us >= before_us:
            return None
        kept = [span for span in kept if meets(file.min_us, file.max_us, span)]
        if file.max_us < before_us and not kept:
            return self._replaced(file, None)
        path = self._path(file.path)
        try:
            rest = remainder(path, before_us=before_us, kept=kept)
            if rest.rows == file.rows:
                return None
            if not rest.rows:
                return self._replaced(file, None)
            positions = (file.partition, file.first, file.last)
            digest = _digest("rest", file.path, before_us, *kept)
            place = file_path(file.table, file.deployment, rest.min_us, positions, digest)
            size = write_file(
                self._path(place),
                pq.read_schema(path),
                staying_rows(path, rest.stays),
                n_rows=rest.rows,
                compression=_COLD,
            )
        except (OSError, pa.ArrowInvalid) as error:
            raise LakeError(f"cannot take old rows out of {file.path}: {error}") from error
        smaller = replace(
            file,
            path=place,
            rows=rest.rows,
            bytes=size,
            min_us=rest.min_us,
            max_us=rest.max_us,
        )
        return self._replaced(file, smaller)

    def _replaced(self, file: LakeFile, smaller: LakeFile | None) -> Compaction:
        documents = [file.removal(self._order())]
        if smaller is not None:
            documents.append(smaller.document(self._order()))
        return Compaction(
            documents=tuple(documents),
            obsolete=(file.path,),
            rows=0 if smaller is None else smaller.rows,
        )

    def remove(self, paths: Iterable[str]) -> list[Document]:
        """Delete the files that a compaction replaced; return documents that forget them.

        Call it a while after the compaction's commit, when no reader holds them any more.
        """
        documents = []
        for path in paths:
            self._path(path).unlink(missing_ok=True)
            documents.append(Document(collection=COLLECTION, key=path))
        return documents

    def sweep(self, manifest: Manifest) -> list[Document]:
        """Delete what no visible entry names; call it once at start, before anything is staged.

        Returns
        -------
        list of Document
            To be committed: they forget entries of files that are gone.

        """
        removed = manifest.removed()
        named = {file.path for table in _TABLES for file in manifest.files(table)}
        found = set(self._present())
        for path in sorted(found - named):
            self._path(path).unlink(missing_ok=True)
        if found - named - removed:
            log.info("unfinished lake files removed", extra={"n": len(found - named - removed)})
        for path in sorted(named - found):
            log.error("lake file is missing", extra={"path": path})
        return [Document(collection=COLLECTION, key=path) for path in sorted(removed)]

    def _has_room(self, size: int) -> bool:
        disk = os.statvfs(self.folder)
        return disk.f_bavail * disk.f_frsize - size >= self._reserve_bytes

    def _path(self, path: str) -> Path:
        return self.folder / path

    def _present(self) -> Iterator[str]:
        for table in _TABLES:
            for path in (self.folder / table).rglob("*"):
                if path.is_file():
                    yield path.relative_to(self.folder).as_posix()

    def _write(
        self,
        table: TableName,
        schema: pa.Schema,
        records: list[pa.RecordBatch],
        positions: tuple[int, int, int],
    ) -> Document:
        # Only the schema of the group carries the metadata; the batches of it agree on the rest.
        schema = _distinct(schema)
        arrays = [pa.RecordBatch.from_arrays(item.columns, schema=schema) for item in records]
        rows = pa.Table.from_batches(arrays, schema)
        deployment = schema.metadata[_DEPLOYMENT].decode()
        min_us, max_us = span(rows)
        path = file_path(table, deployment, min_us, positions, _digest(*_kind(schema)))
        try:
            size = write_file(
                self._path(path), schema, [rows], n_rows=rows.num_rows, compression=_HOT
            )
        except OSError as error:
            raise LakeError(
                error.errno, f"cannot write {path}: {error.strerror or error}"
            ) from error
        partition, first, last = positions
        file = LakeFile(
            path=path,
            deployment=deployment,
            table=table,
            rows=rows.num_rows,
            bytes=size,
            min_us=min_us,
            max_us=max_us,
            columns=tuple((field.name, str(field.type)) for field in schema),
            partition=partition,
            first=first,
            last=last,
            max_revision=pc.max(rows.column("revision")).as_py(),
            versions=versions(rows),
            layout=_digest(schema.metadata.get(_LAYOUT, b"")),
        )
        return file.document(self._order())

    def _merge(self, files: list[LakeFile]) -> Compaction:
        newest = files[0]
        min_us = min(file.min_us for file in files)
        first, last = min(file.first for file in files), max(file.last for file in files)
        digest = _digest(*(file.path for file in files))
        positions = (newest.partition, first, last)
        path = file_path(newest.table, newest.deployment, min_us, positions, digest)
        try:
            schema = pq.read_schema(self._path(newest.path))
            size = write_file(
                self._path(path),
                schema,
                self._tables(files),
                n_rows=sum(file.rows for file in files),
                compression=_COLD,
            )
        except (OSError, pa.ArrowInvalid) as error:
            raise LakeError(f"cannot merge into {path}: {error}") from error
        merged = LakeFile(
            path=path,
            deployment=newest.deployment,
            table=newest.table,
            rows=sum(file.rows for file in files),
            bytes=size,
            min_us=min_us,
            max_us=max(file.max_us for file in files),
            columns=newest.columns,
            partition=newest.partition,
            first=first,
            last=last,
            max_revision=max(file.max_revision for file in files),
            versions=_union(files),
            layout=newest.layout,
        )
        documents = [file.removal(self._order()) for file in files]
        documents.append(merged.document(self._order()))
        return Compaction(
            documents=tuple(documents),
            obsolete=tuple(file.path for file in files),
            rows=merged.rows,
        )

    def _tables(self, files: list[LakeFile]) -> Iterator[pa.Table]:
        for file in files:
            yield pq.ParquetFile(self._path(file.path)).read()

    def _order(self) -> str:
        with self._lock:
            self._ordered_us = max(self._ordered_us + 1, time.time_ns() // 1_000)
            return format_time(self._ordered_us)


_TABLES: tuple[TableName, ...] = ("inferences", "scores")


def _kind(schema: pa.Schema) -> tuple[object, ...]:
    metadata = schema.metadata or {}
    columns = tuple((field.name, str(field.type)) for field in schema)
    return metadata.get(_DEPLOYMENT), metadata.get(_LAYOUT), columns


def _digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def _distinct(schema: pa.Schema) -> pa.Schema:
    """Return a schema with each name once: later columns of one name are numbered."""
    if len(set(schema.names)) == len(schema.names):
        return schema
    taken = set(schema.names)
    seen: set[str] = set()
    fields = []
    for field in schema:
        name, number = field.name, 2
        while name in seen or (name != field.name and name in taken):
            name, number = f"{field.name} ({number})", number + 1
        seen.add(name)
        fields.append(field.with_name(name))
    return pa.schema(fields, metadata=schema.metadata)


def _union(files: list[LakeFile]) -> tuple[str | None, ...] | None:
    if any(file.versions is None for file in files):
        return None
    found = {version for file in files for version in file.versions or ()}
    return tuple(sorted(found, key=lambda version: (version is None, version or "")))
