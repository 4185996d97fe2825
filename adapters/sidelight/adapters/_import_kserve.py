"""Files that KServe's logger writes into a bucket, as events: JSON, CSV and Parquet.

Such files put together, one JSON object a line, are read, too.

Reference: kserve ``pkg/logger``, marshallers of JSON, CSV and Parquet. Release 0.16 wrote the
names of Go's fields; CSV and Parquet have no time.
"""

import base64
import binascii
import csv
import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from sidelight.adapters.errors import ImportFileError
from sidelight.logger import CapturedEvent

_TYPE_PREFIX: Final = "org.kubeflow.serving.inference."
_KINDS: Final = frozenset({"request", "response"})
_PARQUET_MAGIC: Final = b"PAR1"
# Attribute of the event -> key of the record, in lower case.
_ATTRIBUTES: Final = (
    ("id", "id"),
    ("namespace", "namespace"),
    ("inferenceservicename", "inferenceservice"),
    ("component", "component"),
    ("endpoint", "endpoint"),
    ("datacontenttype", "contenttype"),
    ("time", "occurrencetime"),
)
_DOCUMENTS: Final = ("metadata", "annotations")
_MAX_FIELD: Final = 1 << 30


def kserve_blob(
    data: bytes,
    *,
    modified: str | None = None,
    bad: Callable[[ImportFileError], None] | None = None,
) -> list[CapturedEvent]:
    """Return the events of one file, whose format is known by its first bytes.

    Parameters
    ----------
    data : bytes
        The whole file.
    modified : str or None
        When the object was last modified, RFC 3339: the time of records that have none.
    bad : callable, optional
        Called for each record that cannot be read, which is left out. Without it the first one
        is raised.

    Raises
    ------
    ImportFileError
        When the file is no such, or a record in it.

    """
    if data[:4] == _PARQUET_MAGIC:
        records = _numbered(_parquet(data))
    elif data.lstrip()[:1] in (b"{", b"["):
        records = _json(data)
    else:
        records = _numbered(_csv(data))
    events = []
    for place, record in records:
        try:
            events.append(_event(record, modified, place))
        except ImportFileError as error:
            if bad is None:
                raise
            bad(error)
    return events


def _numbered(records: Iterable[Any]) -> Iterator[tuple[str, Any]]:
    return ((f"record {number}", record) for number, record in enumerate(records))


def _json(data: bytes) -> Iterator[tuple[str, Any]]:
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        lines = _json_lines(data)
        if not any(isinstance(value, dict) for _, value in lines):
            raise _bad("file", "JSON", "malformed bytes") from None
        return iter(lines)
    # One record is an object, several are an array.
    return _numbered(value if isinstance(value, list) else [value])


def _json_lines(data: bytes) -> list[tuple[str, Any]]:
    """Return the value of each line; None of one that has none."""
    values: list[tuple[str, Any]] = []
    for number, line in enumerate(data.splitlines(), start=1):
        if line.strip():
            try:
                values.append((f"line {number}", orjson.loads(line)))
            except orjson.JSONDecodeError:
                values.append((f"line {number}", None))
    return values


def _csv(data: bytes) -> Iterator[Mapping[str, Any]]:
    limit = csv.field_size_limit(_MAX_FIELD)
    try:
        for record in csv.DictReader(io.StringIO(data.decode(), newline="")):
            yield {name: item for name, item in record.items() if name}
    except (UnicodeDecodeError, csv.Error):
        raise _bad("file", "CSV in UTF-8", "other bytes") from None
    finally:
        csv.field_size_limit(limit)


def _parquet(data: bytes) -> Iterator[Mapping[str, Any]]:
    try:
        table = pq.read_table(pa.BufferReader(data))
    except (pa.ArrowException, OSError):
        raise _bad("file", "Parquet", "a damaged one") from None
    yield from table.to_pylist()


def _event(value: Any, modified: str | None, place: str) -> CapturedEvent:
    if not isinstance(value, dict):
        raise _bad(place, "a JSON object", "something else")
    record = {str(name).lower(): item for name, item in value.items()}
    kind = str(record.get("reqtype", "")).rpartition(".")[2]
    if kind not in _KINDS:
        raise _bad(f"reqType of {place}", "request or response", kind[:40])
    attributes = {
        "specversion": "1.0",
        "type": _TYPE_PREFIX + kind,
        "source": _source(record.get("sourceuri")),
    }
    if modified:
        attributes["time"] = modified
    for name, key in _ATTRIBUTES:
        if value := record.get(key):
            attributes[name] = str(value)
    for name in _DOCUMENTS:
        value = record.get(name)
        if value:
            attributes[name] = value if isinstance(value, str) else orjson.dumps(value).decode()
    if "id" not in attributes:
        raise _bad(f"id of {place}", "a string", "none")
    return CapturedEvent(orjson.dumps(attributes)[:-1], _payload(record.get("bytes"), place))


def _source(value: Any) -> str:
    """Return the agent's address: JSON has the parts of Go's ``url.URL``."""
    if isinstance(value, Mapping):
        parts = {str(name).lower(): str(part or "") for name, part in value.items()}
        host = parts.get("host", "")
        scheme = f"{parts['scheme']}://" if parts.get("scheme") and host else ""
        value = f"{scheme}{host}{parts.get('path', '')}"
    return str(value or "") or "kserve-logger"


def _payload(value: Any, place: str) -> bytes:
    if value is None or value == "":
        return b""
    if isinstance(value, bytes):
        return value
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError, TypeError):
        raise _bad(f"bytes of {place}", "base64", "something else") from None


def _bad(what: str, expected: str, got: str) -> ImportFileError:
    return ImportFileError(what, expected=expected, got=got)
