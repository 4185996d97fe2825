"""The door of the collector: takes events, has them made durable, and only then says so."""

import logging
import re
from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol

from sidelight.logger._door_checks import RefusedEvent, check_event, check_payload_record
from sidelight.logger._door_connection import DURABLE
from sidelight.logger._door_heads import EVENT_TARGETS
from sidelight.logger._door_secrets import head_without_secrets
from sidelight.logger._http import Request, Respond, problem, response
from sidelight.logger._segments import Done
from sidelight.logger.errors import JournalError, JournalFull

log = logging.getLogger(__name__)

_RECORDS_ROUTE: Final = b"/consumer/kserve/v2"
ROUTES: Final = EVENT_TARGETS | {_RECORDS_ROUTE}
# The loggers of the platforms send no headers: a token can stand in the path.
_TOKEN_ROUTE: Final = re.compile(rb"/events/[^/?]+(?:\?.*)?")
_METHODS: Final = frozenset({b"POST", b"OPTIONS"})
_OPTIONS_BYTES: Final = 65536


class Appends(Protocol):
    """What the door needs of a journal."""

    def append(self, head: bytes, body: bytes, done: Done) -> None:
        """Hand over one record; ``done`` is called on the loop, once."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class DoorLimits:
    """Bounds of the door.

    Parameters
    ----------
    max_body_bytes : int, default 16 MiB
        A longer body is answered with 413, unread.
    max_inflated_bytes : int, default 16 MiB
        Of a compressed structured event or batch; more is answered with 413.
    max_flight_bytes : int, default 64 MiB
        Handed over and not durable yet; above it new requests are answered with 503.
    min_free_bytes : int, default 64 MiB
        Room on the disk; below it new requests are answered with 503.

    """

    max_body_bytes: int = 16 << 20
    max_inflated_bytes: int = 16 << 20
    max_flight_bytes: int = 64 << 20
    min_free_bytes: int = 64 << 20


class Door:
    """Answers the routes of ingest and relays every other request.

    ``POST`` and ``OPTIONS`` on ``/``, ``/events``, ``/events/<token>``, ``/dead-letter`` and
    ``/consumer/kserve/v2`` are its own. It looks at required attributes and bounds, at nothing
    else; a request is answered with 200 and an empty body after its record is durable.

    Parameters
    ----------
    journal : Appends
        Where records go.
    limits : DoorLimits, optional
        Bounds.

    Attributes
    ----------
    flight_bytes : int
        Handed over and not durable yet.
    is_disk_low : bool
        Set by whoever watches the disk.

    """

    def __init__(self, journal: Appends, limits: DoorLimits | None = None) -> None:
        self._journal = journal
        self._limits = limits if limits is not None else DoorLimits()
        self.flight_bytes = 0
        self.is_disk_low = False
        self._accepted: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()
        self._answers: Counter[int] = Counter()
        self._stored_bytes = 0

    def admit(self, method: bytes, target: bytes, head: bytes) -> int | bytes | None:
        """Collect what is the door's own, refuse it when there is no room, relay the rest."""
        del head
        if method not in _METHODS:
            return None
        if (
            target not in ROUTES
            and target.partition(b"?")[0] not in ROUTES
            and not _TOKEN_ROUTE.fullmatch(target)
        ):
            return None
        if method == b"OPTIONS":
            return _OPTIONS_BYTES
        if self.is_disk_low:
            return self._busy("disk", "the disk of the collector is nearly full", retry_s=5)
        if self.flight_bytes > self._limits.max_flight_bytes:
            return self._busy("memory", "too many bytes wait to be stored", retry_s=1)
        return self._limits.max_body_bytes

    def handle(self, request: Request, respond: Respond) -> None:
        """Check a collected request and have it stored."""
        if request.method == b"OPTIONS":
            respond(_handshake(request))
            return
        try:
            if request.route == _RECORDS_ROUTE:
                check_payload_record(request, max_inflated_bytes=self._limits.max_inflated_bytes)
                mode = "record"
            else:
                mode = check_event(request, max_inflated_bytes=self._limits.max_inflated_bytes)
        except RefusedEvent as refused:
            self._refused[refused.reason] += 1
            self._answers[refused.status] += 1
            respond(_refusal(refused))
            return
        head = request.head
        if request.route not in ROUTES:
            head = head_without_secrets(head)
        self._store(head, request.body, mode, respond)

    def take(self, target: bytes, head: bytes, body: bytes, respond: Respond) -> bool:
        """Have an event stored whose head was understood before; see ``TakesEvents``."""
        if (
            self.is_disk_low
            or self.flight_bytes > self._limits.max_flight_bytes
            or len(body) > self._limits.max_body_bytes
        ):
            return False
        if target not in EVENT_TARGETS:
            head = head_without_secrets(head)
        self._store(head, body, "binary", respond)
        return True

    def count_refused(self, reason: str, status: int) -> None:
        """Count what was refused before it came to the door."""
        self._refused[reason] += 1
        self._answers[status] += 1

    def snapshot(self) -> dict[str, Any]:
        """Return the counters, ready for JSON."""
        return {
            "accepted": dict(self._accepted),
            "refused": dict(self._refused),
            "answers": {str(status): n for status, n in self._answers.items()},
            "stored_bytes": self._stored_bytes,
            "flight_bytes": self.flight_bytes,
            "disk_low": self.is_disk_low,
        }

    def _store(self, head: bytes, body: bytes, mode: str, respond: Respond) -> None:
        # Everything that is kept goes through here, whichever way it came.
        size = len(head) + len(body)
        self.flight_bytes += size
        self._journal.append(head, body, partial(self._stored, respond, mode, size))

    def _stored(
        self, respond: Respond, mode: str, size: int, position: int, error: JournalError | None
    ) -> None:
        del position
        self.flight_bytes -= size
        if error is None:
            self._accepted[mode] += 1
            self._answers[200] += 1
            self._stored_bytes += size
            respond(DURABLE)
        elif isinstance(error, JournalFull):
            respond(self._busy("disk", "the disk of the collector is full", retry_s=5))
        else:
            respond(self._busy("journal", "the event could not be made durable", retry_s=1))

    def _busy(self, reason: str, detail: str, *, retry_s: int) -> bytes:
        self._refused[reason] += 1
        self._answers[503] += 1
        return problem(
            503,
            detail,
            expected="room for the event",
            got="none at the moment",
            hint=f"send it again after {retry_s} s; nothing of it was stored",
            headers=((b"retry-after", b"%d" % retry_s),),
        )


def _handshake(request: Request) -> bytes:
    """Answer the validation request of CloudEvents web hooks (HTTP 1.1 Web Hooks, section 4)."""
    origin = request.header(b"webhook-request-origin") or b"*"
    return response(
        200,
        headers=(
            (b"allow", b"POST, OPTIONS"),
            (b"webhook-allowed-origin", origin),
            (b"webhook-allowed-rate", b"*"),
        ),
    )


def _refusal(refused: RefusedEvent) -> bytes:
    return problem(
        refused.status,
        refused.detail,
        expected=refused.expected,
        got=refused.got,
        hint=refused.hint,
    )
