"""Reference rows on disk: immutable, named by the digest of their summary."""

import os
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from sidelight.payloads import FEATURE_PREFIX, OUTPUT_PREFIX, Kind, Schema
from sidelight.service._columns import with_prefixes
from sidelight.service.errors import ConfigurationError

MIN_ROWS: Final = 50
"""Fewer rows are no reference (``Reference.fit``)."""

_WATCHED: Final[frozenset[Kind]] = frozenset({"numeric", "categorical", "boolean"})
_MOST_NAMES: Final = 20


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
        raise _unreadable(path, error) from error
    if not table.num_rows:
        raise ConfigurationError(
            f"reference.file: expected at least {MIN_ROWS} rows, got none in {path}"
        )
    return table


def check_given_reference(path: Path, schema: Schema | None) -> None:
    """Look at what a configured reference file says of itself, without reading its rows.

    Parameters
    ----------
    path : Path
        The file.
    schema : Schema or None
        The configured one, whose features that can be watched it must have.

    Raises
    ------
    ConfigurationError
        If it is no Parquet file, has too few rows, or lacks columns.

    """
    try:
        with pq.ParquetFile(path) as file:
            n_rows, found = file.metadata.num_rows, file.schema_arrow.names
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(path, error) from error
    if n_rows < MIN_ROWS:
        raise ConfigurationError(
            f"reference.file: expected at least {MIN_ROWS} rows, got {n_rows} in {path}"
        )
    named = {name.removeprefix(FEATURE_PREFIX) for name in found if name[:8] != OUTPUT_PREFIX}
    columns = () if schema is None else schema.features
    missing = [item.name for item in columns if item.kind in _WATCHED and item.name not in named]
    if missing or not named:
        expected = ", ".join(missing[:_MOST_NAMES]) or "one"
        raise ConfigurationError(
            f"reference.file: expected a column for each feature ({expected}), "
            f"got {', '.join(found[:_MOST_NAMES]) or 'none'} in {path}",
            hint="columns are called features.NAME and outputs.NAME, or by bare feature names",
        )


def _unreadable(path: Path, error: Exception) -> ConfigurationError:
    why = " ".join(str(error).split())
    if isinstance(error, FileNotFoundError):
        why = f"no file at {path}"
    elif isinstance(error, IsADirectoryError) or path.is_dir():
        why = f"a folder at {path}"
    elif str(path) not in why:
        why = f"{path}: {why}"
    return ConfigurationError(
        f"reference.file: expected a Parquet file, got {why}",
        hint="name a file that this process can read, or leave it out: first_rows takes traffic",
    )


def joined(parts: list[Any]) -> pa.Table:
    """Join rows of several layouts; those whose types contradict most of them are left out."""
    tables = [pa.Table.from_batches([part]) for part in parts]
    with suppress(pa.ArrowException):
        return _joined(tables)
    # Integers beyond 53 bits do not go with fractions; detectors read all numbers as doubles.
    tables = [_with_doubles(table) for table in tables]
    with suppress(pa.ArrowException):
        return _joined(tables)
    rows: Counter[pa.Schema] = Counter()
    for table in tables:
        rows[table.schema] += table.num_rows
    ((usual, _),) = rows.most_common(1)
    return _joined([table for table in tables if table.schema == usual])


def _joined(tables: list[pa.Table]) -> pa.Table:
    return pa.concat_tables(tables, promote_options="permissive").combine_chunks()


def _with_doubles(table: pa.Table) -> pa.Table:
    fields = [
        pa.field(field.name, pa.float64()) if pa.types.is_integer(field.type) else field
        for field in table.schema
    ]
    return table.cast(pa.schema(fields), safe=False)
