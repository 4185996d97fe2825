"""Rows of one deployment become Parquet files, one for each day."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sidelight.adapters._lake_file import LakeFile, TableName, file_path
from sidelight.adapters._lake_ids import filter_of, hashes, noted
from sidelight.adapters._lake_kinds import digest
from sidelight.adapters._lake_writing import span, versions, write_file
from sidelight.logger._journal import Document

LAYOUT: Final = b"sidelight.layout"
DEPLOYMENT: Final = b"sidelight.deployment"
HOT: Final = "lz4"
COLD: Final = "zstd"

DAY_US: Final = 86_400_000_000
# Rather more than a year, which may be imported at once.
_MOST_DAYS: Final = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Rows of one deployment, layout and kind.

    Parameters
    ----------
    layout : bytes
        Empty for scores.
    columns : tuple of (name, type)
        Of the rows, types as text.
    rows : pyarrow.Table, shape (n_rows, n_columns)
        At least one row; metadata are not looked at.

    """

    table: TableName
    deployment: str
    layout: bytes
    columns: tuple[tuple[str, str], ...]
    rows: pa.Table


def write_rows(
    folder: Path, rows: Rows, *, positions: tuple[int, int, int], name: str, compression: str
) -> Iterator[tuple[LakeFile, list[Document]]]:
    """Write rows as one Parquet file for each day, durably; yield each that is there.

    What is published beside the manifest entry of a file comes with it.

    Parameters
    ----------
    name : str
        What tells the files from others of the same positions.

    Raises
    ------
    OSError
        If one cannot be written.

    """
    partition, first, last = positions
    metadata = {DEPLOYMENT: rows.deployment.encode()}
    if rows.layout:
        metadata[LAYOUT] = rows.layout
    schema = rows.rows.schema.with_metadata(metadata)
    for part in by_day(rows.rows):
        min_us, max_us = span(part)
        path = file_path(rows.table, rows.deployment, min_us, positions, name)
        size = write_file(
            folder / path,
            schema,
            [part.cast(schema) if part.schema != schema else part],
            n_rows=part.num_rows,
            compression=compression,
        )
        # Scores are found by the time of their rows.
        known = hashes(part.column("id")) if rows.table == "inferences" else None
        ids, beside = ("", []) if known is None else noted(path, filter_of(known))
        file = LakeFile(
            path=path,
            deployment=rows.deployment,
            table=rows.table,
            rows=part.num_rows,
            bytes=size,
            min_us=min_us,
            max_us=max_us,
            columns=rows.columns,
            partition=partition,
            first=first,
            last=last,
            max_revision=pc.max(part.column("revision")).as_py(),
            versions=versions(part),
            layout=digest(rows.layout),
            ids=ids,
        )
        yield file, beside


def by_day(rows: pa.Table) -> Iterator[pa.Table]:
    """Split rows by the day of their request in UTC, oldest first.

    Rows of very many days stay together: a clock that jumps must not make thousands of files.
    """
    times: NDArray[np.int64] = rows.column("time").cast(pa.int64()).to_numpy()
    days = times // DAY_US
    found = np.unique(days)
    if len(found) == 1 or len(found) > _MOST_DAYS:
        yield rows
        return
    for day in found.tolist():
        yield rows.filter(pa.array(days == day))
