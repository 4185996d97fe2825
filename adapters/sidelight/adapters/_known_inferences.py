"""Inferences whose senders and bodies are known: only what differs is looked at."""

from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any, Final

import msgspec

from sidelight.adapters._decoding_columns import Values
from sidelight.adapters._known_bodies import Cut, Shape, learned, parsed
from sidelight.adapters._known_numbers import LONG, Numbers
from sidelight.adapters._known_plan import Plan
from sidelight.adapters.dialects import Half, Layout
from sidelight.logger import Arrival, Meeting, Pair, Sender
from sidelight.logger._arrival import OneEvent

Read = Callable[[bytes], Half]

_MAX_SHAPES: Final = 8
_MAX_ROUTES: Final = 4096
# Patterns take some twenty times that.
_MAX_TEXT_BYTES: Final = 8 << 20
_MAX_PLANS: Final = 64
_MOST_RELUCTANT: Final = 4096
# Longer texts are parsed in pieces, so that their numbers stay in the processor's caches.
_AT_ONCE_BYTES: Final = 1 << 18
_INFINITE: Final = float("inf")


class Known(msgspec.Struct, gc=False):
    """An inference that was recognised; ``values`` are as of ``Decoded``."""

    meeting: Meeting
    plan: Plan
    cuts: tuple[Cut, Cut]
    latency_ms: float | None
    rows: int = 0
    values: tuple[tuple[Values, ...], tuple[Values, ...]] = ((), ())

    @property
    def deployment(self) -> str:
        """``namespace/name``."""
        return self.plan.deployment

    @property
    def layouts(self) -> tuple[Layout, Layout]:
        """Of the request and of the response."""
        return self.plan.layouts

    @property
    def row_counts(self) -> tuple[int, int]:
        """Of the request and of the response."""
        return self.rows, self.rows


class KnownInferences:
    """The shapes of bodies that were seen, by deployment and side."""

    def __init__(self) -> None:
        self.n_learned = 0
        self._n_text_bytes = 0
        self._numbers = Numbers()
        self._clients: dict[tuple[str, str], _Client] = {}
        self._routes: dict[tuple[Sender | OneEvent, Sender | OneEvent], _Route] = {}

    def found(self, pairs: Sequence[Pair | Meeting]) -> list[Known | None]:
        """Return of each inference what it says; None where it must be read thoroughly."""
        found = [self._begun(item) if isinstance(item, Meeting) else None for item in pairs]
        cuts = [cut for item in found if item is not None for cut in item.cuts]
        if not cuts:
            return found
        flat = iter(self._parsed(cuts))
        nested = iter(_parsed_in_pieces(_fragments(cuts, is_nested=True), is_nested=True))
        return [item if item is None else _filled(item, flat, nested) for item in found]

    def _parsed(self, cuts: Sequence[Cut]) -> list[Values | None]:
        """Return what stands in the flat arrays of all bodies, in order; long ones alone."""
        fragments = _fragments(cuts, is_nested=False)
        if not fragments or max(map(len, fragments)) < LONG:
            return [*_parsed_in_pieces(fragments, is_nested=False)]
        are_real = chain.from_iterable(
            [cut.shape.are_real for cut in cuts if not cut.shape.is_nested]
        )
        read = self._numbers.read
        found: list[Values | None] = [
            read(fragment) if is_real and len(fragment) >= LONG else None
            for fragment, is_real in zip(fragments, are_real, strict=True)
        ]
        left = [place for place, values in enumerate(found) if values is None]
        others = _parsed_in_pieces([fragments[place] for place in left], is_nested=False)
        for place, values in zip(left, others, strict=True):
            found[place] = values
        return found

    def learn(self, arrival: Arrival, half: Half, read: Read) -> None:
        """Remember the body of a half that was read thoroughly.

        Parameters
        ----------
        arrival : Arrival
            Of a known sender.
        half : Half
            What was read of it.
        read : callable of bytes to Half
            Reads another body.

        """
        shape = self._client(arrival.sender).learn(arrival.data, half, read)
        if shape is not None:
            self.n_learned += 1
            self._n_text_bytes += shape.text_bytes

    def _begun(self, meeting: Meeting) -> Known | None:
        """Cut the bodies of an inference; None when anything of it is unusual."""
        asked, answered = meeting.asked, meeting.answered
        senders = asked.sender, answered.sender
        route = self._routes.get(senders) or self._route(senders)
        client, server = route.client, route.server
        request = client.usual.cut(asked.data) if client.usual else None
        response = server.usual.cut(answered.data) if server.usual else None
        if request is None:
            request = client.cut(asked.data)
        if response is None:
            response = server.cut(answered.data)
        if request is None or response is None:
            return None
        shapes = request.shape, response.shape
        plan = route.plans.get(shapes) or route.plan(shapes)
        if not plan.is_usual(asked, answered):
            return None
        if plan.latency is None:
            return Known(meeting, plan, (request, response), None)
        side, place = plan.latency
        try:
            latency_ms = float((answered if side else asked).values[place])
        except ValueError:
            return None
        if not 0 <= latency_ms < _INFINITE:
            return None
        return Known(meeting, plan, (request, response), latency_ms)

    def _client(self, sender: Sender | OneEvent) -> "_Client":
        return self._clients.setdefault((sender.deployment, sender.side), _Client())

    def _route(self, senders: tuple[Sender | OneEvent, Sender | OneEvent]) -> "_Route":
        if len(self._routes) >= _MAX_ROUTES or self._n_text_bytes > _MAX_TEXT_BYTES:
            self._routes.clear()
            self._clients.clear()
            self._n_text_bytes = 0
        asked, answered = senders
        route = _Route(senders, self._client(asked), self._client(answered))
        self._routes[senders] = route
        return route


