"""Files of the lake become other files: hot rows move, small files are merged."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sidelight.adapters._lake_compaction import Compaction
from sidelight.adapters._lake_file import LakeFile, file_path
from sidelight.adapters._lake_hot import layout_of, read_stream
from sidelight.adapters._lake_ids import Hashes, filter_of, hashes, noted
from sidelight.adapters._lake_kinds import digest
from sidelight.adapters._lake_rows import COLD, HOT, Rows, write_rows
from sidelight.adapters._lake_writing import write_file
from sidelight.adapters.errors import LakeError
from sidelight.logger._journal import Document


class Merging:
    """Writes files in the place of others; nothing changes until the documents are committed.

    Parameters
    ----------
    folder : Path
        The lake.
    local : callable
        From a path to where it can be opened.
    order : callable
        Gives each manifest entry its place.

    """

    def __init__(
        self, folder: Path, *, local: Callable[[str], Path], order: Callable[[], str]
    ) -> None:
        self._folder = folder
        self._local = local
        self._order = order

    def settled(self, files: list[LakeFile]) -> Compaction:
        """Write the rows of hot files, which are given whole, by deployment and day."""
        partition = files[0].partition
        positions = partition, min(file.first for file in files), max(file.last for file in files)
        sources = sorted({file.entry for file in files})
        name = digest(*sources)
        groups: dict[tuple[str, str, tuple[tuple[str, str], ...]], list[LakeFile]] = {}
        for file in files:
            groups.setdefault((file.deployment, file.layout, file.columns), []).append(file)
        streams: dict[tuple[str, int], pa.Table] = {}
        written: list[tuple[LakeFile, list[Document]]] = []
        try:
            for (deployment, layout, columns), parts in groups.items():
                tables = [self._part(part, streams) for part in parts]
                rows = Rows(
                    table=files[0].table,
                    deployment=deployment,
                    layout=layout_of(tables[0], layout),
                    columns=columns,
                    # Parquet takes each chunk of each column by itself, and here they are short.
                    rows=pa.concat_tables(
                        [table.replace_schema_metadata(None) for table in tables]
                    ).combine_chunks(),
                )
                own = digest(name, layout, columns)
                written += write_rows(
                    self._folder, rows, positions=positions, name=own, compression=HOT
                )
        except (OSError, pa.ArrowInvalid) as error:
            failed = LakeError(f"cannot move rows of hot files: {error}")
            failed.written = tuple(file.path for file, _ in written)
            raise failed from error
        beside = [document for _, more in written for document in more]
        return self.replaced(sources, files, [file for file, _ in written], beside)

    def _part(self, part: LakeFile, streams: dict[tuple[str, int], pa.Table]) -> pa.Table:
        key = part.entry, part.place.offset
        if key not in streams:
            streams[key] = read_stream(self._folder / part.entry, part.place)
        return streams[key].slice(part.place.start, part.rows)

    def merged(self, files: list[LakeFile]) -> Compaction:
        """Write the rows of files of one kind and day as one file."""
        newest = files[0]
        min_us = min(file.min_us for file in files)
        first, last = min(file.first for file in files), max(file.last for file in files)
        positions = (newest.partition, first, last)
        name = digest(*(file.path for file in files))
        path = file_path(newest.table, newest.deployment, min_us, positions, name)
        found: list[Hashes] = []
        try:
            schema = pq.read_schema(self._local(newest.path))
            size = write_file(
                self._folder / path,
                schema,
                self._tables(files, found),
                n_rows=sum(file.rows for file in files),
                compression=COLD,
            )
        except (OSError, pa.ArrowInvalid) as error:
            raise LakeError(f"cannot merge into {path}: {error}") from error
        ids, beside = noted(path, filter_of(np.concatenate(found))) if found else ("", [])
        merged = replace(
            newest,
            path=path,
            rows=sum(file.rows for file in files),
            bytes=size,
            min_us=min_us,
            max_us=max(file.max_us for file in files),
            first=first,
            last=last,
            max_revision=max(file.max_revision for file in files),
            versions=_union(files),
            ids=ids,
        )
        return self.replaced([file.entry for file in files], files, [merged], beside)

    def replaced(
        self,
        sources: Sequence[str],
        files: Sequence[LakeFile],
        written: Sequence[LakeFile],
        beside: Sequence[Document] = (),
    ) -> Compaction:
        """Return what hides files and shows those that were written in their place."""
        one_each = {file.entry: file for file in files}
        documents = [one_each[entry].removal(self._order()) for entry in sources]
        documents += [file.document(self._order()) for file in written]
        documents += beside
        return Compaction(
            documents=tuple(documents),
            obsolete=tuple(sources),
            written=tuple(file.path for file in written),
            rows=sum(file.rows for file in written),
        )

    def _tables(self, files: list[LakeFile], found: list[Hashes]) -> Iterator[pa.Table]:
        # One row group at a time: what is merged does not stand in memory.
        for file in files:
            with pq.ParquetFile(self._local(file.path)) as parquet:
                for group in range(parquet.num_row_groups):
                    rows = parquet.read_row_group(group, use_threads=False)
                    if file.table == "inferences":
                        found.append(np.unique(hashes(rows.column("id"))))
                    yield rows


def _union(files: list[LakeFile]) -> tuple[str | None, ...] | None:
    if any(file.versions is None for file in files):
        return None
    found = {version for file in files for version in file.versions or ()}
    return tuple(sorted(found, key=lambda version: (version is None, version or "")))
