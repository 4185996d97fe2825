"""The lake: files that are visible through their manifest entries only."""

import logging
import os
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from sidelight.adapters._lake_compaction import Compaction, choose, choose_hot
from sidelight.adapters._lake_expiry import Span, meets, remainder, staying_rows
from sidelight.adapters._lake_file import (
    COLLECTION,
    LakeFile,
    TableName,
    file_path,
    quote_folder,
)
from sidelight.adapters._lake_groups import Group, joined
from sidelight.adapters._lake_hot import HotRows, Owner, write_hot
from sidelight.adapters._lake_ids import FILTERS
from sidelight.adapters._lake_kinds import Kinds, digest
from sidelight.adapters._lake_manifest import Manifest
from sidelight.adapters._lake_merging import Merging
from sidelight.adapters._lake_place import place_of
from sidelight.adapters._lake_remote import Copies, is_copy, is_under_way
from sidelight.adapters._lake_rows import COLD, DEPLOYMENT, HOT, LAYOUT, Rows, write_rows
from sidelight.adapters._lake_scores import JoinedScores, Scores
from sidelight.adapters._lake_writing import SWIFT, write_file
from sidelight.adapters._query_time import format_time
from sidelight.adapters.errors import LakeError
from sidelight.logger._journal import Document
from sidelight.payloads import Batch

log = logging.getLogger(__name__)

# Where more deployments and layouts than that have rows, they share a file.
_OWN_FILES: Final = 8
# Who has so many rows at once gets a file of its own whatever the others have.
_OWN_FILE_ROWS: Final = 4096
_WORTH_ROWS: Final = 1000
# So many rows of a moment are merged with those of the next ones soon, and compressed then.
_TORRENT_ROWS: Final = 32_768
_TABLES: Final[tuple[TableName, ...]] = ("inferences", "scores")
# In the name of files as detection writes them, so that nobody else takes them for left over.
_STAGED: Final = "staged-"
_HOT_SCORES: Final = "hot/scores/"


