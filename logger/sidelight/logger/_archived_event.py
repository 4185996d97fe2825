"""One event as it lies in the archive: the request that it came in, and its own bytes of it."""

from dataclasses import dataclass
from typing import Final

import msgspec

from sidelight.logger._envelope import parse
from sidelight.logger._envelope_head import Head, read_head
from sidelight.logger._envelope_inflate import InflateError, inflate
from sidelight.logger._envelope_member import EventLimits
from sidelight.logger._envelope_record import RECORDS_ROUTE
from sidelight.logger._envelope_split import split_array
from sidelight.logger._identity import is_known_type
from sidelight.logger._journal import EventRecord
from sidelight.logger.errors import EnvelopeError
from sidelight.payloads import Event

_BATCH: Final = "application/cloudevents-batch"
_REQUIRED: Final = ("specversion", "type", "source", "id")
_MEMBERS: Final = msgspec.json.Decoder(list[msgspec.Raw])


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchivedEvent:
    """An event with the bytes around it.

    Parameters
    ----------
    event : Event
        Its payload is ``event.data``: what the model was asked or answered.
    head : bytes
        Request line and headers of the request that it came in; of a batch those of the whole.
    body : bytes
        The body of that request; of a batch the bytes of this member alone, since the others may
        be of other deployments.
    is_member : bool
        Whether it came in a batch.

    """

    event: Event
    head: bytes
    body: bytes
    is_member: bool


def archived_event(
    record: EventRecord, index: int, limits: EventLimits | None = None
) -> ArchivedEvent | None:
    """Return one event of a record, or None when there is none of that number in it."""
    limits = limits or EventLimits()
    event = next((item for item in parse(record, limits)[0] if item.ref.index == index), None)
    if event is None:
        return None
    head = read_head(record.head)
    if not _is_batch(head):
        return ArchivedEvent(event=event, head=record.head, body=record.body, is_member=False)
    try:
        text = inflate(record.body, head.content_encoding, max_bytes=limits.max_inflated_bytes)
        member = _members(text)[index]
    except (InflateError, EnvelopeError, IndexError):
        return None
    return ArchivedEvent(event=event, head=record.head, body=member, is_member=True)


def _is_batch(head: Head) -> bool:
    """Return whether the events of a request are the members of a batch, as the parser decides."""
    attributes = head.attributes
    if head.path == RECORDS_ROUTE or not head.content_type.strip().lower().startswith(_BATCH):
        return False
    is_complete = all(attributes.get(name) for name in _REQUIRED)
    return not (is_complete and is_known_type(attributes["type"]))


def _members(text: bytes) -> list[bytes]:
    try:
        return [bytes(member) for member in _MEMBERS.decode(text)]
    except (ValueError, RecursionError):
        return split_array(text)
