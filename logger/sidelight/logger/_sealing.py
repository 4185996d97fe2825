"""Seals what the door stores of some deployments, between the door and the journal.

A thread of its own: it reads each request as the consumer will, makes the keys durable, and only
then hands the sealed request to the journal, so that a stored event always has its key. Requests
of other deployments go on as they came.
"""

import errno
import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Final, Protocol

from sidelight.logger._envelope import parse
from sidelight.logger._envelope_head import read_head
from sidelight.logger._envelope_inflate import inflate
from sidelight.logger._envelope_member import EventLimits
from sidelight.logger._journal import EventRecord
from sidelight.logger._key_ring import KeySource
from sidelight.logger._key_slots import NEVER_KEPT, request_digest
from sidelight.logger._key_writer import KeyWriter
from sidelight.logger._sealed_body import Key, Piece, seal_batch, seal_request
from sidelight.logger._sealed_erasure import ERASURE_TYPE
from sidelight.logger._sealed_since import note_sealed
from sidelight.logger._sealing_requests import (
    BATCH,
    is_batch,
    pieces_of,
    readable_head,
    requests_of,
)
from sidelight.logger._segments import Deliver, Done
from sidelight.logger._segments_folder import seal_folder
from sidelight.logger._segments_outage import Outage
from sidelight.logger.errors import JournalError, JournalFull

log = logging.getLogger(__name__)

KEPT_HEADERS: Final = (
    *("ce-specversion", "ce-type", "ce-time", "ce-namespace", "ce-inferenceservicename"),
    *("ce-endpoint", "ce-component", "ce-modelname", "ce-modelversion", "content-type"),
)
"""Headers that stay readable: that an inference happened, when, and by which version."""

_GROUP_BYTES: Final = 4 << 20
_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FRAME_ID: Final = ""
_ANY: Final = "*"


