"""Erasing what the embedded engine keeps of inferences: rows of the lake, results, old bytes."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sidelight.adapters._embedded_documents import _loaded
from sidelight.adapters._lake import Lake
from sidelight.adapters._lake_compaction import Compaction
from sidelight.adapters._lake_expiry import staying_rows
from sidelight.adapters._lake_file import LakeFile, file_path
from sidelight.adapters._lake_kinds import digest
from sidelight.adapters._lake_reading import LakeReader
from sidelight.adapters._lake_writing import write_file
from sidelight.adapters._sqlite import Database
from sidelight.adapters.errors import LakeError
from sidelight.logger.errors import JournalError

_COMPRESSION: Final = "zstd"
_BUSY: Final = 1


def erase_rows(lake: Lake, file: LakeFile, ids: Collection[str]) -> Compaction | None:
    """Hide a file of the lake and put the rows of other inferences in its place.

    Nothing changes until the documents are committed. Done again, it gives the same file. None
    when the file has none of them, or is a hot one, whose rows are moved first.

    Raises
    ------
    LakeError
        If the file cannot be read, or the rest not be written.

    """
    if file.hot is not None:
        return None
    path = lake.local(file.path)
    try:
        columns = pq.ParquetFile(path).read(columns=["id", "time"])
        stays = ~_is_in(columns.column("id"), ids)
        if stays.all():
            return None
        if not stays.any():
            return lake._replaced(file, None)  # noqa: SLF001 - of the same portion
        times = columns.column("time").cast(pa.int64()).to_numpy()[stays]
        positions = (file.partition, file.first, file.last)
        name = digest("erased", file.path, *sorted(ids))
        place = file_path(file.table, file.deployment, int(times.min()), positions, name)
        size = write_file(
            lake.folder / place,
            pq.read_schema(path),
            staying_rows(path, stays),
            n_rows=len(times),
            compression=_COMPRESSION,
        )
    except (OSError, pa.ArrowInvalid) as error:
        raise LakeError(f"cannot take erased rows out of {file.path}: {error}") from error
    smaller = replace(
        file,
        path=place,
        rows=len(times),
        bytes=size,
        min_us=int(times.min()),
        max_us=int(times.max()),
    )
    return lake._replaced(file, smaller)  # noqa: SLF001 - of the same portion


def _is_in(column: pa.ChunkedArray, ids: Collection[str]) -> Any:
    found = pc.is_in(column, value_set=pa.array(sorted(ids), pa.string()))
    return found.to_numpy().astype(np.bool_)


def ids_of_requests(
    reader: LakeReader, files: Iterable[LakeFile], request_ids: Collection[str]
) -> Iterator[set[str]]:
    """Yield ids of the inferences of requests, file by file."""
    wanted = pa.array(sorted(request_ids), pa.string())
    for file in files:
        table = reader.table(file, ["id", "request_id"])
        found = table.filter(pc.is_in(table.column("request_id"), value_set=wanted))
        yield set(found.column("id").to_pylist())


def unnamed_files(lake: Lake, named: Collection[str]) -> list[str]:
    """Return files of the lake that nobody names: a merge that is under way writes one."""
    known = set(named)
    return [path for path in lake._present() if path not in known]  # noqa: SLF001 - as above


def documents_beginning(
    data: Path, collection: str, prefixes: Iterable[str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield key and value of the documents whose key begins with one of these texts."""
    database = Database(data)
    try:
        for prefix in prefixes:
            with database.read() as connection:
                rows = connection.execute(
                    "SELECT key, value FROM documents "
                    "WHERE collection = ? AND key >= ? AND key < ?",
                    (collection, prefix, prefix + "\U0010ffff"),
                ).fetchall()
            for key, value in rows:
                yield key, _loaded(value)
    finally:
        database.close()


def scrub(data: Path) -> None:
    """Leave nothing of what was deleted in ``state.db`` and its write-ahead log.

    Deleted rows stay in free pages until something else needs their room, and former pages in the
    log. The database is written anew, which takes its own size of room twice for a moment.

    Raises
    ------
    JournalFull, JournalError
        When there is no room, or a reader does not let go of the log; it is to be tried again.

    """
    database = Database(data)
    try:
        with database.read() as connection:
            connection.execute("PRAGMA secure_delete = ON")
            connection.execute("VACUUM")
            (busy, _, _) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    finally:
        database.close()
    if busy == _BUSY:
        raise JournalError("state.db: expected nobody to read its log for a moment; try again")
