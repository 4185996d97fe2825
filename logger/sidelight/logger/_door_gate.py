"""What stands before the door where strangers can reach it."""

from collections.abc import Callable
from typing import Protocol

from sidelight.logger._door import Door
from sidelight.logger._door_secrets import head_without_secrets, without_secrets
from sidelight.logger._http import Request, Respond


class Gate(Protocol):
    """Decides who may send what."""

    def admit(self, target: bytes, head: bytes) -> bytes | None:
        """Return the response for who may not send at all, before the body is read."""
        ...

    def check(self, request: Request) -> bytes | None:
        """Return the response for what this sender may not send; the body is whole."""
        ...

    def passes(self, target: bytes, head: bytes) -> bool:
        """Whether `admit` and `check` let pass whatever this sender sends, and count nothing."""
        ...


class GatedDoor:
    """The door for strangers; secrets of the senders do not get into the archive.

    Parameters
    ----------
    door : Door
        Takes what may pass.
    gate : Gate
        Decides.

    """

    def __init__(self, door: Door, gate: Gate) -> None:
        self._door = door
        self._gate = gate

    def admit(self, method: bytes, target: bytes, head: bytes) -> int | bytes | None:
        """Ask the gate before a body is read; see ``Service``."""
        verdict = self._door.admit(method, target, head)
        if not isinstance(verdict, int) or method == b"OPTIONS":
            return verdict
        return self._counted(self._gate.admit, target, head) or verdict

    def handle(self, request: Request, respond: Respond) -> None:
        """Have the gate look at the whole request, then the door; see ``Service``."""
        if request.method == b"POST" and (refusal := self._counted(self._gate.check, request)):
            respond(refusal)
            return
        self._door.handle(without_secrets(request), respond)

    def take(self, target: bytes, head: bytes, body: bytes, respond: Respond) -> bool:
        """Have the door take what the gate need not look at; see ``TakesEvents``."""
        if not self._gate.passes(target, head):
            return False
        return self._door.take(target, head_without_secrets(head), body, respond)

    def _counted(self, ask: Callable[..., bytes | None], *what: object) -> bytes | None:
        refusal = ask(*what)
        if refusal is not None:
            self._door.count_refused("gate", int(refusal[9:12]))
        return refusal
