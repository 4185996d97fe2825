"""What all inferences of two senders say alike, with places for what differs."""

import re
import secrets
from typing import Any, Final

from sidelight.adapters._decoding_facts import facts_of
from sidelight.adapters._decoding_incomplete import incomplete
from sidelight.adapters._decoding_tags import MEANINGLESS, written
from sidelight.adapters._known_bodies import Shape
from sidelight.adapters.dialects import Half, Layout
from sidelight.logger import Arrival, Pair, Sender
from sidelight.logger._identity import SYNTHETIC_PREFIX

Place = tuple[int, int]
"""Where a value is: in the request (0) or the response (1), at a place; -1 is the body's id."""

_SYNTHETIC: Final = SYNTHETIC_PREFIX.encode()
_MEANINGLESS: Final = frozenset(text.encode() for text in MEANINGLESS)
# What nobody sends.
_MARK: Final = f"mark-{secrets.token_hex(12)}"
_MARKED: Final = re.compile(f"{_MARK}-([01])-(-?[0-9]+)-".encode())
_BODY: Final = -1
_LATENCY: Final = "latencyms"


class Plan:
    """What all inferences of two senders and two shapes of bodies say alike.

    It is asked of those who read every inference, with marks in the places of what differs.

    Parameters
    ----------
    senders : pair of Sender
        Of the request and of the response.
    shapes : pair of Shape
        Of their bodies.

    Attributes
    ----------
    is_sound : bool
        False where an inference must be read thoroughly nevertheless.
    time, answered, latency : Place or None
        Where the time of the request, that of the answer if it tells the latency, and the stated
        latency are.
    tags : bytes or None
        A pattern for JSON, to be filled in with the values at ``tag_places``.

    """

    def __init__(self, senders: tuple[Sender, Sender], shapes: tuple[Shape, Shape]) -> None:
        events = [_marked(sender, number) for number, sender in enumerate(senders)]
        request, response = (_with_marked_id(shape, number) for number, shape in enumerate(shapes))
        self.key = senders[0].identity
        self.deployment = senders[0].deployment
        self.layouts: tuple[Layout, Layout] = (request.layout, response.layout)
        pair = Pair(self.key, "", events[0], events[1])
        facts = facts_of(pair, request, response)
        self.version = facts.version
        self.status = facts.status
        self.is_synthetic = facts.is_synthetic
        self.time = _place_of(facts.time)
        self.answered = _place_of(facts.answered)
        self.latency = _latency_place(senders)
        text = written(facts.tags).encode() if facts.tags else None
        self.tag_places = [(int(a), int(b)) for a, b in _MARKED.findall(text or b"")]
        self._stated_tags = [place for place in self.tag_places if place[1] != _BODY]
        self.tags = text and _MARKED.sub(b"%b", text.replace(b"%", b"%%"))
        self._request_id = senders[0].request_place
        self._moments = [place for place in (self.time, self.answered) if place]
        self.is_sound = (
            incomplete(events[0], "request") is None
            and incomplete(events[1], "response") is None
            and all(
                _LATENCY in sender.places or _LATENCY not in event.extensions
                for sender, event in zip(senders, events, strict=True)
            )
            and _MARK not in f"{facts.version}{self.key}"
            and _MARK.encode() not in (self.tags or b"")
        )

    def is_usual(self, asked: Arrival, answered: Arrival) -> bool:
        """Whether none of the values of an inference asks for a thorough reading."""
        if not self.is_sound or asked.values[self._request_id].startswith(_SYNTHETIC):
            return False
        for side, place in self._moments:
            if not (answered if side else asked).values[place]:
                return False
        for side, place in self._stated_tags:
            if (answered if side else asked).values[place] in _MEANINGLESS:
                return False
        return True


def _mark(side: int, number: int) -> bytes:
    return f"{_MARK}-{side}-{number}-".encode()


def _place_of(text: str | None) -> Place | None:
    if text is None:
        return None
    found = _MARKED.fullmatch(text.encode())
    return (int(found[1]), int(found[2])) if found else None


def _marked(sender: Sender, side: int) -> Any:
    values = tuple(
        # A latency must be one.
        b"1" if name == _LATENCY else _mark(side, number)
        for number, name in enumerate(sender.names)
    )
    return Arrival(sender, b"", values, b"", 0, 0, 0, 0).event()


def _with_marked_id(shape: Shape, side: int) -> Half:
    half = shape.half
    if not shape.has_id:
        return half
    return half._replace(facts={**half.facts, "id": _mark(side, _BODY).decode()})


def _latency_place(senders: tuple[Sender, Sender]) -> Place | None:
    """Return where the latency is: what the response says of it counts first."""
    for side in (1, 0):
        if _LATENCY in senders[side].places:
            return side, senders[side].places[_LATENCY]
    return None