class _Route:
    """What is known of inferences of two senders."""

    __slots__ = ("_senders", "client", "plans", "server")

    def __init__(self, senders: tuple[Any, Any], client: "_Client", server: "_Client") -> None:
        self._senders = senders
        self.client = client
        self.server = server
        self.plans: dict[tuple[Shape, Shape], Plan] = {}

    def plan(self, shapes: tuple[Shape, Shape]) -> Plan:
        if len(self.plans) >= _MAX_PLANS:
            self.plans.clear()
        self.plans[shapes] = plan = Plan(self._senders, shapes)
        return plan


class _Client:
    """The shapes of what one deployment is asked, or answers; ``usual`` is that of the last one."""

    def __init__(self) -> None:
        self.usual: Shape | None = None
        self._shapes: list[Shape] = []
        self._reluctance = 1
        self._unlearned = 0

    def cut(self, body: bytes) -> Cut | None:
        for shape in self._shapes:
            cut = shape.cut(body)
            if cut is not None:
                # Those that are seen last are kept longest.
                self._shapes = [shape, *[other for other in self._shapes if other is not shape]]
                self.usual = shape
                return cut
        return None

    def learn(self, body: bytes, half: Half, read: Read) -> Shape | None:
        self._unlearned += 1
        if self._unlearned < self._reluctance:
            return None
        self._unlearned = 0
        # Bodies that differ in more than numbers are not worth a lesson each.
        self._reluctance = min(2 * self._reluctance, _MOST_RELUCTANT)
        shape = learned(body, half, self._shapes, read)
        if shape is None:
            return None
        others = [other for other in self._shapes if other.key != shape.key]
        self._shapes = [shape, *others][:_MAX_SHAPES]
        self.usual = shape
        return shape


def _fragments(cuts: Sequence[Cut], *, is_nested: bool) -> list[bytes]:
    return [
        fragment for cut in cuts if cut.shape.is_nested is is_nested for fragment in cut.fragments
    ]


def _parsed_in_pieces(fragments: Sequence[bytes], *, is_nested: bool) -> list[list[Any] | None]:
    """Return what stands in the arrays of one kind, in order."""
    if not fragments:
        return []
    total = sum(map(len, fragments))
    # Pieces of about one length.
    size = max(1, len(fragments) * _AT_ONCE_BYTES // max(total, 1))
    return list(
        chain.from_iterable(
            parsed(fragments[begin : begin + size], is_nested=is_nested)
            for begin in range(0, len(fragments), size)
        )
    )


def _filled(
    item: Known, flat: Iterator[Values | None], nested: Iterator[list[Any] | None]
) -> Known | None:
    """Give an inference its numbers; None when they are not what its text says."""
    request, response = item.cuts
    if request.shape.is_plain and response.shape.is_plain:
        asked, answered = next(flat), next(flat)
        rows = request.rows
        if (
            asked is None
            or answered is None
            or response.rows != rows
            or len(asked) != rows * request.shape.width
            or len(answered) != rows * response.shape.width
        ):
            return None
        item.rows = rows
        item.values = (asked,), (answered,)
        return item
    # Both are taken before one of them is refused: what follows belongs to others.
    lists: list[list[Values | None]] = [
        [next(nested if cut.shape.is_nested else flat) for _ in cut.fragments] for cut in item.cuts
    ]
    read = [_values(cut, of_cut) for cut, of_cut in zip(item.cuts, lists, strict=True)]
    if read[0] is None or read[1] is None or read[0][0] != read[1][0]:
        return None
    item.rows = read[0][0]
    item.values = read[0][1], read[1][1]
    return item


def _values(cut: Cut, lists: Sequence[Values | None]) -> tuple[int, tuple[Values, ...]] | None:
    sound = [one for one in lists if one is not None]
    return cut.shape.values(cut, sound) if len(sound) == len(lists) else None
