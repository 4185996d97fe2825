"""Commands that work on a data folder, whether the service runs or not."""

import sys
from pathlib import Path
from typing import Any

import orjson

from sidelight.adapters import EmbeddedDocuments, Inferences, QueryError
from sidelight.logger import verify
from sidelight.logger.errors import JournalError
from sidelight.service._names import stored_name

_USAGE = 2


def run_query(data: Path, filters: dict[str, Any]) -> int:
    """Print one page of inferences as JSON lines; return the exit code."""
    if not (data / "state.db").exists():
        return _fail(f"no data folder at {data}")
    documents = EmbeddedDocuments(data)
    if filters.get("deployment"):
        filters = {**filters, "deployment": stored_name(filters["deployment"])}
    try:
        items, following = Inferences(data, documents).find(**filters)
    except QueryError as error:
        return _fail(str(error))
    finally:
        documents.close()
    for item in items:
        sys.stdout.buffer.write(orjson.dumps(item.to_json()) + b"\n")
    if following is not None:
        sys.stderr.write(f"more: --cursor {following}\n")
    return 0


def run_verify(data: Path) -> int:
    """Check the archive; print what was found; return 0 when intact, else 1."""
    if not (data / "raw").is_dir():
        if not (data / "format").exists():
            return _fail(f"no archive at {data / 'raw'}")
        # A data folder without its archive is not a wrong path but the greatest loss.
        sys.stdout.write("raw: is missing\n")
    try:
        report = verify(data)
    except JournalError as error:
        return _fail(str(error))
    for finding in report.findings:
        sys.stdout.write(f"{finding}\n")
    word = "intact" if report.ok else "NOT INTACT"
    sys.stdout.write(
        f"{word}: {report.records} records, {report.bytes} bytes in {report.segments} segments\n"
    )
    return 0 if report.ok else 1


def _fail(message: str) -> int:
    sys.stderr.write(f"sidelight: {message}\n")
    return _USAGE
