"""What a file that is imported is, by its first bytes."""

from pathlib import Path
from typing import Final, Literal

from sidelight.adapters import EVENT_COLUMNS
from sidelight.service._import_reading import is_parquet, opened, parquet_names

Format = Literal["kserve", "sagemaker", "seldon", "events", "jsonl", "csv", "parquet"]
FORMATS: Final[tuple[Format, ...]] = (
    *("kserve", "sagemaker", "seldon", "events", "jsonl", "csv", "parquet"),
)

_PEEK_BYTES: Final = 1 << 16
# The payload of a record stands before the name that tells it.
_FIRST_LINE_BYTES: Final = 1 << 26
# Columns of KServe's blob files, in lower case.
_KSERVE: Final = frozenset({"reqtype", "bytes"})


def format_of(path: Path) -> Format:
    """Return what a file is; a table when nothing else is known by it."""
    if is_parquet(path):
        return _of_columns(set(parquet_names(path)))
    with opened(path) as file:
        start = file.read(_PEEK_BYTES)
        if start.lstrip()[:1] in (b"{", b"["):
            start += file.readline(_FIRST_LINE_BYTES)
    first = start.lstrip().partition(b"\n")[0]
    if not first.startswith((b"{", b"[")):
        names = {name.strip().strip('"').lower() for name in first.decode("latin-1").split(",")}
        return "kserve" if names >= _KSERVE else "csv"
    if b'"captureData"' in first:
        return "sagemaker"
    if b'"_source"' in first and b'"RequestId"' in first:
        return "seldon"
    if b'"specversion"' in first:
        return "events"
    return "kserve" if b'"reqtype"' in start.lower() else "jsonl"


def _of_columns(names: set[str]) -> Format:
    if names >= EVENT_COLUMNS:
        return "events"
    return "kserve" if {name.lower() for name in names} >= _KSERVE else "parquet"
