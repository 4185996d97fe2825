"""Values of tables that are imported: as JSON has them, as ids, as times."""

import base64
import math
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import orjson

from sidelight.service.errors import BadRequest

_MAX_INT64: Final = 1 << 63
_INTEGER: Final = "INT64"
FLOAT: Final = "FP64"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECONDS: Final = 1_000_000
# Seconds, milliseconds, microseconds, nanoseconds.
_PER_SECOND: Final = (1, 10**3, 10**6, 10**9)


def common_datatype(datatypes: set[str]) -> str:
    """Return the datatype of a column; empty when each value has its own."""
    if len(datatypes) == 1:
        return next(iter(datatypes))
    # Null has no type of its own.
    return FLOAT if not datatypes or datatypes == {_INTEGER, FLOAT} else ""


def datatype_of(value: object) -> str:
    """Return the datatype of a value as the protocol V2 calls it."""
    match value:
        case bool():
            return "BOOL"
        case int():
            return _INTEGER if -_MAX_INT64 <= value < _MAX_INT64 else "UINT64"
        case str():
            return "BYTES"
        case _:
            return FLOAT


def plain_value(value: Any) -> Any:
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
            return orjson.dumps(value, default=plain_value, option=orjson.OPT_NON_STR_KEYS).decode()
        case _:
            return str(value)


def word_of(value: Any) -> str | None:
    """Return an id or a version as text; None when it is missing."""
    match value:
        case None:
            return None
        case float() if not math.isfinite(value):
            return None
        case float() if value.is_integer():
            # Whole numbers of a column with missing ones are floats in many tables.
            return str(int(value))
        case bytes():
            return _text(value)
    return str(value)


def time_of(value: Any, number: int) -> str | None:
    """Return a time as RFC 3339 has it, None when it is missing; raise with the row's number."""
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
