"""Members of a batch whose sender is known by what stands in front of their data."""

import re
from collections.abc import Callable
from typing import Final

import msgspec

from sidelight.logger._arrival import Arrival
from sidelight.logger._envelope_head import CHANGING
from sidelight.logger._envelope_member import EventLimits, Place
from sidelight.logger._envelope_template import Part, Templates, joined
from sidelight.payloads import Event

# A text; what is something else is the same each time, or the member is not recognised.
_TEXT: Final = re.compile(rb'"([a-z0-9]+)"\s*:\s*"([^"\\]*)"')
_DATA: Final = re.compile(rb'"data"\s*:\s*')
_BACKSLASH: Final = b"\\"
_OPENING: Final = (b"{", b"[")
_WHITE: Final = 16
# Members of a batch are objects here, if short-lived ones: millions of empty ones must not be.
_LEAST_BYTES: Final = 64
_FREE_BYTES: Final = 1 << 20
_ERRORS: Final = (msgspec.DecodeError, UnicodeDecodeError, ValueError, RecursionError)


class _Member(msgspec.Struct, gc=False):
    data: msgspec.Raw = msgspec.Raw(b"")


_ONE: Final = msgspec.json.Decoder(_Member)
_ALL: Final = msgspec.json.Decoder(list[_Member])


class MemberTemplates(Templates):
    """The attributes of structured events and of members of a batch, where the data come last."""

    def __init__(self) -> None:
        super().__init__(rb'[^"\\]*', is_all=False)

    def arrivals(self, text: bytes, place: Place, limits: EventLimits) -> list[Arrival] | None:
        """Return the halves that a batch is; None when it holds anything else."""
        if not self._shapes or place.dead_letter or _is_crowded(text):
            return None
        try:
            members = _ALL.decode(text)
        except _ERRORS:
            return None
        arrivals: list[Arrival] = []
        start = 1
        for index, member in enumerate(members):
            if not text.startswith(b"{", start):
                start = _behind_white(text, start)
            found = self._arrival(text, start, bytes(member.data), place, index, limits)
            if found is None:
                return None
            arrivals.append(found[0])
            # Behind the comma. That one is there, and nothing else is, was seen by the decoder.
            start = found[1] + 1
        return arrivals

    def arrival(self, text: bytes, place: Place, index: int, limits: EventLimits) -> Arrival | None:
        """Return the half that one object is; None when it must be read thoroughly."""
        if not self._shapes or place.dead_letter:
            return None
        try:
            member = _ONE.decode(text)
        except _ERRORS:
            return None
        found = self._arrival(text, 0, bytes(member.data), place, index, limits)
        return found[0] if found is not None and found[1] == len(text) else None

    def learn_member(self, text: bytes, event: Event, read: Callable[[bytes], Event]) -> None:
        """Remember the attributes of an object whose last member are its data.

        Parameters
        ----------
        text : bytes
            The object.
        event : Event
            What was read.
        read : callable of bytes to Event
            Reads thoroughly: tried with other values, so that what was taken for an attribute is
            one.

        """
        data = _DATA.search(text)
        if data is None or not event.data.startswith(_OPENING) or event.dead_letter:
            return
        if not self.may_learn():
            return
        before, behind = text[: data.end()], text[data.end() :]
        if _BACKSLASH in before or behind != event.data + b"}":
            return
        parts, last = _taken_apart(before)
        sender = self.sender_of(parts, event)
        if sender is None:
            return
        other = [
            part._replace(value=b"other" + part.value if part.attribute in CHANGING else part.value)
            for part in parts
        ]
        values = tuple([part.value for part in other if part.attribute in CHANGING])
        ref = event.ref
        place = (event.received_ns, ref.partition, ref.position, ref.index)
        expected = Arrival(sender, b"", values, event.data, *place).event()
        if repr(read(joined(other, last + behind))) == repr(expected):
            self.learn(parts, last, sender)

    def _arrival(
        self, text: bytes, start: int, data: bytes, place: Place, index: int, limits: EventLimits
    ) -> tuple[Arrival, int] | None:
        """Return a half and where its object ends: with its data and a brace."""
        found = self.found(text, start, limits)
        if found is None or data[:1] not in _OPENING:
            return None
        sender, values, begin = found
        end = begin + len(data)
        if not text.startswith(data, begin) or not text.startswith(b"}", end):
            return None
        digest = sender.digest(values)
        if digest is None:
            return None
        partition, position, received_ns, _ = place
        arrival = Arrival(sender, digest, values, data, received_ns, partition, position, index)
        return arrival, end + 1


def _is_crowded(text: bytes) -> bool:
    return len(text) > _FREE_BYTES and text.count(b"{") * _LEAST_BYTES > len(text)


def _behind_white(text: bytes, start: int) -> int:
    """Return where the next object begins; ``start`` when something else is there."""
    begin = text.find(b"{", start, start + _WHITE)
    return begin if begin > start and text[start:begin].isspace() else start


def _taken_apart(before: bytes) -> tuple[list[Part], bytes]:
    parts = []
    end = 0
    for found in _TEXT.finditer(before):
        begin = found.start(2)
        parts.append(Part(before[end:begin], found[2], found[1].decode()))
        end = found.end(2)
    return parts, before[end:]
