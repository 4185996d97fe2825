"""Senders that repeat themselves: read once, then recognised.

A sender writes the same bytes around each payload, but for an id, a time and a few others: the
lines of a head, or the attributes of a member of a batch. One regular expression holds what
senders of one kind have in common, and of a new event it takes out only what differs: a fifth of
the time. Whatever is unusual is left to the thorough reading, so that both give the same event.
"""

import re
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Final, NamedTuple

from sidelight.logger._arrival import Arrival, Sender
from sidelight.logger._envelope_head import CHANGING, attribute_of
from sidelight.logger._envelope_member import EventLimits
from sidelight.logger._identity import kind_of
from sidelight.logger._journal import EventRecord
from sidelight.payloads import Event

_WHITE: Final = b" \t"
_LINE: Final = b"\r\n"
_REQUEST_LINE: Final = ":line"
# Anything else is quoted, percent-encoded, escaped, in other characters or has white space.
_PLAIN: Final = rb"([!#$&-\[\]-~]{0,256})"
_MAX_SHAPES: Final = 16
_MAX_BYTES: Final = 16 << 10
# Each value that is found to differ compiles all of them again.
_MAX_PARTS: Final = 128
_MAX_SENDERS: Final = 4096
# When the events of a sender are never the same, most of them are not worth a lesson.
_RELUCTANCE: Final = 32
_MOST_RELUCTANT: Final = 4096


class Part(NamedTuple):
    """A value, what stands before it, and the attribute that it is; "" when it is none."""

    before: bytes
    value: bytes
    attribute: str


class _Compiled(NamedTuple):
    """What finds senders by what is constant, and groups of what is and of what is not."""

    read: Callable[..., re.Match[bytes] | None]
    constant: tuple[int, ...]
    changing: tuple[int, ...]
    senders: dict[object, Sender]


class _Shape:
    """Texts that differ in nothing but values, and in these at known places.

    Parameters
    ----------
    parts : sequence of Part
        Of the first of them.
    behind : bytes
        What follows the last value.
    any_value : bytes
        A pattern for all that a value can be.
    is_all : bool
        Whether nothing may follow.

    """

    __slots__ = ("_any_value", "_behind", "_differing", "_is_all", "_parts", "compiled")

    def __init__(
        self, parts: Sequence[Part], behind: bytes, any_value: bytes, *, is_all: bool
    ) -> None:
        self._is_all = is_all
        self._parts = parts
        self._behind = behind
        self._any_value = any_value
        # Requests and responses, and numbers that say nothing, like the length of the body.
        self._differing = {
            place
            for place, part in enumerate(parts)
            if part.attribute in {"type", *CHANGING}
            or (not part.attribute and part.value.isdigit())
        }
        self._compile()

    def is_like(self, parts: Sequence[Part], behind: bytes) -> bool:
        """Whether another text differs in values alone."""
        return (
            self._behind == behind
            and len(self._parts) == len(parts)
            and all(
                one.before == other.before and one.attribute == other.attribute
                for one, other in zip(self._parts, parts, strict=True)
            )
        )

    def widen(self, parts: Sequence[Part]) -> None:
        """Read from now on the values that differ in another text."""
        pairs = enumerate(zip(self._parts, parts, strict=True))
        differing = {place for place, (one, other) in pairs if one.value != other.value}
        if not differing <= self._differing:
            self._differing |= differing
            self._compile()

    def _compile(self) -> None:
        pattern = []
        changing: list[int] = []
        constant: list[int] = []
        for place, (before, value, attribute) in enumerate(self._parts):
            pattern.append(re.escape(before))
            if place not in self._differing:
                pattern.append(re.escape(value))
            elif not attribute:
                pattern.append(self._any_value)
            elif attribute in CHANGING:
                pattern.append(_PLAIN)
                changing.append(len(changing) + len(constant) + 1)
            else:
                pattern.append(b"(" + self._any_value + b")")
                constant.append(len(changing) + len(constant) + 1)
        found = re.compile(b"".join(pattern) + re.escape(self._behind))
        # One value, so that what one thread reads is never half of what another writes.
        self.compiled = _Compiled(
            found.fullmatch if self._is_all else found.match, tuple(constant), tuple(changing), {}
        )