class Lake:
    """A writer of the lake of a data folder: of everything, or of scores beside the other one.

    A file becomes visible when the document that ``stage`` returned for it is committed, together
    with the journal positions whose records it holds. Work that is done again after a crash
    writes the same names again; what was never committed is removed by ``sweep`` at start, and by
    ``sweep_scores`` what ``stage_scores`` wrote: each process removes what it wrote itself.

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
        self._kinds = Kinds()
        self._copies = Copies(self.folder)
        self._merging = Merging(self.folder, local=self.local, order=self._order)

    def stage(
        self, batches: Sequence[Batch], *, first: int, last: int, partition: int = 0
    ) -> list[Document]:
        """Write decoded rows; return the manifest entries to be committed.

        Parameters
        ----------
        batches : sequence of Batch
            Rows of any deployments. Those of one deployment, layout, column types and day become
            one file; where there are many such groups, the short ones share a hot file.
        first, last : int
            Positions of the ``inferences`` journal that they came from, both included.

        Raises
        ------
        LakeError
            If a file cannot be written; nothing is visible of those that it says are ``written``.

        """
        groups: dict[tuple[str, bytes, str], Group] = {}
        for batch in batches:
            records = batch.records
            if records.num_rows:
                schema = records.schema
                kind = self._kinds.of(schema)
                metadata = schema.metadata
                owner = metadata[DEPLOYMENT].decode(), metadata.get(LAYOUT, b"")
                key = (*owner, kind.digest)
                group = groups.get(key)
                if group is None:
                    group = groups[key] = Group(*owner, kind)
                group.add(records)
        return self._staged("inferences", list(groups.values()), (partition, first, last))

    def stage_scores(
        self,
        scores: Sequence[Scores | JoinedScores],
        *,
        first: int,
        last: int,
        partition: int = 0,
    ) -> list[Document]:
        """Write scores of rows as ``stage`` does with the rows themselves."""
        positions = (partition, first, last)
        if len(scores) == 1 and isinstance(scores[0], JoinedScores) and _is_shared(scores[0]):
            return self._written("scores", [self._as_one(scores[0])], positions)
        groups: dict[str, Group] = {}
        for item in scores:
            for deployment, records in item.by_deployment():
                if not records.num_rows:
                    continue
                group = groups.get(deployment)
                if group is None:
                    kind = self._kinds.of(records.schema)
                    group = groups[deployment] = Group(deployment, b"", kind)
                group.add(records)
        return self._staged("scores", list(groups.values()), positions)

    def compact(
        self, manifest: Manifest, *, min_files: int = 32, target_rows: int = 1_000_000
    ) -> Compaction | None:
        """Merge small files of one kind and day into one; None when there are not enough of them.

        Nothing changes until the documents are committed. Call it again until it returns None.
        """
        for table in _TABLES:
            files = manifest.files(table)
            chosen = choose(files, min_files=min_files, target_rows=target_rows)
            if chosen and self._has_room(sum(file.bytes for file in chosen)):
                return self._merging.merged(chosen)
        return None

    def settle(self, manifest: Manifest, *, min_files: int = 1) -> Compaction | None:
        """Move rows of hot files to files of their deployment and day; None when there are few.

        Nothing changes until the documents are committed. Call it again until it returns None.

        Parameters
        ----------
        min_files : int, default 1
            Hot files of a table that are left as they are when there are fewer.

        """
        for table in _TABLES:
            chosen = choose_hot(manifest.files(table), min_files=min_files)
            if chosen and self._has_room(sum(file.bytes for file in chosen)):
                return self._merging.settled(chosen)
        return None

    def expire(
        self, file: LakeFile, *, before_us: int, kept: Sequence[Span] = ()
    ) -> Compaction | None:
        """Hide a file whose rows are all older, or put the rest in its place; None when none is.

        Nothing changes until the documents are committed. Done again, it gives the same file.
        A part of a hot file waits until its rows have a file of their own.

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
        if file.min_us >= before_us or file.hot is not None:
            return None
        kept = [span for span in kept if meets(file.min_us, file.max_us, span)]
        if file.max_us < before_us and not kept:
            return self._replaced(file, None)
        path = self.local(file.path)
        try:
            rest = remainder(path, before_us=before_us, kept=kept)
            if rest.rows == file.rows:
                return None
            if not rest.rows:
                return self._replaced(file, None)
            positions = (file.partition, file.first, file.last)
            name = digest("rest", file.path, before_us, *kept)
            place = file_path(file.table, file.deployment, rest.min_us, positions, name)
            size = write_file(
                self._path(place),
                pq.read_schema(path),
                staying_rows(path, rest.stays),
                n_rows=rest.rows,
                compression=COLD,
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
            ids="",
        )
        return self._replaced(file, smaller)

    def _replaced(self, file: LakeFile, smaller: LakeFile | None) -> Compaction:
        return self._merging.replaced([file.entry], [file], [] if smaller is None else [smaller])

    def remove(self, paths: Iterable[str]) -> list[Document]:
        """Delete the files that a compaction replaced; return documents that forget them.

        Call it a while after the compaction's commit, when no reader holds them any more.
        """
        documents = []
        for path in paths:
            self._path(path).unlink(missing_ok=True)
            documents += _forgotten(path)
        return documents

    def unstage(self, paths: Iterable[str]) -> None:
        """Delete files that were written and that no entry can name any more."""
        for path in paths:
            self._path(path).unlink(missing_ok=True)

    def has(self, compaction: Compaction) -> bool:
        """Whether all files that a compaction wrote are there."""
        return all(self._path(path).exists() for path in compaction.written)

    def sweep(self, manifest: Manifest) -> list[Document]:
        """Delete what no visible entry names; call it once at start, before anything is staged.

        Files of scores that nobody has hidden are left alone: ``sweep_scores`` is for them.

        Returns
        -------
        list of Document
            To be committed: they forget entries of files that are gone.

        """
        removed = manifest.removed()
        named = {file.entry for table in _TABLES for file in manifest.files(table)}
        found = set(self._present())
        for path in sorted((found & removed) - named):
            self._path(path).unlink(missing_ok=True)
        self._delete_unfinished(path for path in found - named - removed if not _is_staged(path))
        if place_of(self.folder) is None:
            for path in sorted(named - found):
                log.error("lake file is missing", extra={"path": path})
        return [document for path in sorted(removed) for document in _forgotten(path)]

    def sweep_scores(self, manifest: Manifest) -> None:
        """Delete files that ``stage_scores`` wrote and nobody committed; call it once at start.

        Another process may write, merge and hide all other files meanwhile.
        """
        # In this order: a file that is hidden between the two is known from the first.
        known = {file.entry for file in manifest.files("scores", fresh=True)}
        known |= manifest.removed()
        self._delete_unfinished(
            path
            for path in self._present("scores", "hot")
            if _is_staged(path) and path not in known
        )

    def _delete_unfinished(self, paths: Iterable[str]) -> None:
        unfinished = sorted(path for path in paths if not is_under_way(self._path(path)))
        for path in unfinished:
            self._path(path).unlink(missing_ok=True)
        if unfinished:
            log.info("unfinished lake files removed", extra={"n": len(unfinished)})

    def sweep_copies(self) -> None:
        """Delete what a process that is gone had begun to fetch from the bucket."""
        self._delete_unfinished(path for path in self._present() if is_copy(self._path(path)))

    def local(self, path: str) -> Path:
        """Return where a visible file can be opened; it is fetched when it is in a bucket alone.

        Raises
        ------
        LakeUnreachable
            When the bucket does not answer.

        """
        return self._copies.path(path)

    @property
    def is_remote(self) -> bool:
        """Whether files may be in a bucket alone."""
        return self._copies.are_remote

    def ask(self) -> None:
        """Find out whether the bucket answers, if there is one; ``LakeUnreachable`` if not."""
        self._copies.ask()

    def _has_room(self, size: int) -> bool:
        disk = os.statvfs(self.folder)
        return disk.f_bavail * disk.f_frsize - size >= self._reserve_bytes

    def _path(self, path: str) -> Path:
        return self.folder / path

    def _present(self, *folders: str) -> Iterator[str]:
        for folder in folders or (*_TABLES, "hot"):
            for path in (self.folder / folder).rglob("*"):
                if path.is_file():
                    yield path.relative_to(self.folder).as_posix()

    def _staged(
        self, table: TableName, groups: list[Group], positions: tuple[int, int, int]
    ) -> list[Document]:
        short = [group for group in groups if group.n_rows < _OWN_FILE_ROWS]
        # Imported rows may be of a year, and each day would be a file.
        if sum(group.n_days() for group in short) <= _OWN_FILES:
            short = []
        shared = {id(group) for group in short}
        documents = self._written(table, joined(short), positions) if short else []
        try:
            for group in groups:
                if id(group) not in shared:
                    # What it yields before it fails is kept.
                    documents.extend(self._own_files(table, group, positions))
        except LakeError as error:
            error.written = tuple(item.key for item in documents if item.collection == COLLECTION)
            raise
        return documents

    def _written(
        self, table: TableName, groups: list[HotRows], positions: tuple[int, int, int]
    ) -> list[Document]:
        try:
            return write_hot(self.folder, table, groups, positions=positions, order=self._order())
        except OSError as error:
            raise LakeError(
                error.errno, f"cannot write hot/{table}: {error.strerror or error}"
            ) from error

    def _as_one(self, scores: JoinedScores) -> HotRows:
        return HotRows(
            kind=self._kinds.of(scores.records.schema),
            records=scores.records,
            owners=[Owner(deployment, b"", n_rows) for deployment, n_rows in scores.owners],
        )

    def _own_files(
        self, table: TableName, group: Group, positions: tuple[int, int, int]
    ) -> Iterator[Document]:
        rows = Rows(
            table=table,
            deployment=group.deployment,
            layout=group.layout,
            columns=group.kind.columns,
            rows=pa.Table.from_batches([group.kind.renamed(item) for item in group.records]),
        )
        name = digest(group.layout, group.kind.digest)
        if table == "scores":
            name = _STAGED + name
        # It makes a file a third smaller, and a short one not worth its time.
        compression = COLD if group.n_rows >= _WORTH_ROWS else HOT
        if group.n_rows >= _TORRENT_ROWS:
            compression = SWIFT
        try:
            for file, beside in write_rows(
                self.folder, rows, positions=positions, name=name, compression=compression
            ):
                yield file.document(self._order())
                yield from beside
        except OSError as error:
            place = f"{table}/{quote_folder(group.deployment)}"
            raise LakeError(
                error.errno, f"cannot write {place}: {error.strerror or error}"
            ) from error

    def _order(self) -> str:
        with self._lock:
            self._ordered_us = max(self._ordered_us + 1, time.time_ns() // 1_000)
            return format_time(self._ordered_us)


def _is_shared(scores: JoinedScores) -> bool:
    """Whether all of them go into a hot file: many deployments, and none with many rows."""
    most = max((n_rows for _, n_rows in scores.owners), default=0)
    return len({name for name, _ in scores.owners}) > _OWN_FILES and most < _OWN_FILE_ROWS


def _is_staged(path: str) -> bool:
    """Whether ``stage_scores`` wrote it: merged scores are written by who merges."""
    return path.startswith(_HOT_SCORES) or _STAGED in path.rpartition("/")[2]


def _forgotten(path: str) -> list[Document]:
    return [Document(collection=collection, key=path) for collection in (COLLECTION, FILTERS)]
