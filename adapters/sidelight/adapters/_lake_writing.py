"""Writing one file so that it is whole or not there."""

import inspect
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sidelight.adapters._lake_file import MAX_VERSIONS

ROW_GROUP_ROWS = 16_384
"""Rows that are decoded to show one of them; larger groups scan no faster."""

SWIFT = "swift"
"""A compression of everything but floating-point numbers, which take most of the time."""

# What is that long is not written again so soon: 1 to 4 % smaller for a quarter of the time more.
_LASTING_ROWS = 65_536
_DICTIONARY = frozenset({"version", "component", "endpoint", "protocol", "orphan", "tags"})
# Finding an inference by its id reads this instead of the ids; older pyarrow cannot write it.
_HAS_BLOOM = "bloom_filter_options" in inspect.signature(pq.ParquetWriter.__init__).parameters
# One of 25 row groups is read in vain, which takes less than twice the room would.
_FALSE_POSITIVES = 0.04
_LEVEL = 3
_RANDOM = frozenset({"id", "request_id"})


def write_file(
    path: Path, schema: pa.Schema, tables: Iterable[pa.Table], *, n_rows: int, compression: str
) -> int:
    """Write tables of one schema as one Parquet file, durably; return its size in bytes."""
    with _whole(path) as sink:
        with pq.ParquetWriter(sink, schema, **_options(schema, n_rows, compression)) as writer:
            for table in _regrouped(tables):
                writer.write_table(table, row_group_size=ROW_GROUP_ROWS)
        return sink.tell()


def write_whole(path: Path, buffers: Iterable[pa.Buffer]) -> None:
    """Write buffers one after the other as one file, durably."""
    with _whole(path) as sink:
        for buffer in buffers:
            sink.write(buffer)


@contextmanager
def _whole(path: Path) -> Iterator[BinaryIO]:
    """Open a file that is written under another name, synced and renamed.

    A crash leaves the old file, none, or the new one, never half of it.
    """
    created = [folder for folder in path.parents if not folder.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    try:
        with temporary.open("wb") as sink:
            yield sink
            sink.flush()
            os.fsync(sink.fileno())
    except BaseException:
        # On a full disk what was begun is the first thing that must go.
        temporary.unlink(missing_ok=True)
        raise
    temporary.replace(path)
    for folder in {path.parent, *(new.parent for new in created)}:
        _sync_folder(folder)


def span(table: pa.Table | pa.RecordBatch) -> tuple[int, int]:
    """Return the first and last time of a table, microseconds since 1970 UTC."""
    extremes = pc.min_max(table.column("time").cast(pa.int64()))
    return extremes["min"].as_py(), extremes["max"].as_py()


def versions(table: pa.Table) -> tuple[str | None, ...] | None:
    """Return the versions in a table, or None when they are too many to list."""
    if "version" not in table.schema.names:
        return None
    found = pc.unique(table.column("version")).to_pylist()
    if len(found) > MAX_VERSIONS:
        return None
    return tuple(sorted(found, key=lambda version: (version is None, version or "")))


def _options(schema: pa.Schema, n_rows: int, compression: str) -> dict[str, Any]:
    # A dictionary on numbers costs 3.4 times the time and makes the file larger (INGEST.md 3d).
    dictionary = [name for name in schema.names if name in _DICTIONARY]
    options: dict[str, Any] = {"compression": compression, "use_dictionary": dictionary}
    if compression == SWIFT:
        floating = {field.name for field in schema if pa.types.is_floating(field.type)}
        options["compression"] = {
            name: "none" if name in floating else "zstd" for name in schema.names
        }
    if n_rows >= _LASTING_ROWS and compression == "zstd":
        # Random digits become larger with a higher level.
        levels = {name: 1 if name in _RANDOM else _LEVEL for name in schema.names}
        options["compression_level"] = levels
    if _HAS_BLOOM:
        bloom = {"ndv": max(1, min(n_rows, ROW_GROUP_ROWS)), "fpp": _FALSE_POSITIVES}
        options["bloom_filter_options"] = {"id": bloom}
    return options


def _regrouped(tables: Iterable[pa.Table]) -> Iterable[pa.Table]:
    """Join small tables, so that many small files do not become many small row groups."""
    waiting: list[pa.Table] = []
    n_rows = 0
    for table in tables:
        waiting.append(table)
        n_rows += table.num_rows
        if n_rows >= ROW_GROUP_ROWS:
            whole = pa.concat_tables(waiting)
            full = n_rows - n_rows % ROW_GROUP_ROWS
            yield whole.slice(0, full)
            waiting, n_rows = [whole.slice(full)], n_rows - full
    if n_rows:
        yield pa.concat_tables(waiting)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
