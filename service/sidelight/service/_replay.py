"""``sidelight replay``: the raw archive goes through collection once more."""

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from sidelight.logger import EventRecord
from sidelight.logger._door import ROUTES
from sidelight.logger._envelope_split import split_array
from sidelight.logger._sealed_marks import ERASED_HEAD, ERASED_MEMBER
from sidelight.logger._segments import SegmentReader, SegmentWriter
from sidelight.logger._segments_folder import check_version
from sidelight.logger.errors import JournalDamaged, JournalError
from sidelight.service._access_log import AccessLog, command_entry
from sidelight.service._collector_client import CollectorClient
from sidelight.service._sealing import sealing
from sidelight.service._settings import Settings
from sidelight.service._signing import signer_of
from sidelight.service.errors import ConfigurationError, ServiceError

_MAX_RECORDS: Final = 4096
_MAX_BYTES: Final = 4 << 20
# Of the connection on which a request came, or made anew.
_DROPPED: Final = frozenset(
    {
        *(b"host", b"content-length", b"transfer-encoding", b"connection", b"keep-alive"),
        *(b"authorization", b"expect", b"te", b"trailer", b"upgrade"),
    }
)
_HEADER: Final = re.compile(rb"\r\n([^:\r\n]+):[ \t]*([^\r\n]*)")


@dataclass(slots=True)
class ReplayReport:
    """How many records were replayed, refused, lost by the archive; how many events are erased."""

    records: int = 0
    refused: int = 0
    damaged: int = 0
    erased: int = 0

    def show(self) -> None:
        """Print it as one JSON object on one line."""
        counts = {"records": self.records, "refused": self.refused, "damaged": self.damaged}
        erased = {"erased": self.erased} if self.erased else {}
        sys.stdout.write(f"{json.dumps(counts | erased)}\n")


def note_replay(data: Path, *, to: str | None, into: Path | None, first: int) -> None:
    """Write into the access log that somebody takes all that was asked and answered elsewhere.

    Raises
    ------
    ConfigurationError
        When there is no archive.
    ServiceError
        When it cannot be written down; then nothing may be replayed.
    FolderTooNew
        When a newer version has written the folder.

    """
    if not (data / "raw").is_dir():
        raise ConfigurationError(f"--data: expected a folder with an archive, got {data}")
    check_version(data)
    # Of an address the host alone: the rest may be a secret.
    given = {"to": to and urlsplit(to).hostname, "into": into and str(into), "first": first}
    try:
        AccessLog(data).append(command_entry("replay", given))
    except OSError as error:
        raise ServiceError(
            f"the access log cannot be written: {error.strerror}; nothing is replayed"
        ) from error


def replay_to(data: Path, client: CollectorClient, *, first: int = 0) -> ReplayReport:
    """Send every record of an archive to a collector, in order.

    What the collector has already is a duplicate there and changes nothing.

    Parameters
    ----------
    data : Path
        The data folder whose archive is sent; the service on it may run.
    client : CollectorClient
        Takes the records.
    first : int, default 0
        Position to begin with.

    Raises
    ------
    ServiceError
        When the collector does not take a record.

    """
    report = ReplayReport()
    for record in _records(data, first, report):
        path, headers = _request(record.head)
        if client.post(path, record.body, headers):
            report.records += 1
        else:
            report.refused += 1
    return report


def replay_into(data: Path, settings: Settings, *, first: int = 0) -> ReplayReport:
    """Write an archive into a fresh data folder with its receive times, and collect it there.

    Pairing counts the receive times of the journal, so the same halves meet and the same stay
    alone.

    Parameters
    ----------
    data : Path
        The data folder whose archive is read.
    settings : Settings
        Of the fresh folder.
    first : int, default 0
        Position to begin with.

    Raises
    ------
    ConfigurationError
        When the folder is not fresh.
    JournalError
        When it cannot be written.

    """
    # Imported here: a replay to a collector needs none of it.
    from sidelight.service._stages import work_off  # noqa: PLC0415

    if (settings.data / "raw").exists():
        raise ConfigurationError(f"--into: expected a fresh folder, got {settings.data}")
    report = ReplayReport()
    now_ns = 0

    def clock() -> int:
        return now_ns

    writer = SegmentWriter(settings.data, clock=clock, signer=signer_of(settings))
    before = sealing(settings)
    sealed = None if before is None else before(writer, None)
    write = writer.write if sealed is None else sealed.write
    try:
        records = _records(data, first, report)
        for received_ns, together in groupby(records, key=lambda record: record.received_ns):
            now_ns = received_ns
            # The next time must not come before these are written with theirs.
            written = [write(record.head, record.body) for record in together]
            for future in written:
                future.result()
            report.records += len(written)
    finally:
        if sealed is not None:
            sealed.close()
        writer.close()
    work_off(settings)
    return report


def _records(data: Path, first: int, report: ReplayReport) -> Iterator[EventRecord]:
    if not (data / "raw").is_dir():
        raise ConfigurationError(f"--data: expected a folder with an archive, got {data}")
    reader = SegmentReader(data)
    try:
        # As it is now: a collector on the same folder writes down what it is sent.
        position, end = max(first, reader.begin()), reader.end()
        while position < end:
            n_records = min(_MAX_RECORDS, end - position)
            try:
                found = reader.read(position, max_records=n_records, max_bytes=_MAX_BYTES)
            except JournalDamaged:
                following = reader.retired_until(position)
                if following is None:
                    following = reader.skip(position)
                    report.damaged += following - position
                position = following
                continue
            if not found:
                raise JournalError(f"archive: expected record {position}, got none")
            for record in found:
                if (readable := _without_erased(record, report)) is not None:
                    yield readable
            position = found[-1].position + 1
    finally:
        reader.close()


def _without_erased(record: EventRecord, report: ReplayReport) -> EventRecord | None:
    """Leave out what stands for erased events; None when nothing else is in a record."""
    if record.head == ERASED_HEAD:
        report.erased += 1
        return None
    if ERASED_MEMBER not in record.body:
        return record
    members = split_array(record.body)
    kept = [member for member in members if member != ERASED_MEMBER]
    report.erased += len(members) - len(kept)
    if not kept:
        return None
    body = b"[" + b",".join(kept) + b"]"
    return EventRecord(record.partition, record.position, record.received_ns, record.head, body)


def _request(head: bytes) -> tuple[str, list[tuple[bytes, bytes]]]:
    """Return path and headers of a record, without what belonged to its connection."""
    target = head.split(b" ", 2)[1].partition(b"?")[0]
    # A token of the sender stood in a path that is none of the routes.
    path = target.decode("latin-1") if target in ROUTES else "/events"
    pairs = _HEADER.findall(head)
    return path, [(name, value) for name, value in pairs if name.lower() not in _DROPPED]
