"""CloudEvents over HTTP, as they stand in the events journal: binary, structured and batched.

The rules are those of the HTTP protocol binding 1.0.2 with what the platforms really send:
KServe's agent writes ids and JSON extensions without percent-encoding and copies the caller's
Content-Type onto its events, so that complete attributes of a known type win over a structured
media type.
"""

import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Final

from sidelight.logger._arrival import Arrival
from sidelight.logger._envelope_head import Head, read_head
from sidelight.logger._envelope_inflate import InflateError, inflate, inflated_json
from sidelight.logger._envelope_json import scan_batch, scan_structured
from sidelight.logger._envelope_member import (
    KAFKA_SOURCE_TYPE,
    EventLimits,
    Place,
    Rejected,
    build_event,
)
from sidelight.logger._envelope_record import RECORDS_ROUTE, parse_record
from sidelight.logger._envelope_template import HeadTemplates
from sidelight.logger._identity import is_known_type
from sidelight.logger._journal import EventRecord
from sidelight.logger.errors import EnvelopeError
from sidelight.payloads import Event

_DEFAULTS: Final = EventLimits()
_DEAD_LETTER: Final = "/dead-letter"
_BATCH: Final = "application/cloudevents-batch"
_STRUCTURED: Final = "application/cloudevents"
_JSON_FORMATS: Final = ("", "+json")
_REQUIRED: Final = ("specversion", "type", "source", "id")

# Of known types: what a caller or a selected header chose, written raw by the senders.
_VERBATIM: Final = frozenset({"id", "requestid", "metadata", "annotations"})
_ENCODED: Final = re.compile("(?:%[0-9A-Fa-f]{2})+")
_ESCAPED: Final = re.compile(r"\\(.)")

_templates: Final = HeadTemplates()


def parse(
    record: EventRecord, limits: EventLimits | None = None
) -> tuple[list[Event], list[Rejected]]:
    """Return the events of one request to the door, and what of it is no event.

    Parameters
    ----------
    record : EventRecord
        Request line, headers and body as they came.
    limits : EventLimits, optional
        Bounds for what was inflated and for attributes.

    Returns
    -------
    events : list of Event
        In the order of the request; a batch may hold any number.
    rejected : list of Rejected
        Bad members of a batch, or the request itself. Whatever the bytes are, nothing is raised.

    """
    found, rejected = scan((record,), limits)
    return [item.event() if isinstance(item, Arrival) else item for item in found], rejected


def scan(
    records: Iterable[EventRecord], limits: EventLimits | None = None
) -> tuple[list[Event | Arrival], list[Rejected]]:
    """Return what ``parse`` does, of many records: halves of known senders as arrivals."""
    limits = limits or _DEFAULTS
    events: list[Event | Arrival] = []
    rejected: list[Rejected] = []
    known = _templates.arrival
    for record in records:
        arrival = known(record, limits)
        if arrival is not None:
            events.append(arrival)
            continue
        found, bad = _scanned(record, limits)
        events += found
        rejected += bad
    return events, rejected


def _scanned(
    record: EventRecord, limits: EventLimits
) -> tuple[Sequence[Event | Arrival], list[Rejected]]:
    head = read_head(record.head)
    place = Place(
        partition=record.partition,
        position=record.position,
        received_ns=record.received_ns,
        dead_letter=head.path == _DEAD_LETTER or head.path.startswith(_DEAD_LETTER + "/"),
    )
    try:
        if head.path == RECORDS_ROUTE:
            return [parse_record(record.body, head.content_encoding, place, limits)], []
        return _by_mode(head, record, place, limits)
    except EnvelopeError as error:
        return [], [place.rejected(0, error)]


def _by_mode(
    head: Head, record: EventRecord, place: Place, limits: EventLimits
) -> tuple[Sequence[Event | Arrival], list[Rejected]]:
    media_type = head.content_type.partition(";")[0].strip().lower()
    if not media_type.startswith(_STRUCTURED) or _is_known_binary(head.attributes):
        # Taken apart by reading it.
        repeats = not head.content_encoding and head.attributes.get("type") != KAFKA_SOURCE_TYPE
        event = _binary(head, record.body, place, limits)
        if repeats:
            _templates.learn_head(record.head, event)
        return [event], []
    is_batch = media_type.startswith(_BATCH)
    if media_type.removeprefix(_BATCH if is_batch else _STRUCTURED) not in _JSON_FORMATS:
        raise EnvelopeError("content-type", expected="a JSON event format", got=media_type[:80])
    try:
        text = inflated_json(
            record.body, head.content_encoding, max_bytes=limits.max_inflated_bytes
        )
    except InflateError as error:
        raise EnvelopeError("body", expected=error.expected, got=error.got) from None
    if is_batch:
        return scan_batch(text, place, limits)
    return [scan_structured(text, place, limits)], []


def _is_known_binary(attributes: dict[str, str]) -> bool:
    if not all(attributes.get(name) for name in _REQUIRED):
        return False
    return is_known_type(attributes["type"])


def _binary(head: Head, body: bytes, place: Place, limits: EventLimits) -> Event:
    raw = head.attributes
    if "type" not in raw and not any(name in raw for name in _REQUIRED):
        got = f"content-type {head.content_type[:80]}" if head.content_type else "neither"
        raise EnvelopeError("request", expected="ce- headers or a CloudEvents body", got=got)
    data = body
    if head.content_encoding:
        # A payload that cannot be inflated stays: the decoding says what it is, and counts it.
        with suppress(InflateError):
            data = inflate(body, head.content_encoding, max_bytes=limits.max_inflated_bytes)
    known = is_known_type(raw.get("type", ""))
    attributes = raw
    if head.is_encoded:
        attributes = {
            name: value if known and name in _VERBATIM else _unquoted(name, value, lenient=known)
            for name, value in raw.items()
        }
    if head.content_type:
        attributes["datacontenttype"] = head.content_type
    return build_event(attributes, data, place, 0, limits)


def _unquoted(name: str, value: str, *, lenient: bool) -> str:
    """Undo quoting and percent-encoding (CloudEvents HTTP binding 3.1.3.2)."""
    text = value
    if len(text) > 1 and text[0] == text[-1] == '"':
        text = _ESCAPED.sub(r"\1", text[1:-1])
    try:
        return _ENCODED.sub(_percent_decoded, text)
    except UnicodeDecodeError:
        if lenient:
            return value
        raise EnvelopeError(
            f"ce-{name}", expected="percent-encoded UTF-8", got=value[:80]
        ) from None


def _percent_decoded(match: re.Match[str]) -> str:
    return bytes.fromhex(match.group().replace("%", "")).decode()
