"""Where captured events go, and what it says about them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from sidelight.logger._emitter_event import CapturedEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """What a sink said about events that were sent to it.

    Parameters
    ----------
    n_taken : int
        How many from the front it has taken.
    n_refused : int, default 0
        It will never take what begins behind them: some of that many events are bad. When it is 1
        the bad one is known.
    failure : str, default ""
        Why not all were taken: ``refused, timeout, reset, garbage, status_503``, ...
    retry_after_s : float or None
        When it wants to be asked again, in seconds.

    """

    n_taken: int
    n_refused: int = 0
    failure: str = ""
    retry_after_s: float | None = None


class Sink(Protocol):
    """Takes events in order. What it has taken is safe there."""

    async def send(self, events: Sequence[CapturedEvent]) -> Delivery:
        """Deliver events; never raises but when cancelled."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...
