"""Reading the lake: Parquet files by DuckDB, parts of hot files as Arrow tables beside them."""

import re
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sidelight.adapters._lake_file import LakeFile
from sidelight.adapters._lake_hot import read_stream
from sidelight.adapters._lake_remote import Copies
from sidelight.adapters.errors import LakeError

# Streams that are mapped; one is at most a slice of the journal, and most have gone a minute later.
_MOST_STREAMS: Final = 1024
_GLOB = re.compile(r"([\[*?])")


class LakeReader:
    """Reads files of a lake, for any number of threads.

    Every method raises ``FileNotFoundError`` when a file is gone: a compaction has replaced it.

    Parameters
    ----------
    folder : Path
        The lake.

    """

    def __init__(self, folder: Path) -> None:
        self._copies = Copies(folder)
        self._lock = threading.Lock()
        self._streams: OrderedDict[tuple[str, int], pa.Table] = OrderedDict()

    def path(self, file: LakeFile) -> Path:
        """Return where a file can be opened; it is fetched when it is in the bucket alone.

        Raises
        ------
        LakeUnreachable
            When the bucket does not answer.

        """
        return self._copies.path(file.entry)

    def source(
        self, files: Iterable[LakeFile], tables: dict[str, pa.Table]
    ) -> tuple[str, list[Any]]:
        """Return what stands behind FROM to read files with the same columns, and its parameters.

        Parameters
        ----------
        tables : dict of name to table
            Gets the tables that the statement names.

        """
        patterns = [pattern(self.path(file)) for file in files if file.hot is None]
        hot = [self.part(file) for file in files if file.hot is not None]
        sources = ["read_parquet(?, hive_partitioning = false)"] if patterns else []
        if hot:
            name = f"hot{len(tables)}"
            tables[name] = pa.concat_tables([table.replace_schema_metadata(None) for table in hot])
            sources.append(name)
        if len(sources) > 1:
            sources = ["(" + " UNION ALL ".join(f"SELECT * FROM {item}" for item in sources) + ")"]  # noqa: S608 - names of ours
        return sources[0], [patterns] if patterns else []

    def part(self, file: LakeFile) -> pa.Table:
        """Return the rows of a part of a hot file; they are not copied."""
        return self._stream(file).slice(file.place.start, file.rows)

    def table(self, file: LakeFile, columns: list[str] | None = None) -> pa.Table:
        """Return the rows of any file.

        Raises
        ------
        LakeError
            If it is damaged.

        """
        if file.hot is not None:
            part = self.part(file)
            return part if columns is None else part.select(columns)
        try:
            with pq.ParquetFile(self.path(file), memory_map=True) as parquet:
                return parquet.read(columns=columns)
        except pa.ArrowInvalid as error:
            raise LakeError(f"{file.path} cannot be read: {error}") from error

    def find(self, ids: Collection[str], files: Sequence[LakeFile]) -> list[tuple[LakeFile, int]]:
        """Return where rows of inferences stand in parts of hot files: the part, and the row in it.

        Each stream is searched once, however many parts it has.
        """
        by_stream: dict[tuple[str, int], list[LakeFile]] = {}
        for file in files:
            if file.hot is not None:
                by_stream.setdefault((file.entry, file.hot.offset), []).append(file)
        wanted = pa.array(list(ids), pa.string())
        found: list[tuple[LakeFile, int]] = []
        for parts in by_stream.values():
            column = self._stream(parts[0]).column("id")
            mask = pc.is_in(column, value_set=wanted)
            rows = pc.indices_nonzero(mask).to_pylist()
            if rows:
                parts.sort(key=_start)
                starts = [_start(part) for part in parts]
                for row in rows:
                    part = parts[max(bisect_right(starts, row) - 1, 0)]
                    number = row - _start(part)
                    if 0 <= number < part.rows:
                        found.append((part, number))
        return found

    def _stream(self, file: LakeFile) -> pa.Table:
        key = file.entry, file.place.offset
        with self._lock:
            known = self._streams.get(key)
            if known is not None:
                self._streams.move_to_end(key)
                return known
        try:
            table = read_stream(self.path(file), file.place)
        except pa.ArrowInvalid as error:
            raise LakeError(f"{file.entry} cannot be read: {error}") from error
        with self._lock:
            self._streams[key] = table
            while len(self._streams) > _MOST_STREAMS:
                self._streams.popitem(last=False)
        return table


def pattern(path: Path) -> str:
    """Return a path whose glob characters stand for themselves."""
    return _GLOB.sub(r"[\1]", str(path))


def _scanned(table: pa.Table) -> pa.Table:
    """Widen half floats, which DuckDB does not read from Arrow."""
    schema = table.schema
    is_wide = True
    for place, field in enumerate(schema):
        if pa.types.is_float16(field.type):
            schema, is_wide = schema.set(place, field.with_type(pa.float32())), False
    return table if is_wide else table.cast(schema)


def _start(part: LakeFile) -> int:
    return part.place.start
