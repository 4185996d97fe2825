"""An event that was recognised: what is its own, and who sent it.

Most events of a sender differ in an id, a time and their payload. An ``Arrival`` holds these and
nothing that the garbage collector would walk through; the ``Event`` is made of it only where
somebody asks for one.
"""

import hashlib
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from sidelight.logger._identity import Identity, identity, identity_digest, kind_of
from sidelight.logger._pairing_state import Side
from sidelight.payloads import Event, RawRef

_SELDON: Final = "io.seldon."
_MAX_VALUE_CHARS: Final = 256


class Sender:
    """What all events of one sender say alike.

    Parameters
    ----------
    event : Event
        One of its halves, whose request id is one of the names.
    names : sequence of str
        The attributes that each event has for itself, in the order of ``Arrival.values``; ``id``
        is one of them.

    Attributes
    ----------
    side : "request" or "response"
        Which half of an inference it sends.
    deployment : str
        ``namespace/name``.
    places : dict of str to int
        Where each of ``names`` stands in the values.
    longest : int
        Characters that an attribute can have.

    """

    __slots__ = (
        *("_arguments", "_extensions", "_id"),
        *("deployment", "identity", "is_request", "longest", "names", "places"),
        *("request_place", "seed", "side"),
    )

    is_learned: Final = True

    def __init__(self, event: Event, names: Sequence[str], side: Side) -> None:
        self.side: Side = side
        self.is_request = side == "request"
        self.names = tuple(names)
        self.places = {name: place for place, name in enumerate(names)}
        # Of several types, as the fields of an event are.
        self._arguments: dict[str, Any] = {
            "source": event.source,
            "type": event.type,
            "specversion": event.specversion,
            "datacontenttype": event.datacontenttype,
            "dead_letter": event.dead_letter,
        }
        said = (event.source, event.type, event.specversion, event.datacontenttype or "")
        self.longest = max(_MAX_VALUE_CHARS, *map(len, (*said, *event.extensions.values())))
        # In the order of the sender, with places for what is taken out again.
        self._extensions = {**event.extensions, "id": ""}
        self.identity = identity(event)._replace(request_id="")
        self.deployment = self.identity.deployment
        # Where Seldon's own is empty, the event is read thoroughly.
        asks = event.type.startswith(_SELDON) and "requestid" in event.extensions
        self._id = self.places["id"]
        self.request_place = self.places["requestid"] if asks else self._id
        self.seed = hashlib.blake2b(self.identity.prefix, digest_size=16)

    def digest(self, values: tuple[bytes, ...]) -> bytes | None:
        """Return ``identity_digest`` of the event with these values; None without an id."""
        request_id = values[self.request_place]
        if not request_id or not values[self._id]:
            return None
        digest = self.seed.copy()
        digest.update(request_id)
        return digest.digest()

    def request_id(self, arrival: "Arrival") -> bytes:
        """Return the request id of an event."""
        return arrival.values[self.request_place]

    def key(self, arrival: "Arrival") -> Identity:
        """Return ``identity`` of the event."""
        return self.identity._replace(request_id=self.request_id(arrival).decode())

    def event(self, arrival: "Arrival") -> Event:
        """Return the event that thorough reading gives."""
        values = zip(self.names, map(bytes.decode, arrival.values), strict=True)
        extensions = self._extensions | dict(values)
        return Event(
            id=extensions.pop("id"),
            time=extensions.pop("time", None) or None,
            extensions=extensions,
            data=arrival.data,
            received_ns=arrival.received_ns,
            ref=arrival.ref,
            **self._arguments,
        )


class OneEvent:
    """The sender of an event that was read thoroughly: of this one alone."""

    __slots__ = ("_event", "deployment", "identity", "is_request", "side")

    is_learned: Final = False

    def __init__(self, event: Event, key: Identity, side: Side) -> None:
        self._event = event
        self.identity = key
        self.deployment = key.deployment
        self.side: Side = side
        self.is_request = side == "request"

    def request_id(self, arrival: "Arrival") -> bytes:  # noqa: ARG002 - as of ``Sender``
        """Return the request id of the event."""
        return self.identity.request_id.encode("utf-8", "surrogatepass")

    def key(self, arrival: "Arrival") -> Identity:  # noqa: ARG002 - as of ``Sender``
        """Return ``identity`` of the event."""
        return self.identity

    def event(self, arrival: "Arrival") -> Event:  # noqa: ARG002 - as of ``Sender``
        """Return the event."""
        return self._event


class Arrival(msgspec.Struct, gc=False):
    """One half of an inference as it came.

    Parameters
    ----------
    sender : Sender or OneEvent
        What it has in common with others.
    digest : bytes
        ``identity_digest``, 16 bytes.
    values : tuple of bytes
        ASCII without quotes, backslashes, percent and control characters: ``sender.names``.
    data : bytes
        The payload, byte for byte.
    received_ns, partition, position, index : int
        As of ``Event`` and its reference.
    content : bytes
        A digest of the data, once pairing needs one.

    """

    sender: Sender | OneEvent
    digest: bytes
    values: tuple[bytes, ...]
    data: bytes
    received_ns: int
    partition: int
    position: int
    index: int
    content: bytes = b""

    @property
    def side(self) -> Side:
        """Which half of an inference it is."""
        return self.sender.side

    @property
    def ref(self) -> RawRef:
        """Where the event stands in the events journal."""
        return RawRef(partition=self.partition, position=self.position, index=self.index)

    @property
    def request_id(self) -> bytes:
        """The request id as it was sent."""
        return self.sender.request_id(self)

    @property
    def key(self) -> Identity:
        """What it shares with its other half."""
        return self.sender.key(self)

    def event(self) -> Event:
        """Return the event."""
        return self.sender.event(self)


def arrival_of(event: Event) -> Arrival | None:
    """Return an event that was read thoroughly; None when it is no half of an inference."""
    kind = kind_of(event.type)
    if kind != "request" and kind != "response":  # noqa: PLR1714 - narrows the type
        return None
    key = identity(event)
    return Arrival(
        sender=OneEvent(event, key, kind),
        digest=identity_digest(key),
        values=(),
        data=event.data,
        received_ns=event.received_ns,
        partition=event.ref.partition,
        position=event.ref.position,
        index=event.ref.index,
    )
