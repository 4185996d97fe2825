"""What labels are checked for, and by what time one replaces another."""

import json
from datetime import UTC, datetime

_LONG_AGO = datetime.min.replace(tzinfo=UTC)


def instant(time: str) -> tuple[datetime, str]:
    """Return what times of labels are compared by: the moment, then the text.

    Texts alone would put ``12:00:00Z`` behind ``12:00:00.5Z``, and know no offsets. What is no
    time is older than everything.

    Examples
    --------
    >>> instant("2013-01-01T02:00:00+02:00") < instant("2013-01-01T00:00:00.5Z")
    True

    """
    try:
        moment = datetime.fromisoformat(time)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC), time
    except (ValueError, OverflowError):
        return _LONG_AGO, time


def is_time(text: str) -> bool:
    """Whether a text names a moment, as RFC 3339 does."""
    return instant(text)[0] != _LONG_AGO


def is_text(value: object) -> bool:
    r"""Whether every text in a JSON value can be written as UTF-8, which half a surrogate cannot.

    Examples
    --------
    >>> is_text({"y": "\ud800"})
    False

    """
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True
