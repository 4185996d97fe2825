"""Where a captured event is filed, from names that nobody has checked."""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import lru_cache
from typing import Any, Final
from urllib.parse import quote, unquote

import orjson

from sidelight.logger import CapturedEvent

# Hive's name for "no value"; every reader of such folders knows it.
_NONE: Final = "__HIVE_DEFAULT_PARTITION__"
# A name in a folder has at most 255 bytes; "deployment=" is a part of it.
_MAX_QUOTED: Final = 200
_DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_DAY_LENGTH: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What the events of one file share.

    Parameters
    ----------
    namespace, name : str
        The deployment, as sent.
    date : str
        Day of the event's time in UTC, ``2026-01-31``; empty when it has no readable time.

    """

    namespace: str
    name: str
    date: str

    def folder(self) -> str:
        """Return the path of its folder, with ``/``; no name can leave it.

        Examples
        --------
        >>> Place(namespace="prod", name="../a b", date="2026-01-31").folder()
        'namespace=prod/deployment=..%2Fa%20b/date=2026-01-31'

        """
        return (
            f"namespace={_folder_name(self.namespace)}/deployment={_folder_name(self.name)}"
            f"/date={self.date or _NONE}"
        )


def place_of(event: CapturedEvent) -> Place:
    """Return where an event belongs."""
    attributes: Mapping[str, Any] = orjson.loads(event.attributes + b"}")
    name = attributes.get("inferenceservicename") or attributes.get("modelname") or ""
    return Place(
        namespace=str(attributes.get("namespace", "")),
        name=str(name),
        date=_day(str(attributes.get("time", ""))),
    )


def places(events: Iterable[CapturedEvent]) -> dict[Place, list[CapturedEvent]]:
    """Return the events by their places; each keeps its order."""
    found: dict[Place, list[CapturedEvent]] = {}
    for event in events:
        found.setdefault(place_of(event), []).append(event)
    return found


def file_name(events: Sequence[CapturedEvent], ending: str) -> str:
    """Return a name that derives from the first event.

    A delivery that is repeated begins with the same event, though it may have grown since: under
    the same name it replaces what the first attempt has left.

    Examples
    --------
    >>> file_name([CapturedEvent(b'{"id":"1","time":"2026-01-31T10:20:30Z"', b"")], "parquet")
    '20260131T102030-c6949c63f8883a794ec88534.parquet'

    """
    first = events[0]
    digest = hashlib.blake2b(digest_size=12)
    for part in (len(first.attributes).to_bytes(8, "big"), first.attributes, first.data):
        digest.update(part)
    time = read_time(str(orjson.loads(first.attributes + b"}").get("time", "")))
    stamp = "undated" if time is None else time.strftime("%Y%m%dT%H%M%S")
    return f"{stamp}-{digest.hexdigest()}.{ending}"


def read_time(text: str) -> datetime | None:
    """Return a time in UTC, or None when the text is none."""
    try:
        time = datetime.fromisoformat(text)
        return None if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _day(text: str) -> str:
    # Cheap for what we write ourselves: all events of a day share its ten characters.
    if text.endswith("Z") and text[_DAY_LENGTH:].startswith("T"):
        return _checked_day(text[:_DAY_LENGTH])
    time = read_time(text)
    return "" if time is None else time.date().isoformat()


@lru_cache(maxsize=1024)
def _checked_day(text: str) -> str:
    try:
        return date.fromisoformat(text).isoformat() if _DAY.fullmatch(text) else ""
    except ValueError:
        return ""


@lru_cache(maxsize=4096)
def _folder_name(name: str) -> str:
    quoted = quote(name, safe="", errors="replace") or _NONE
    if len(quoted) <= _MAX_QUOTED:
        return quoted
    # Cut between characters, never inside an escape or between the bytes of one.
    digest = hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()[:32]
    escapes = re.sub(r"%[0-9A-F]?\Z", "", quoted[: _MAX_QUOTED - len(digest) - 1])
    kept = quote(unquote(escapes, errors="ignore"), safe="")
    return f"{kept}~{digest}"
