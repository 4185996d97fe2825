"""``sidelight import``: what other loggers and tables hold becomes events of a collector."""

import hashlib
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

from sidelight.adapters import ImportFileError, kserve_blob, sagemaker_capture, seldon_log
from sidelight.logger import CapturedEvent
from sidelight.logger._emitter_event import BATCH_CONTENT_TYPE
from sidelight.service._collector_client import CollectorClient
from sidelight.service._import_reading import (
    csv_rows,
    json_lines,
    json_rows,
    opened,
    parquet_names,
    parquet_rows,
)
from sidelight.service._import_tables import Mapped, Table, row_events
from sidelight.service.errors import BadRequest, ConfigurationError

Format = Literal["kserve", "sagemaker", "seldon", "events", "jsonl", "csv", "parquet"]
FORMATS: Final[tuple[Format, ...]] = (
    *("kserve", "sagemaker", "seldon", "events", "jsonl", "csv", "parquet"),
)

_BATCH_EVENTS: Final = 256
_BATCH_BYTES: Final = 4 << 20
_PARQUET: Final = b"PAR1"
# Columns of KServe's blob files, in lower case.
_KSERVE: Final = frozenset({"reqtype", "bytes"})
_PEEK_BYTES: Final = 1 << 16


@dataclass(slots=True)
class ImportReport:
    """How many files and events were sent, and how many events were refused."""

    files: int = 0
    events: int = 0
    refused: int = 0

    def show(self) -> None:
        """Print it as one JSON object on one line."""
        counts = {"files": self.files, "events": self.events, "refused": self.refused}
        sys.stdout.write(f"{json.dumps(counts)}\n")


@dataclass(frozen=True, slots=True)
class _Line:
    """A structured CloudEvent that is sent byte for byte as it stands in its file."""

    text: bytes

    @property
    def size(self) -> int:
        return len(self.text)

    def member(self) -> bytes:
        return self.text


_Event = CapturedEvent | _Line


def import_files(
    paths: Iterable[Path],
    client: CollectorClient,
    *,
    mapped: Mapped | None = None,
    format: Format | None = None,  # noqa: A002 - the option's name
) -> ImportReport:
    """Send what files hold to a collector, one after the other, in the order of the files.

    Parameters
    ----------
    paths : iterable of Path
        Files of KServe's blob logger (JSON, CSV, Parquet), SageMaker's data capture, hits of
        Seldon's request logger, CloudEvents as JSON lines, or tables (JSON lines, CSV, Parquet).
    client : CollectorClient
        Takes the events.
    mapped : Mapped, optional
        What the columns of tables are; a table needs it.
    format : str, optional
        Of all files; found out for each otherwise.

    Raises
    ------
    BadRequest
        When a file is not what it should be; names the file. The files before it are sent, and
        of a table nothing.
    ConfigurationError
        When a column is named that a table has not.
    ServiceError
        When the collector does not take the events.

    """
    report = ImportReport()
    for path in paths:
        try:
            for events in _batches(_events(path, format or _format_of(path), mapped)):
                _send(events, client, report)
        except OSError as error:
            raise BadRequest(f"{path}: cannot be read: {error.strerror}") from error
        except (ImportFileError, BadRequest, ConfigurationError) as error:
            raise BadRequest(f"{path}: {error}") from error
        report.files += 1
    return report


def _send(events: list[_Event], client: CollectorClient, report: ImportReport) -> None:
    headers = [(b"content-type", BATCH_CONTENT_TYPE)]
    body = b"[" + b",".join([event.member() for event in events]) + b"]"
    if client.post("/events", body, headers):
        report.events += len(events)
    else:
        report.refused += len(events)


def _batches(events: Iterator[_Event]) -> Iterator[list[_Event]]:
    batch: list[_Event] = []
    size = 0
    for event in events:
        batch.append(event)
        size += event.size
        if len(batch) >= _BATCH_EVENTS or size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _format_of(path: Path) -> Format:
    with opened(path) as file:
        start = file.read(_PEEK_BYTES)
    if start.startswith(_PARQUET):
        names = {name.lower() for name in parquet_names(path)}
        return "kserve" if names >= _KSERVE else "parquet"
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


def _events(path: Path, format: Format, mapped: Mapped | None) -> Iterator[_Event]:  # noqa: A002 - as above
    match format:
        case "kserve":
            modified = datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat()
            return iter(kserve_blob(_whole(path), modified=modified))
        case "sagemaker":
            return iter(sagemaker_capture(_whole(path), key=path.resolve().as_posix()))
        case "seldon":
            return iter(seldon_log(_whole(path)))
        case "events":
            return _structured(path)
    if mapped is None:
        raise ConfigurationError("a table needs --deployment NS/NAME, and what its columns are")
    rows = {"jsonl": json_rows, "csv": csv_rows, "parquet": parquet_rows}[format]
    # Read to its end first: nothing is sent of a file that is wrong somewhere.
    table = Table.of(rows(path), mapped)
    digest = hashlib.sha256()
    with opened(path) as file:
        while chunk := file.read(_PEEK_BYTES):
            digest.update(chunk)
    return row_events(rows(path), mapped, table, digest=digest.digest())


def _whole(path: Path) -> bytes:
    with opened(path) as file:
        return file.read()


def _structured(path: Path) -> Iterator[_Line]:
    for number, line, event in json_lines(path):
        if not isinstance(event.get("id"), str) or not isinstance(event.get("type"), str):
            raise BadRequest(f"line {number} is no CloudEvent", expected="id and type", got="none")
        yield _Line(line)
