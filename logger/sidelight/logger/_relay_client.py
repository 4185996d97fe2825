"""What a relay needs of the client's connection."""

import asyncio
from typing import Protocol

from sidelight.logger._connections import Connections, Limits


class Client(Protocol):
    """The connection whose requests are relayed."""

    transport: asyncio.Transport
    limits: Limits
    connections: Connections
    held: int
    """Not 0 while the connection is not read."""

    @property
    def is_write_full(self) -> bool:
        """Whether the client does not read what it was sent."""
        ...

    @property
    def is_closing(self) -> bool:
        """Whether the connection ends with the answer in work."""
        ...

    def hold(self) -> None:
        """Do not read: the upstream cannot take more."""
        ...

    def free(self) -> None:
        """Read again."""
        ...

    def relayed(self, *, keep_alive: bool, whole: bool) -> None:
        """Go on after an answer that was passed on."""
        ...

    def send_problem(self, payload: bytes, *, whole: bool) -> None:
        """Answer with an error of ours, and go on."""
        ...

    def take_waiting(self) -> bytes:
        """Give out what the client sent ahead of its answer."""
        ...
