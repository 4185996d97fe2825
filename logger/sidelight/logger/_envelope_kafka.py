"""Consumed Kafka records in the form of requests to the door, so that there is one archive."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from urllib.parse import quote

import orjson

from sidelight.logger._emitter_event import CapturedEvent, is_embeddable
from sidelight.logger._envelope_topics import header_name, record_attributes

_CONTENT_TYPE: Final = "content-type"
_STRUCTURED: Final = "application/cloudevents"
_ATTRIBUTE: Final = "ce_"
_PLAIN_TYPE: Final = "dev.knative.kafka.event"
_HEAD: Final = b"POST /events HTTP/1.1\r\nContent-Type: %b\r\n\r\n"
_EVENT_TYPE: Final = b"application/cloudevents+json"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumedRecord:
    """One record as a Kafka client hands it over.

    Parameters
    ----------
    topic : str
        Its topic.
    partition, offset : int
        Its place.
    key, value : bytes or None
        None where the record has none.
    headers : sequence of (str, bytes or None)
        In their order.
    timestamp_ms : int or None
        Of the record, milliseconds since 1970 UTC.

    """

    topic: str
    partition: int
    offset: int
    key: bytes | None = None
    value: bytes | None = None
    headers: Sequence[tuple[str, bytes | None]] = ()
    timestamp_ms: int | None = None


def record_request(record: ConsumedRecord) -> tuple[bytes, bytes]:
    r"""Return head and body of the request that stands for a record in the ``events`` journal.

    CloudEvents keep their mode (Kafka protocol binding 1.0.2): a structured one is the body as it
    came, a binary one becomes structured. Plain records get the attributes that their topic and
    headers tell; what nobody knows is an event of type ``dev.knative.kafka.event``, as Knative's
    source would name it. Whatever the record is, nothing is raised.

    Examples
    --------
    >>> headers = [("ce_specversion", b"1.0"), ("ce_type", b"t"), ("ce_id", b"1")]
    >>> record = ConsumedRecord(topic="x", partition=0, offset=7, headers=headers)
    >>> record_request(record)[1]
    b'{"specversion":"1.0","type":"t","id":"1","source":"kafka:x"}'

    """
    headers = {name: _text(value) for name, value in reversed(record.headers)}
    lowered = {name.lower(): value for name, value in headers.items()}
    content_type = lowered.get(_CONTENT_TYPE, "")
    if content_type.lower().startswith(_STRUCTURED):
        # A line break would end the header and begin another.
        safe = "".join(character for character in content_type if character.isprintable())
        return _HEAD % safe.encode(), record.value or b""
    attributes = {
        name.removeprefix(_ATTRIBUTE): value
        for name, value in reversed(lowered.items())
        if name.startswith(_ATTRIBUTE)
    }
    if not attributes:
        attributes = _plain(record, lowered)
    attributes.setdefault("specversion", "1.0")
    attributes.setdefault("source", f"kafka:{quote(record.topic)}")
    if content_type:
        attributes["datacontenttype"] = content_type
    if "time" not in attributes and (time := _time(record.timestamp_ms)):
        attributes["time"] = time
    data = record.value or b""
    event = CapturedEvent(orjson.dumps(attributes)[:-1], data, is_embeddable(data))
    return _HEAD % _EVENT_TYPE, event.member()


def _plain(record: ConsumedRecord, headers: dict[str, str]) -> dict[str, str]:
    named = {header_name(name): value for name, value in headers.items()}
    attributes = record_attributes(record.topic, _text(record.key), named)
    if attributes is None:
        attributes = {"type": _PLAIN_TYPE}
    attributes.pop("contenttype", None)
    # The place is the same at every redelivery, and nothing else need be.
    attributes.setdefault("id", f"{record.topic}/{record.partition}/{record.offset}")
    return attributes


def _time(milliseconds: int | None) -> str | None:
    if milliseconds is None:
        return None
    try:
        moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return None
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _text(value: bytes | None) -> str:
    return (value or b"").decode(errors="replace")