class Templates:
    """What was seen to stand around the changing values of events.

    Parameters
    ----------
    any_value : bytes
        A pattern for all that a value can be.
    is_all : bool
        Whether nothing may follow what was learned.

    """

    def __init__(self, any_value: bytes, *, is_all: bool) -> None:
        self._any_value = any_value
        self._is_all = is_all
        self._shapes: list[_Shape] = []
        self._n_senders = 0
        self._reluctance = 1
        self._unlearned = 0

    def found(
        self, text: bytes, start: int, limits: EventLimits
    ) -> tuple[Sender, tuple[bytes, ...], int] | None:
        """Return a sender, the values of its names, and where its text ends; None for others."""
        for shape in self._shapes:
            read, constant, changing, senders = shape.compiled
            match = read(text, start)
            if match is not None:
                break
        else:
            return None
        sender = senders.get(match.group(*constant))
        if sender is None or sender.longest > limits.max_attribute_chars:
            return None
        if shape is not self._shapes[0]:
            # The next event is more often than not of the same kind of sender.
            self._shapes = [shape, *[other for other in self._shapes if other is not shape]]
        values = match.group(*changing)
        return sender, values if type(values) is tuple else (values,), match.end()

    def may_learn(self) -> bool:
        """Whether the next event is worth a lesson."""
        self._unlearned += 1
        if self._unlearned < self._reluctance:
            return False
        self._unlearned = 0
        return True

    def sender_of(self, parts: Sequence[Part], event: Event) -> Sender | None:
        """Return the sender of a half that was read thoroughly.

        None when it has no id or something twice, or when an attribute that changes stands in
        none of the parts.
        """
        attributes = [part.attribute for part in parts if part.attribute]
        side = kind_of(event.type)
        if side != "request" and side != "response":  # noqa: PLR1714 - narrows the type
            return None
        if event.id_missing or len(set(attributes)) < len(attributes):
            return None
        if not {"id", "type"} <= set(attributes):
            return None
        if "requestid" in event.extensions and "requestid" not in attributes:
            return None
        if event.time is not None and "time" not in attributes:
            return None
        return Sender(event, [name for name in attributes if name in CHANGING], side)

    def learn(self, parts: Sequence[Part], behind: bytes, sender: Sender) -> None:
        """Remember a sender."""
        text = joined(parts, behind)
        if len(text) > _MAX_BYTES or len(parts) > _MAX_PARTS:
            return
        read, constant, _, senders = self._shape(parts, behind).compiled
        match = read(text)
        if match is None:
            return
        self._n_senders += 1
        if self._n_senders > _MAX_SENDERS:
            for shape in self._shapes:
                shape.compiled.senders.clear()
            self._n_senders = 1
            self._reluctance = max(self._reluctance, _RELUCTANCE)
        senders[match.group(*constant)] = sender

    def _shape(self, parts: Sequence[Part], behind: bytes) -> _Shape:
        for shape in self._shapes:
            if shape.is_like(parts, behind):
                shape.widen(parts)
                return shape
        if len(self._shapes) == _MAX_SHAPES:
            # Of more kinds of senders than that, those that are known serve best.
            self._reluctance = min(2 * self._reluctance, _MOST_RELUCTANT)
        shape = _Shape(parts, behind, self._any_value, is_all=self._is_all)
        self._shapes = [shape, *self._shapes[: _MAX_SHAPES - 1]]
        return shape


class HeadTemplates(Templates):
    """The heads of binary requests."""

    def __init__(self) -> None:
        super().__init__(rb"[^\r\n]*", is_all=True)

    def arrival(self, record: EventRecord, limits: EventLimits) -> Arrival | None:
        """Return the half that a request is; None when its head must be read thoroughly."""
        found = self.found(record.head, 0, limits)
        if found is None:
            return None
        sender, values, _ = found
        digest = sender.digest(values)
        if digest is None:
            return None
        return Arrival(
            sender,
            digest,
            values,
            record.body,
            record.received_ns,
            record.partition,
            record.position,
            0,
        )

    def learn_head(self, head: bytes, event: Event) -> None:
        """Remember a head that was read thoroughly.

        Parameters
        ----------
        head : bytes
            Of a request in binary mode, its body not encoded.
        event : Event
            What was read.

        """
        if not self.may_learn():
            return
        first, *lines = head.split(_LINE)
        if lines[-2:] == [b"", b""]:
            parts = [Part(b"", first, _REQUEST_LINE), *map(_part, lines[:-2])]
            sender = self.sender_of(parts, event)
            if sender is not None:
                self.learn(parts, _LINE + _LINE, sender)


def _part(line: bytes) -> Part:
    name, colon, value = line.partition(b":")
    text = value.lstrip(_WHITE)
    before = _LINE + name + colon + value[: len(value) - len(text)]
    return Part(before, text, attribute_of(name) if colon else "")


def joined(parts: Sequence[Part], behind: bytes) -> bytes:
    """Return the text that was taken apart."""
    return b"".join([*chain.from_iterable(part[:2] for part in parts), behind])
