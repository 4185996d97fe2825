"""How the offer of an exchange is put off, so that no answer waits for it."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

from sidelight.logger._exchange import Exchange

_Call = Callable[[Callable[[Exchange], None], Exchange], Any]


@dataclass(frozen=True, slots=True)
class Defer:
    """How the offer of an exchange is called, so that no answer waits for it.

    Parameters
    ----------
    soon : callable
        Calls a function with an exchange, from where the call is handled.
    from_thread : callable
        The same, from any thread.

    """

    soon: _Call
    from_thread: _Call

    @classmethod
    def on(cls, loop: asyncio.AbstractEventLoop) -> Self:
        """Return the way for handlers that run on a loop: after what they write in this turn."""
        return cls(loop.call_soon, loop.call_soon_threadsafe)
