"""One CloudEvent as it was received."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

EventKind = Literal["request", "response", "feedback", "other"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RawRef:
    """Where the bytes of an event stand in the events journal.

    Parameters
    ----------
    partition : int
        Of the events journal; 0 on the embedded engine.
    position : int
        Number of the record in its partition, from 0.
    index : int
        Number of the member in a batch, from 0; 0 for a single event.

    Examples
    --------
    >>> str(RawRef(partition=0, position=17, index=2))
    '0-17-2'
    >>> RawRef.parse("0-17-2").position
    17

    """

    partition: int
    position: int
    index: int = 0

    def __str__(self) -> str:
        return f"{self.partition}-{self.position}-{self.index}"

    @classmethod
    def parse(cls, text: str) -> "RawRef":
        """Read the text form; raise ``ValueError`` when it is none."""
        partition, position, index = (int(part) for part in text.split("-"))
        return cls(partition=partition, position=position, index=index)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One CloudEvent (CloudEvents 1.0.2, section 3) with the place where its bytes are kept.

    Parameters
    ----------
    id, source, type, specversion : str
        The required attributes. ``id`` is made from the place of the record when the sender
        left it out (``id_missing``).
    time : str or None
        Occurrence time as sent, RFC 3339; None when the sender gave none.
    datacontenttype : str or None
        As sent. KServe's agent copies the request's onto the response, so it is only a hint.
    extensions : mapping of str to str
        Every other attribute, by its lower-case name.
    data : bytes
        The payload, byte for byte, before any decompression.
    received_ns : int
        Receive time of the journal, nanoseconds since 1970 UTC.
    ref : RawRef
        Where the event stands in the events journal.
    dead_letter : bool
        Whether it came through the dead-letter route of a broker.

    """

    id: str
    source: str
    type: str
    specversion: str = "1.0"
    time: str | None = None
    datacontenttype: str | None = None
    extensions: Mapping[str, str] = field(default_factory=dict)
    data: bytes = b""
    received_ns: int = 0
    ref: RawRef = RawRef(partition=0, position=0)
    dead_letter: bool = False
    id_missing: bool = False
