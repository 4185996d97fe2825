"""DuckDB, kept inside the lake and inside its memory."""

import os
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from sidelight.adapters._lake_reading import pattern
from sidelight.adapters.errors import LakeError, QueryError


class FileVanished(LakeError):  # noqa: N818 - the name says it
    """A file was removed by compaction after the manifest was read; read it again."""


class Engine:
    """One in-memory DuckDB for all threads; each query has a cursor of its own.

    Parameters
    ----------
    folder : Path
        The lake; the engine can open nothing else.
    memory_bytes : int
        Bound of the engine's memory; larger sorts go to a temporary folder.

    """

    def __init__(self, folder: Path, *, memory_bytes: int) -> None:
        # 0.1 s that every process would pay which imports anything of this package.
        import duckdb  # noqa: PLC0415

        self._errors = duckdb
        self._lock = threading.Lock()
        self._connection = duckdb.connect(
            ":memory:",
            config={
                "memory_limit": f"{memory_bytes // 1_000_000}MB",
                "autoinstall_known_extensions": False,
                "autoload_known_extensions": False,
                "temp_directory": str(Path(tempfile.gettempdir()) / f"sidelight-{os.getpid()}"),
            },
        )
        for statement in _settings(folder):
            self._connection.execute(statement)

    def query(
        self,
        sql: str,
        parameters: Sequence[Any] = (),
        tables: Mapping[str, pa.Table] | None = None,
    ) -> list[tuple[Any, ...]]:
        """Return every row of the answer; ``tables`` are readable by their names.

        Raises
        ------
        FileVanished
            If a file is not there any more.
        QueryError
            If the answer needs more memory than there is.
        LakeError
            If a file cannot be read.

        """
        with self._lock:
            cursor = self._connection.cursor()
        try:
            for name, table in (tables or {}).items():
                cursor.register(name, table)
            return cursor.execute(sql, list(parameters)).fetchall()
        except self._errors.IOException as error:
            raise FileVanished(f"a file of the lake cannot be opened: {_told(error)}") from error
        except self._errors.OutOfMemoryException as error:
            raise QueryError(
                "query", expected="a narrower span of time or one deployment", got="too many rows"
            ) from error
        except self._errors.InvalidInputException as error:
            raise LakeError(f"a file of the lake cannot be read: {_told(error)}") from error
        finally:
            cursor.close()

    def close(self) -> None:
        """Give the memory back."""
        self._connection.close()


def _told(error: Exception) -> str:
    """Return what is wrong without the statement, which is nobody's business but ours."""
    return str(error).partition("\n")[0]


def _settings(folder: Path) -> list[str]:
    settings = [
        "SET python_enable_replacements = false",
        "SET TimeZone = 'UTC'",
        "SET parquet_metadata_cache = true",
    ]
    # DuckDB matches an escaped pattern against its allowed folders before it expands it.
    if pattern(folder) == str(folder):
        quoted = str(folder.absolute()).replace("'", "''")
        settings += [
            f"SET allowed_directories = ['{quoted}']",
            "SET enable_external_access = false",
        ]
    return [*settings, "SET lock_configuration = true"]
