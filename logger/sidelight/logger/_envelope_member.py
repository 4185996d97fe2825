"""From the attributes of one event to the event, or to the reason why it is none."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from sidelight.logger._envelope_topics import record_attributes
from sidelight.logger._identity import is_known_type
from sidelight.logger.errors import EnvelopeError
from sidelight.payloads import Event, RawRef

Attributes = dict[str, str]

KAFKA_SOURCE_TYPE: Final = "dev.knative.kafka.event"
_KAFKA_HEADER: Final = "kafkaheader"
_SHOWN: Final = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class EventLimits:
    """Bounds of what the parser makes of a request.

    Parameters
    ----------
    max_inflated_bytes : int, default 64 MiB
        Size of a body behind its Content-Encoding.
    max_attribute_chars : int, default 65,536
        Length of one attribute; headers are bounded by the door already.

    """

    max_inflated_bytes: int = 64 << 20
    max_attribute_chars: int = 64 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """A request, or a member of a batch, that is no event; its bytes stay in the journal.

    Parameters
    ----------
    ref : RawRef
        Where the bytes stand.
    index : int
        Number in the batch, from 0.
    reason : str
        The attribute or the part that is wrong: ``type``, ``body``, ``member`` ...
    expected, got : str
        For the quarantine document; at most 80 characters of what was sent.
    n : int, default 1
        How many members of the request it stands for; the others come later in it.

    """

    ref: RawRef
    index: int
    reason: str
    expected: str
    got: str
    n: int = 1


class Place(NamedTuple):
    """The record that an event came in."""

    partition: int
    position: int
    received_ns: int
    dead_letter: bool = False

    def ref(self, index: int) -> RawRef:
        """Return the reference of one member."""
        return RawRef(partition=self.partition, position=self.position, index=index)

    def rejected(self, index: int, error: EnvelopeError) -> Rejected:
        """Return why one member is none."""
        return Rejected(
            ref=self.ref(index),
            index=index,
            reason=error.what,
            expected=error.expected,
            got=error.got,
        )


def build_event(
    attributes: Attributes, data: bytes, place: Place, index: int, limits: EventLimits
) -> Event:
    """Check the required attributes and return the event, which keeps the mapping.

    Raises
    ------
    EnvelopeError
        When ``type``, ``source`` or ``specversion`` is missing, or ``id`` of an unknown type, or
        an attribute is longer than the bound.

    """
    if attributes.get("type") == KAFKA_SOURCE_TYPE:
        attributes = _unwrapped(attributes)
    if max(map(len, attributes.values()), default=0) > limits.max_attribute_chars:
        _refuse_long(attributes, limits)
    # The mapping is ours: what is left when the context attributes are taken are extensions.
    take = attributes.pop
    event_id = take("id", "")
    event_type, source, specversion = take("type", ""), take("source", ""), take("specversion", "")
    if not (event_type and source and specversion):
        named = {"specversion": specversion, "type": event_type, "source": source}
        missing = next(name for name, value in named.items() if not value)
        raise EnvelopeError(missing, expected="a non-empty attribute", got="none")
    if not event_id and not is_known_type(event_type):
        raise EnvelopeError("id", expected="a non-empty attribute", got="none")
    ref = place.ref(index)
    return Event(
        id=event_id or f"missing-{ref}",
        source=source,
        type=event_type,
        specversion=specversion,
        time=take("time", None) or None,
        datacontenttype=take("datacontenttype", None),
        extensions=attributes,
        data=data,
        received_ns=place.received_ns,
        ref=ref,
        dead_letter=place.dead_letter,
        id_missing=not event_id,
    )


def _refuse_long(attributes: Mapping[str, str], limits: EventLimits) -> None:
    for name, value in attributes.items():
        if len(value) > limits.max_attribute_chars:
            raise EnvelopeError(
                name[:_SHOWN],
                expected=f"at most {limits.max_attribute_chars} characters",
                got=f"{len(value)}",
            )


def _unwrapped(attributes: Attributes) -> Attributes:
    """Give an event that Knative's KafkaSource wrapped the attributes of the record."""
    headers = {
        name.removeprefix(_KAFKA_HEADER): value
        for name, value in attributes.items()
        if name.startswith(_KAFKA_HEADER)
    }
    topic = attributes.get("source", "").rpartition("#")[2]
    key = attributes.get("key") or attributes.get("partitionkey", "")
    return attributes | (record_attributes(topic, key, headers) or {})
