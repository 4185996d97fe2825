"""``sidelight import``: what other loggers and tables hold becomes events of a collector."""

import hashlib
import json
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

from sidelight.adapters import (
    ImportFileError,
    kserve_blob,
    sagemaker_capture,
    seldon_log,
    sink_events,
)
from sidelight.logger import CapturedEvent
from sidelight.logger._emitter_event import BATCH_CONTENT_TYPE
from sidelight.service._collector_client import CollectorClient
from sidelight.service._import_csv import CsvForm, csv_rows
from sidelight.service._import_format import Format, format_of
from sidelight.service._import_reading import (
    is_parquet,
    json_object,
    json_rows,
    lines,
    opened,
    parquet_batches,
    parquet_rows,
)
from sidelight.service._import_tables import Mapped, Table, row_events
from sidelight.service.errors import BadRequest, ConfigurationError

_BATCH_EVENTS: Final = 256
_BATCH_BYTES: Final = 4 << 20
_CHUNK_BYTES: Final = 1 << 16
# Without one of them the collector takes it for no event.
_REQUIRED: Final = ("id", "type", "source", "specversion")


@dataclass(slots=True)
class ImportReport:
    """How many files and events were sent, and how many events were refused.

    Parameters
    ----------
    skipped : int or None
        Lines, records and files that cannot be read and were left out; None where the first one
        ends the import.

    """

    files: int = 0
    events: int = 0
    refused: int = 0
    skipped: int | None = None

    def show(self) -> None:
        """Print it as one JSON object on one line."""
        counts = {"files": self.files, "events": self.events, "refused": self.refused}
        if self.skipped is not None:
            counts["skipped"] = self.skipped
        sys.stdout.write(f"{json.dumps(counts)}\n")

    def skip(self, path: Path, error: Exception | str) -> None:
        """Count what is left out of a file, and name it."""
        self.skipped = (self.skipped or 0) + 1
        sys.stderr.write(f"sidelight: skipped: {path}: {error}\n")


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
_Skip = Callable[[Exception], None]


@dataclass(frozen=True, slots=True)
class _Tables:
    """What tables hold, and how those of CSV are written."""

    mapped: Mapped | None
    csv: CsvForm

    def events(self, path: Path, format: Format) -> Iterator[_Event]:  # noqa: A002 - the option's name
        mapped = self.mapped
        if mapped is None:
            raise ConfigurationError(
                "a table needs --deployment NS/NAME, and what its columns are; "
                "what another logger wrote may need --format"
            )
        # Read to its end first: nothing is sent of a file that is wrong somewhere.
        table = Table.of(self._rows(path, format, mapped), mapped)
        digest = hashlib.sha256()
        with opened(path) as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
        rows = self._rows(path, format, mapped)
        return row_events(rows, mapped, table, digest=digest.digest())

    def _rows(self, path: Path, format: Format, mapped: Mapped) -> Iterator[Mapping[str, Any]]:  # noqa: A002 - as above
        match format:
            case "csv":
                # Version 1.10 is not version 1.1.
                return csv_rows(path, self.csv, text=(mapped.request_id, mapped.version))
            case "parquet":
                return parquet_rows(path)
        return json_rows(path)


def import_files(
    paths: Iterable[Path],
    client: CollectorClient,
    *,
    mapped: Mapped | None = None,
    format: Format | None = None,  # noqa: A002 - the option's name
    skip_bad: bool = False,
    csv: CsvForm | None = None,
) -> ImportReport:
    """Send what files hold to a collector, one after the other, in the order of the files.

    Parameters
    ----------
    paths : iterable of Path
        Files of KServe's blob logger (JSON, CSV, Parquet), SageMaker's data capture, hits of
        Seldon's request logger, CloudEvents as our own file sink writes them (JSON lines,
        Parquet), or tables (JSON lines, CSV, Parquet).
    client : CollectorClient
        Takes the events.
    mapped : Mapped, optional
        What the columns of tables are; a table needs it.
    format : str, optional
        Of all files; found out for each otherwise.
    skip_bad : bool, default False
        Leave out lines and records that cannot be read, and files of which nothing can be; each is
        counted and named on the standard error. A table is left out as a whole, and so is a file
        of Seldon's logger: the rows of one request stand in several of its lines.
    csv : CsvForm, optional
        How tables of CSV are written.

    Raises
    ------
    BadRequest
        When a file is not what it should be; names the file, and the line. Nothing of it is sent;
        the files before it are. Without ``skip_bad`` only, but for files that cannot be opened.
    ConfigurationError
        When a column is named that a table has not.
    ServiceError
        When the collector does not take the events.

    """
    report = ImportReport(skipped=0 if skip_bad else None)
    tables = _Tables(mapped, csv or CsvForm())
    for path in paths:
        skip = partial(report.skip, path) if skip_bad else None
        try:
            for events in _batches(_events(path, format or format_of(path), tables, skip)):
                _send(events, client, report)
        except OSError as error:
            raise BadRequest(f"{path}: cannot be read: {error.strerror}") from error
        except ConfigurationError as error:
            raise BadRequest(f"{path}: {error}") from error
        except (ImportFileError, BadRequest, UnicodeDecodeError) as error:
            # The last is text of a damaged Parquet file, and shows a byte of it.
            is_text = isinstance(error, UnicodeDecodeError)
            why = "expected text in UTF-8, got other bytes" if is_text else str(error)
            if skip is None:
                raise BadRequest(f"{path}: {why}") from error
            skip(why)
            continue
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


def _events(
    path: Path,
    format: Format,  # noqa: A002 - as above
    tables: _Tables,
    skip: _Skip | None,
) -> Iterator[_Event]:
    match format:
        case "kserve":
            modified = datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat()
            return iter(kserve_blob(_whole(path), modified=modified, bad=skip))
        case "sagemaker":
            key = path.resolve().as_posix()
            return iter(sagemaker_capture(_whole(path), key=key, bad=skip))
        case "seldon":
            return iter(seldon_log(_whole(path)))
        case "events":
            read = _stored if is_parquet(path) else _structured
            # Read to its end first, as a table.
            deque(read(path, skip and _ignore), maxlen=0)
            return read(path, skip)
    return tables.events(path, format)


def _whole(path: Path) -> bytes:
    with opened(path) as file:
        return file.read()


def _structured(path: Path, skip: _Skip | None) -> Iterator[_Line]:
    for number, line in lines(path):
        try:
            _check_event(json_object(line, number), number)
        except BadRequest as error:
            if skip is None:
                raise
            skip(error)
        else:
            yield _Line(line)


def _stored(path: Path, skip: _Skip | None) -> Iterator[CapturedEvent]:
    first = 0
    for records in parquet_batches(path, _BATCH_EVENTS):
        yield from sink_events(records, first=first, bad=skip)
        first += records.num_rows


def _ignore(_: Exception) -> None:
    """Let it be told when it is read once more."""


def _check_event(event: dict[str, Any], number: int) -> None:
    for name in _REQUIRED:
        value = event.get(name)
        if not isinstance(value, str) or not value:
            raise BadRequest(f"line {number} is no CloudEvent: it has no {name}")
