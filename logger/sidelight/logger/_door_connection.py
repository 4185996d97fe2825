"""A client's connection to the door: events whose heads are known take the short way."""

import logging
import re
from functools import partial
from typing import Final, Protocol

from sidelight.logger._connection import ANSWERING, READY, Connection
from sidelight.logger._connections import Connections, Limits
from sidelight.logger._door_heads import LearnedHead, LearnedHeads
from sidelight.logger._http import Respond, Service, problem, response
from sidelight.logger._upstream import Upstream

log = logging.getLogger(__name__)

DURABLE: Final = response(200)
"""The answer to an event that is durable."""


class TakesEvents(Service, Protocol):
    """A service that can be handed events in binary mode without questions."""

    def take(self, target: bytes, head: bytes, body: bytes, respond: Respond) -> bool:
        """Have an event stored whose head is known to be right.

        Returns
        -------
        bool
            False when `admit` and `handle` must be asked; then nothing was done.
        """
        ...


class DoorConnection(Connection):
    """One client's connection to the door.

    A request that came whole, alone and with a head that the door has learned is handed over at
    once; every other one is read thoroughly, with the same result.

    Parameters
    ----------
    door : TakesEvents
        Decides, and takes.
    heads : LearnedHeads
        What connections of the same door have learned.
    upstream, limits, connections
        As for `Connection`.

    """

    __slots__ = ("_door", "_heads")

    def __init__(
        self,
        door: TakesEvents,
        heads: LearnedHeads,
        upstream: Upstream | None = None,
        *,
        limits: Limits | None = None,
        connections: Connections | None = None,
    ) -> None:
        super().__init__(door, upstream, limits=limits, connections=connections)
        self._door = door
        self._heads = heads

    def data_received(self, data: bytes) -> None:
        """Take what came."""
        if self._state == READY and not self._buffer and not self._write_full:
            for learned in self._heads.heads:
                match = learned.match(data)
                if match is not None:
                    if self._take(data, learned, match):
                        return
                    break
        super().data_received(data)

    def _take(self, data: bytes, learned: LearnedHead, match: re.Match[bytes]) -> bool:
        end = match.end()
        whole = len(data) - end == int(match[learned.length_group])
        if not whole or end > self.limits.max_head_bytes:
            return False
        self._head = learned.head
        self._state = ANSWERING
        self._serial += 1
        respond = partial(self._answer, self._serial)
        try:
            taken = self._door.take(learned.target or match[1], data[:end], data[end:], respond)
        except Exception:
            log.exception("service failed to take an event")
            taken = True
            respond(problem(500, "the request could not be handled"))
        if taken:
            learned.hits += 1
            self._touched = True
            self.connections.requests += 1
        else:
            self._state = READY
        return taken

    def _answer(self, serial: int, payload: bytes) -> None:
        head = self._head
        if (
            payload is not DURABLE
            or serial != self._serial
            or self._state != ANSWERING
            or self._closing
            or head.is_http_10
            or not head.keep_alive
        ):
            super()._answer(serial, payload)
            return
        # Nothing of this answer has to be fitted to who asked.
        self._serial = serial + 1
        self.transport.write(payload)
        self._state = READY
        if self._buffer or self.held or self._half_closed:
            self._ready()

    def _handle(self, body: bytes) -> None:
        self._heads.learn(self._head)
        super()._handle(body)
