"""Rows of a table as events: each row is one inference, with its labels behind it."""

import base64
import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import orjson

from sidelight.logger import CapturedEvent
from sidelight.service.errors import BadRequest, ConfigurationError

_TYPES: Final = "org.kubeflow.serving.inference."
_FEEDBACK: Final = "io.sidelight.feedback"
_SOURCE: Final = "sidelight-import"
_MAX_INT64: Final = 1 << 63
_INTEGER: Final = "INT64"
_FLOAT: Final = "FP64"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECONDS: Final = 1_000_000
# Seconds, milliseconds, microseconds, nanoseconds.
_PER_SECOND: Final = (1, 10**3, 10**6, 10**9)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapped:
    """What the columns of a table are.

    Parameters
    ----------
    deployment : str
        ``namespace/name`` of every row.
    features : tuple of str
        Columns that were asked with; empty for all that are nothing else.
    outputs : tuple of str
        Columns that were answered.
    labels : tuple of str
        Columns that became known later.
    request_id, time, version : str or None
        Columns with the id, the time (RFC 3339, or a number since 1970) and the model version.

    Raises
    ------
    ConfigurationError
        When a column is named twice, or the deployment is no ``namespace/name``.

    """

    deployment: str
    features: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    request_id: str | None = None
    time: str | None = None
    version: str | None = None

    def __post_init__(self) -> None:
        namespace, slash, name = self.deployment.partition("/")
        if not (namespace and slash and name):
            raise ConfigurationError(f"--deployment: expected NS/NAME, got {self.deployment!r}")
        named = [*self.features, *self._others()]
        if twice := sorted({column for column in named if named.count(column) > 1}):
            raise ConfigurationError(f"column {twice[0]}: expected one use of it, got two")

    def _others(self) -> list[str]:
        single = (self.request_id, self.time, self.version)
        return [*self.outputs, *self.labels, *(column for column in single if column)]

    def features_of(self, columns: list[str]) -> tuple[str, ...]:
        """Return the features among the columns of a table; raise for a column that it has not."""
        missing = [name for name in (*self.features, *self._others()) if name not in columns]
        if missing:
            raise ConfigurationError(
                f"column {missing[0]}: expected one of {', '.join(columns[:20])}, got none of it"
            )
        others = set(self._others())
        found = self.features or tuple(name for name in columns if name not in others)
        if not found:
            raise ConfigurationError("the table has no column left for a feature")
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """What the columns of a table hold, over all its rows.

    Parameters
    ----------
    features, outputs : mapping of column to datatype
        The datatype of the protocol V2; empty where values have several.

    """

    features: Mapping[str, str]
    outputs: Mapping[str, str]

    @classmethod
    def of(cls, rows: Iterable[Mapping[str, Any]], mapped: Mapped) -> "Table":
        """Read a table to its end.

        Raises
        ------
        BadRequest
            When a value cannot be what its column is.
        ConfigurationError
            When no row has a column that is named.

        """
        found: dict[str, set[str]] = {}
        for number, row in enumerate(rows):
            for column, value in row.items():
                kinds = found.setdefault(column, set())
                if value is not None and (plain := _plain(value)) is not None:
                    kinds.add(_datatype(plain))
            if mapped.time:
                _time(row.get(mapped.time), number)
        features = mapped.features_of(list(found)) if found else ()
        return cls(
            features={name: _common(found[name]) for name in features},
            outputs={name: _common(found[name]) for name in mapped.outputs if found},
        )


def row_events(
    rows: Iterable[Mapping[str, Any]], mapped: Mapped, table: Table, *, digest: bytes
) -> Iterator[CapturedEvent]:
    """Return request, response and labels of each row.

    Parameters
    ----------
    rows : iterable of mappings
        Values by column; what a row has not is null.
    mapped : Mapped
        What the columns are.
    table : Table
        What they hold.
    digest : bytes
        Of the file: ids derive from it where no column has them, so that a second import changes
        nothing.

    """
    prefix = hashlib.blake2b(digest, digest_size=8).hexdigest()
    namespace, _, name = mapped.deployment.partition("/")
    for number, row in enumerate(rows):
        given = row.get(mapped.request_id) if mapped.request_id else None
        request_id = str(given) if given not in (None, "") else f"{prefix}-{number}"
        shared: dict[str, str] = {
            "specversion": "1.0",
            "source": _SOURCE,
            "id": request_id,
            "namespace": namespace,
            "inferenceservicename": name,
            "datacontenttype": "application/json",
        }
        if mapped.time and (time := _time(row.get(mapped.time), number)):
            shared["time"] = time
        if mapped.version and row.get(mapped.version) is not None:
            shared["modelversion"] = str(row[mapped.version])
        yield _event(shared, "request", {"inputs": _tensors(row, table.features)})
        if mapped.outputs:
            answer = {"model_name": name, "outputs": _tensors(row, table.outputs)}
            yield _event(shared, "response", answer)
        labels = {
            label: value for label in mapped.labels if (value := _plain(row.get(label))) is not None
        }
        if labels:
            yield _feedback(shared, request_id, mapped.deployment, labels)


