"""``sidelight import``: what other loggers and tables hold becomes events of a collector."""

import hashlib
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

import orjson
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from sidelight.adapters import ImportFileError, kserve_blob, sagemaker_capture, seldon_log
from sidelight.logger import CapturedEvent
from sidelight.logger._emitter_event import BATCH_CONTENT_TYPE
from sidelight.service._collector_client import CollectorClient
from sidelight.service._import_tables import Mapped, row_events
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
_ROWS: Final = 4096


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
        When a file is not what it should be; names the file. The files before it are sent.
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
    with path.open("rb") as file:
        start = file.read(_PEEK_BYTES)
    if start.startswith(_PARQUET):
        try:
            names = {name.lower() for name in pq.read_schema(path).names}
        except pa.ArrowException as error:
            raise BadRequest(f"expected Parquet, got: {error}") from error
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
            return iter(kserve_blob(path.read_bytes(), modified=modified))
        case "sagemaker":
            return iter(sagemaker_capture(path.read_bytes(), key=path.resolve().as_posix()))
        case "seldon":
            return iter(seldon_log(path.read_bytes()))
        case "events":
            return _structured(path)
    if mapped is None:
        raise ConfigurationError("a table needs --deployment NS/NAME, and what its columns are")
    rows = {"jsonl": _json_rows, "csv": _csv_rows, "parquet": _parquet_rows}[format](path)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").digest()
    return row_events(rows, mapped, digest=digest)


def _structured(path: Path) -> Iterator[_Line]:
    for number, line, event in _json_lines(path):
        if not isinstance(event.get("id"), str) or not isinstance(event.get("type"), str):
            raise BadRequest(f"line {number} is no CloudEvent", expected="id and type", got="none")
        yield _Line(line)


def _json_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    for _, _, row in _json_lines(path):
        yield row


def _json_lines(path: Path) -> Iterator[tuple[int, bytes, dict[str, Any]]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                value = orjson.loads(line)
            except orjson.JSONDecodeError:
                raise BadRequest(
                    f"line {number}: expected a JSON object, got other bytes"
                ) from None
            if not isinstance(value, dict):
                raise BadRequest(f"line {number}: expected a JSON object, got another value")
            yield number, line.strip(), value


def _csv_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        with pa_csv.open_csv(path) as reader:
            for batch in reader:
                yield from batch.to_pylist()
    except pa.ArrowInvalid as error:
        raise BadRequest(f"expected CSV with a line of names, got: {error}") from error


def _parquet_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_ROWS):
                yield from batch.to_pylist()
    except pa.ArrowException as error:
        raise BadRequest(f"expected Parquet, got: {error}") from error
