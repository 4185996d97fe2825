"""Heads of a sender that repeats itself: read once, then recognised.

A sender writes the same lines in front of each of its events, but for an id, a time and a few
others. What the constant lines say is remembered, and of a new head only the others are read: half
the time of an event. Whatever is unusual about those is left to the thorough reading, so that
both give the same event.
"""

from typing import Final, NamedTuple

from sidelight.logger._envelope_head import CHANGING, attribute_of
from sidelight.logger._envelope_member import EventLimits
from sidelight.logger._journal import EventRecord
from sidelight.payloads import Event, RawRef

# They say nothing of an event, and are the same each time; so are those of the content.
_CONSTANT: Final = frozenset({b"host", b"user-agent", b"accept", b"accept-encoding", b"connection"})
_WHITE: Final = b" \t"
_MAX_VALUE_BYTES: Final = 256
_MAX_SHAPES: Final = 8
_MAX_TEMPLATES: Final = 1024
# When the heads of a sender are never the same, most of them are not worth a lesson.
_RELUCTANCE: Final = 32

_Lines = tuple[tuple[int, bytes, str], ...]
"""Of each changing line: its number, its name with the colon, its attribute or nothing."""


class _Template(NamedTuple):
    """What constant lines say, with a place for what the others say."""

    source: str
    type: str
    specversion: str
    datacontenttype: str | None
    extensions: dict[str, str]
    dead_letter: bool
    longest: int


class _Shape:
    """Heads whose changing lines stand at the same places."""

    __slots__ = ("changing", "templates")

    def __init__(self, changing: _Lines) -> None:
        self.changing = changing
        self.templates: dict[tuple[bytes, ...], _Template] = {}


class HeadTemplates:
    """The heads that were seen."""

    def __init__(self) -> None:
        self._shapes: dict[int, list[_Shape]] = {}
        self._reluctance = 1
        self._unlearned = 0

    def event(self, record: EventRecord, limits: EventLimits) -> Event | None:
        """Return the event of a binary request; None when its head must be read thoroughly."""
        lines = record.head.split(b"\r\n")
        for shape in self._shapes.get(len(lines), ()):
            values = _taken_out(lines, shape.changing)
            if values is not None:
                break
        else:
            return None
        template = shape.templates.get(tuple(lines))
        if template is None or template.longest > limits.max_attribute_chars or not values["id"]:
            return None
        extensions = template.extensions | values
        return Event(
            id=extensions.pop("id"),
            source=template.source,
            type=template.type,
            specversion=template.specversion,
            time=extensions.pop("time", None) or None,
            datacontenttype=template.datacontenttype,
            extensions=extensions,
            data=record.body,
            received_ns=record.received_ns,
            ref=RawRef(partition=record.partition, position=record.position),
            dead_letter=template.dead_letter,
        )

    def learn(self, head: bytes, event: Event) -> None:
        """Remember the constant lines of a head that was read thoroughly.

        Parameters
        ----------
        head : bytes
            Of a request in binary mode, its body not encoded.
        event : Event
            What was read.

        """
        self._unlearned += 1
        if self._unlearned < self._reluctance or event.id_missing:
            return
        self._unlearned = 0
        lines = head.split(b"\r\n")
        changing = _changing(lines)
        if changing is None or _taken_out(lines, changing) is None:
            return
        said = (event.source, event.type, event.specversion, event.datacontenttype or "")
        shape = self._shape(len(lines), changing)
        if len(shape.templates) >= _MAX_TEMPLATES:
            shape.templates.clear()
            self._reluctance = _RELUCTANCE
        shape.templates[tuple(lines)] = _Template(
            source=event.source,
            type=event.type,
            specversion=event.specversion,
            datacontenttype=event.datacontenttype,
            # In the order of the sender, with places for what is taken out again.
            extensions={**event.extensions, "id": ""},
            dead_letter=event.dead_letter,
            longest=max(_MAX_VALUE_BYTES, *map(len, (*said, *event.extensions.values()))),
        )

    def _shape(self, n_lines: int, changing: _Lines) -> _Shape:
        shapes = self._shapes.setdefault(n_lines, [])
        for shape in shapes:
            if shape.changing == changing:
                return shape
        if len(shapes) >= _MAX_SHAPES:
            shapes.clear()
        shapes.append(_Shape(changing))
        return shapes[-1]


def _changing(lines: list[bytes]) -> _Lines | None:
    """Return which lines of a head change; None when there is no id, or two say the same."""
    found = []
    # Behind the request line, up to the end of the last line and the empty one.
    for number, line in enumerate(lines[1:-2], 1):
        name, colon, _ = line.partition(b":")
        attribute = attribute_of(name)
        if not colon or (not attribute and name.lower() in _CONSTANT):
            continue
        if not attribute or attribute in CHANGING:
            found.append((number, name + colon, attribute))
    attributes = [attribute for _, _, attribute in found if attribute]
    if "id" not in attributes or len(set(attributes)) < len(attributes):
        return None
    return tuple(found)


def _taken_out(lines: list[bytes], changing: _Lines) -> dict[str, str] | None:
    """Return what changing lines say, and empty them; None for anything unusual."""
    values = {}
    for number, name, attribute in changing:
        line = lines[number]
        if not line.startswith(name):
            return None
        if attribute:
            value = line[len(name) :].strip(_WHITE)
            # Quoted, percent-encoded, in other characters or long.
            if b"%" in value or b'"' in value or not value.isascii():
                return None
            if len(value) > _MAX_VALUE_BYTES:
                return None
            values[attribute] = value.decode()
    for number, _, _ in changing:
        lines[number] = b""
    return values