def _event(shared: dict[str, str], kind: str, payload: object) -> CapturedEvent:
    attributes = orjson.dumps({**shared, "type": _TYPES + kind})[:-1]
    return CapturedEvent(attributes, orjson.dumps(payload), is_embedded=True)


def _feedback(
    shared: dict[str, str], request_id: str, deployment: str, labels: dict[str, Any]
) -> CapturedEvent:
    # Another id than the inference's: it is another event.
    attributes = {**shared, "type": _FEEDBACK, "id": f"{request_id}-labels"}
    item = {"deployment": deployment, "request_id": request_id, "row": 0, "labels": labels}
    if "time" in shared:
        item["time"] = shared["time"]
    return CapturedEvent(orjson.dumps(attributes)[:-1], orjson.dumps(item), is_embedded=True)


def _tensors(row: Mapping[str, Any], columns: Mapping[str, str]) -> list[dict[str, Any]]:
    tensors = []
    for column, known in columns.items():
        value = _plain(row.get(column))
        datatype = known or _datatype(value)
        if datatype == _FLOAT and isinstance(value, int):
            value = float(value)
        tensors.append({"name": column, "shape": [1], "datatype": datatype, "data": [value]})
    return tensors


def _common(datatypes: set[str]) -> str:
    """Return the datatype of a column; empty when each value has its own."""
    if len(datatypes) == 1:
        return next(iter(datatypes))
    # Null has no type of its own.
    return _FLOAT if not datatypes or datatypes == {_INTEGER, _FLOAT} else ""


def _datatype(value: object) -> str:
    match value:
        case bool():
            return "BOOL"
        case int():
            return _INTEGER if -_MAX_INT64 <= value < _MAX_INT64 else "UINT64"
        case str():
            return "BYTES"
        case _:
            return _FLOAT


def _plain(value: Any) -> Any:
    """Return a value as JSON has it; what is missing or not finite is null."""
    match value:
        case float() if not math.isfinite(value):
            return None
        case None | bool() | int() | float() | str():
            return value
        case Decimal():
            return _number(value)
        case _:
            return _text(value)


def _number(value: Decimal) -> float | None:
    if not value.is_finite():
        return None
    whole = int(value)
    return whole if whole == value and -_MAX_INT64 <= whole < _MAX_INT64 else float(value)


def _text(value: Any) -> str:
    match value:
        case datetime() | date():
            return value.isoformat()
        case bytes():
            try:
                return value.decode()  # text, of a writer that did not say so
            except UnicodeDecodeError:
                return base64.b64encode(value).decode()
        case list() | dict():
            return orjson.dumps(value, default=_plain, option=orjson.OPT_NON_STR_KEYS).decode()
        case _:
            return str(value)


def _time(value: Any, number: int) -> str | None:
    match value:
        case None | "":
            return None
        case datetime():
            aware = value if value.tzinfo else value.replace(tzinfo=UTC)
            return aware.isoformat()
        case date():
            return datetime(value.year, value.month, value.day, tzinfo=UTC).isoformat()
        case int() | float() if not isinstance(value, bool):
            if (moment := _moment(value)) is not None:
                return moment.isoformat()
        case str():
            try:
                read = datetime.fromisoformat(value)
            except ValueError:
                pass
            else:
                return (read if read.tzinfo else read.replace(tzinfo=UTC)).isoformat()
    raise BadRequest(
        f"row {number}: the time cannot be read: expected RFC 3339, or a number since 1970, "
        f"got {type(value).__name__}"
    )


def _moment(since_1970: float) -> datetime | None:
    """Return the moment of a number of seconds, or of the largest smaller unit that it can be."""
    for per_second in _PER_SECOND:
        # Whole numbers of nanoseconds have more digits than a float.
        microseconds = since_1970 * _MICROSECONDS
        if isinstance(since_1970, int):
            microseconds //= per_second
        else:
            microseconds /= per_second
        try:
            return _EPOCH + timedelta(microseconds=microseconds)
        except (ValueError, OverflowError):
            continue
    return None
