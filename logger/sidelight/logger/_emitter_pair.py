"""The two events of one exchange, made when the first outlet needs them."""

import logging
import time
from datetime import datetime
from typing import Final, Protocol

import orjson

from sidelight.logger._emitter_event import CapturedEvent
from sidelight.logger._exchange import Exchange

log = logging.getLogger(__name__)

# What an exchange occupies besides its bytes: the object, two events' attributes; measured
# generously, so that the bound of the memory errs on the safe side.
_OVERHEAD_BYTES: Final = 1536
_EVENT_BYTES: Final = _OVERHEAD_BYTES // 2
# So much of an event's attributes the overhead covers.
_FREE_ATTRIBUTES: Final = 512


class Encoding(Protocol):
    """Makes the events of an exchange."""

    def events(self, exchange: Exchange, rate: float = 1.0) -> tuple[CapturedEvent, CapturedEvent]:
        """Return request and response; ``rate`` is the share of the traffic that is kept."""
        ...


class EventPair:
    """One exchange on its way, shared by all outlets.

    Attributes
    ----------
    exchange : Exchange or None
        Until it is encoded.
    rate : float
        With which probability it was kept.
    cost : int
        What it occupies in memory until it is encoded, bytes.
    events : tuple of (CapturedEvent, int)
        Once it is encoded, each with what it occupies in bytes; empty when that is not possible.

    """

    __slots__ = ("cost", "events", "exchange", "rate")

    events: tuple[tuple[CapturedEvent, int], ...]

    def __init__(self, exchange: Exchange, rate: float) -> None:
        self.exchange: Exchange | None = exchange
        self.rate = rate
        self.cost = (
            len(exchange.request_head)
            + len(exchange.request_body)
            + len(exchange.response_head)
            + len(exchange.response_body)
            + _OVERHEAD_BYTES
        )


class Encoder:
    """Encodes each exchange once.

    Parameters
    ----------
    capture : Encoding
        In force for what is encoded from now on.

    """

    def __init__(self, capture: Encoding) -> None:
        self.capture = capture

    def encode(self, pair: EventPair) -> tuple[tuple[CapturedEvent, int], ...]:
        """Return the events of a pair with their costs; none when it cannot be encoded."""
        exchange = pair.exchange
        if exchange is not None:
            # Whatever happens, nobody tries again.
            pair.exchange = None
            pair.events = ()
            try:
                request, response = self.capture.events(exchange, pair.rate)
                pair.events = ((request, _cost_of(request)), (response, _cost_of(response)))
            except Exception:
                # One exchange that nobody foresaw must not stop the others.
                log.exception("an exchange cannot be encoded")
        return pair.events


def _cost_of(event: CapturedEvent) -> int:
    beyond = max(0, len(event.attributes) - _FREE_ATTRIBUTES)
    return _EVENT_BYTES + len(event.data) + beyond


def occurred_at(waiting: CapturedEvent | EventPair) -> int:
    """Return when it happened, nanoseconds since 1970; the present when that is not known."""
    if isinstance(waiting, EventPair):
        if waiting.exchange is not None:
            return waiting.exchange.finished_ns
        if not waiting.events:
            return time.time_ns()
        waiting = waiting.events[0][0]
    try:
        moment = datetime.fromisoformat(orjson.loads(waiting.attributes + b"}")["time"])
    except (ValueError, LookupError, TypeError):  # a spool that another version wrote
        return time.time_ns()
    return int(moment.timestamp() * 1e9)