class Appends(Protocol):
    """Where sealed requests go."""

    def append(self, head: bytes, body: bytes, done: Done) -> None:
        """Hand over one record; ``done`` is called once."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SealingSettings:
    """What is sealed, and with what.

    Parameters
    ----------
    deployments : tuple of str
        ``namespace/name`` in their stored form, ``namespace/*``, or ``*`` for all.
    source : KeySource
        Where the wrapping key comes from.
    headers : tuple of str
        Names of headers, in lower case, that stay readable.
    limits : EventLimits
        The consumer's own: what it reads must be read here as well.

    """

    deployments: tuple[str, ...]
    source: KeySource = field(default_factory=KeySource)
    headers: tuple[str, ...] = KEPT_HEADERS
    limits: EventLimits = field(default_factory=EventLimits)

    def covers(self, deployment: str) -> bool:
        """Whether events of a deployment are sealed."""
        namespace = deployment.partition("/")[0]
        return not {deployment, f"{namespace}/*", _ANY}.isdisjoint(self.deployments)


@dataclass(slots=True)
class _Plan:
    """One request and the digests of its keys: of the frame, then of each member."""

    head: bytes
    body: bytes
    done: Done
    pieces: list[Piece] | None = None
    digests: list[list[bytes]] | None = None


class SealingJournal:
    """Stands before a journal, and seals; see ``Appends``.

    Parameters
    ----------
    data : Path
        The data folder.
    journal : Appends
        Gets the requests.
    settings : SealingSettings
        What is sealed.
    deliver : callable, optional
        Where the journal is called, such as ``loop.call_soon_threadsafe``; default the own thread.
    position : int
        The end of the archive now.

    Attributes
    ----------
    erased_again : int
        Events of requests that had been erased: they were stored so that nobody can read them.

    Raises
    ------
    SealingKeyError
        When the keys cannot be had.

    """

    def __init__(
        self,
        data: Path,
        journal: Appends,
        settings: SealingSettings,
        *,
        deliver: Deliver | None = None,
        position: int = 0,
    ) -> None:
        self._journal = journal
        self._settings = settings
        self._deliver = deliver
        self._keys = KeyWriter(data, settings.source)
        self._frame = request_digest(self._keys.digest_key, "", _FRAME_ID)
        note_sealed(data, settings.deployments, position)
        # Who cannot open them must not take sealed events for payloads.
        seal_folder(data)
        self._waiting: SimpleQueue[tuple[bytes, bytes, Done] | None] = SimpleQueue()
        self._outage = Outage("keys")
        self.erased_again = 0
        self._thread = threading.Thread(target=self._run, name="sidelight-sealing", daemon=True)
        self._thread.start()

    def append(self, head: bytes, body: bytes, done: Done) -> None:
        """Hand over one record; ``done`` is called when it is durable or has failed."""
        self._waiting.put((head, body, done))

    def write(self, head: bytes, body: bytes) -> "Future[int]":
        """Hand over one record; the future gives its position when it is durable."""
        future: Future[int] = Future()

        def done(position: int, error: JournalError | None) -> None:
            if error is None:
                future.set_result(position)
            else:
                future.set_exception(error)

        self.append(head, body, done)
        return future

    def close(self) -> None:
        """Hand everything to the journal; nothing may be appended during or after it."""
        if self._thread.is_alive():
            self._waiting.put(None)
            self._thread.join()
            self._keys.close()

    def _run(self) -> None:
        is_open = True
        while is_open:
            group = [self._waiting.get()]
            size = 0
            while size < _GROUP_BYTES and group[-1] is not None:
                size += len(group[-1][0]) + len(group[-1][1])
                try:
                    group.append(self._waiting.get_nowait())
                except Empty:
                    break
            is_open = group[-1] is not None
            self._seal([item for item in group if item is not None])

    def _seal(self, group: list[tuple[bytes, bytes, Done]]) -> None:
        plans = []
        for head, body, done in group:
            try:
                plans.append(self._planned(head, body, done))
            except Exception:
                log.exception("a request could not be sealed")
                self._fail([done], JournalError("sealing: the request could not be read"))
        try:
            digests = list(_digests(plans))
            made = iter(self._keys.make(digests))
            if digests:
                self._outage.passed()
        except (OSError, JournalError) as error:
            failure = error if isinstance(error, JournalError) else _unwritten(error)
            self._outage.failed(error)
            self._fail([plan.done for plan in plans if plan.digests is not None], failure)
            plans, made = [plan for plan in plans if plan.digests is None], iter(())
        for plan in plans:
            head, body = plan.head, plan.body
            if plan.digests is not None:
                keys = [[next(made) for _ in digests] for digests in plan.digests]
                self.erased_again += sum(
                    any(number == NEVER_KEPT for number, _ in part) for part in keys
                )
                try:
                    body = _sealed(plan, keys)
                except Exception:
                    log.exception("a request could not be sealed")
                    self._fail([plan.done], JournalError("sealing: it could not be done"))
                    continue
                head = readable_head(plan.head, self._settings.headers)
            self._call(partial(self._journal.append, head, body, plan.done))

    def _planned(self, head: bytes, body: bytes, done: Done) -> _Plan:
        record = EventRecord(
            partition=0, position=0, received_ns=time.time_ns(), head=head, body=body
        )
        events, _ = parse(record, self._settings.limits)
        covers = self._settings.covers
        requests = {event.ref.index: requests_of(event) for event in events}
        names = {name for found in requests.values() for name, _ in found}
        is_covered = any(map(covers, names)) or _ANY in self._settings.deployments
        # What says that something was erased must be readable for ever.
        if not is_covered or (events and all(event.type == ERASURE_TYPE for event in events)):
            return _Plan(head, body, done)
        digest = partial(request_digest, self._keys.digest_key)
        digests = {of: [digest(*item) for item in found] for of, found in requests.items()}
        frame = [self._frame]
        if not events or BATCH not in head.lower() or not is_batch(read_head(head)):
            return _Plan(head, body, done, digests=[digests.get(0, frame)])
        head, body = self._inflated(head, body)
        pieces = list(pieces_of(body, digests))
        ordered = [frame, *(digests[piece.number] for piece in pieces)]
        return _Plan(head, body, done, pieces=pieces, digests=ordered)

    def _inflated(self, head: bytes, body: bytes) -> tuple[bytes, bytes]:
        """Return a compressed batch as its text: members of a compressed one have no bytes."""
        coding = read_head(head).content_encoding
        if not coding:
            return head, body
        lines = head.split(b"\r\n")
        kept = [line for line in lines if not line.lower().startswith(b"content-encoding:")]
        most = self._settings.limits.max_inflated_bytes
        return b"\r\n".join(kept), inflate(body, coding, max_bytes=most)

    def _fail(self, dones: Collection[Done], error: JournalError) -> None:
        for done in dones:
            self._call(partial(done, -1, error))

    def _call(self, call: Callable[[], None]) -> None:
        if self._deliver is None:
            call()
            return
        try:
            self._deliver(call)
        except RuntimeError:
            # The loop of a door that is going down may be closed already; its clients are gone.
            log.info("the door is closed; nobody waits for this record")


def _unwritten(error: OSError) -> JournalError:
    if error.errno in _FULL:
        return JournalFull(
            "keys: expected room on the disk, got none; nothing was stored, free some space and "
            "send again"
        )
    return JournalError(f"keys: expected to write and sync, got {error.strerror}; send again")


def _sealed(plan: _Plan, keys: list[list[Key]]) -> bytes:
    if plan.pieces is None:
        return seal_request(plan.head, plan.body, keys[0]).encode()
    return seal_batch(plan.head, plan.body, plan.pieces, keys).encode()


def _digests(plans: list[_Plan]) -> Iterator[bytes]:
    for plan in plans:
        for digests in plan.digests or ():
            yield from digests
