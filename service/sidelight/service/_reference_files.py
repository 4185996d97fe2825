"""Reference rows on disk: immutable, named by the digest of their summary."""

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sidelight.service._columns import with_prefixes
from sidelight.service.errors import ConfigurationError


def reference_path(data: Path, digest: str) -> Path:
    """Return where the rows of a reference stand."""
    return data / "references" / f"{digest}.parquet"


def write_reference_file(data: Path, digest: str, table: pa.Table) -> None:
    """Write reference rows; the same digest is the same file."""
    path = reference_path(data, digest)
    if path.exists():
        return
    path.parent.mkdir(exist_ok=True)
    half = path.with_suffix(".tmp")
    with half.open("wb") as file:
        pq.write_table(table, file)
        file.flush()
        os.fsync(file.fileno())
    half.replace(path)


def read_reference_file(data: Path, digest: str) -> pa.Table:
    """Return the rows of a reference."""
    return pq.read_table(reference_path(data, digest))


def read_given_reference(path: Path) -> pa.Table:
    """Return the rows of a file that somebody configured as reference.

    Raises
    ------
    ConfigurationError
        If it cannot be read as Parquet or has no rows.

    """
    try:
        table = with_prefixes(pq.read_table(path))
    except (OSError, pa.ArrowException) as error:
        raise ConfigurationError(
            f"reference.file: {path} cannot be read as Parquet: {error}"
        ) from error
    if not table.num_rows:
        raise ConfigurationError(f"reference.file: {path} has no rows")
    return table


def joined(parts: list[Any]) -> pa.Table:
    """Join rows of several layouts; those whose types contradict the first are left out."""
    tables = [pa.Table.from_batches([part]) for part in parts]
    try:
        return pa.concat_tables(tables, promote_options="permissive").combine_chunks()
    except pa.ArrowException:
        alike = [table for table in tables if table.schema.equals(tables[0].schema)]
        return pa.concat_tables(alike).combine_chunks()
