"""Times of the API: RFC 3339 text outside, microseconds since 1970 UTC inside."""

import re
from datetime import UTC, datetime, timedelta

from sidelight.adapters.errors import QueryError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_FIRST = (datetime.min.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND
_LAST = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND

_PATTERN = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})"
    r"(?:[Tt ]([0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.([0-9]+))?([Zz]|[+-][0-9]{2}:[0-9]{2}))?"
)
_EXPECTED = "a date, or a time with its zone such as 2013-04-01T09:30:00Z (+ is %2B in a URL)"


def parse_time(text: str, what: str) -> int:
    """Read an RFC 3339 time or a date, which means its first moment in UTC.

    Returns
    -------
    int
        Microseconds since 1970 UTC; finer digits are cut.

    Raises
    ------
    QueryError
        If it is neither; ``what`` names the parameter.

    Examples
    --------
    >>> parse_time("1970-01-02", "from")
    86400000000

    """
    match = _PATTERN.fullmatch(text)
    if match is None:
        raise QueryError(what, expected=_EXPECTED, got=ascii(text[:40]))
    date, clock, fraction, zone = match.groups()
    digits = ((fraction or "") + "000000")[:6]
    zone = "+00:00" if zone in {None, "Z", "z"} else zone
    try:
        moment = datetime.fromisoformat(f"{date}T{clock or '00:00:00'}.{digits}{zone}")
    except ValueError as error:
        raise QueryError(what, expected=_EXPECTED, got=f"{text!a} ({error})") from None
    return (moment - _EPOCH) // _MICROSECOND


def format_time(microseconds: int) -> str:
    """Return RFC 3339 in UTC with six digits, which sort as text.

    Examples
    --------
    >>> format_time(86400000001)
    '1970-01-02T00:00:00.000001Z'

    """
    inside = min(max(microseconds, _FIRST), _LAST)
    moment = (_EPOCH + timedelta(microseconds=inside)).replace(tzinfo=None)
    return moment.isoformat(timespec="microseconds") + "Z"


def timestamp_sql(microseconds: int) -> str:
    """Return a DuckDB literal; one instead of a parameter lets it skip files by their statistics.

    Examples
    --------
    >>> timestamp_sql(0)
    "TIMESTAMPTZ '1970-01-01T00:00:00.000000+00'"

    """
    return f"TIMESTAMPTZ '{format_time(microseconds)[:-1]}+00'"
