"""What all connections of one listener share: bounds, counts, and the way to end them."""

import asyncio
from dataclasses import dataclass
from typing import Protocol

from sidelight.logger._request_id import RequestIds


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of one listener.

    Attributes
    ----------
    max_head_bytes : int
        A longer head of a request is answered with 431, one of a response with 502.
    max_waiting_bytes : int
        What a client may send ahead of its answer, or of its upstream, before its connection is
        no longer read.
    capture_limit : int
        Bytes of a body that are kept for the tap; more is forwarded, counted and hashed, not kept.
        As base64 it has room in the 16 MiB that the collector's door takes. No more is read of a
        request whose upstream has failed.
    max_captured_bytes : int
        Bytes of the bodies that are kept of all exchanges in work together; beyond it a body is
        cut where it stands.
    max_collected_bytes : int
        Bytes of unfinished bodies of all connections together; a request that would exceed them
        is answered with 503.
    max_replay_bytes : int
        A request longer than this is not sent a second time.
    linger_s : float
        How long a refused client may go on sending before its connection is cut, and how long the
        rest of a request is waited for when the upstream has failed, seconds.
    idle_s : float
        A connection without a request in work that was silent for this long to twice as long is
        closed, and so is one whose head takes that long, however it drips in; seconds. One that
        stops for so long in the middle of a body is answered with 408.
    answer_s : float or None
        How long the head of the upstream's answer may take before 504, seconds, from the last
        piece of the request on; None waits for ever.
    gives_request_id : bool
        Whether a caller that gave no id is told, by ``X-Request-Id`` in the answer, the one that
        its captured exchange got. Answers pass on unchanged without that, and when they have the
        header.
    trusts_request_ids : bool
        Whether the id of an exchange is the one that its caller gave, or that the model answers
        with; otherwise each exchange gets one of ours, and every caller counts as one that gave
        none.
    has_few_statuses : bool
        Whether a bad head is answered with 400, or 413 where it is too long, and nothing else:
        senders of events know few answers.
    takes_absolute_form : bool
        Whether a target with scheme and authority is taken for the one without; otherwise it is
        passed on as it came.
    """

    max_head_bytes: int = 65536
    max_waiting_bytes: int = 262144
    capture_limit: int = 11 * 1024 * 1024
    max_captured_bytes: int = 64 * 1024 * 1024
    max_collected_bytes: int = 64 * 1024 * 1024
    max_replay_bytes: int = 65536
    linger_s: float = 2.0
    idle_s: float = 75.0
    answer_s: float | None = None
    gives_request_id: bool = True
    trusts_request_ids: bool = True
    has_few_statuses: bool = False
    takes_absolute_form: bool = False


class Closing(Protocol):
    """A connection that can be asked to end."""

    def finish(self) -> None:
        """End as soon as the request in work is answered; at once when there is none."""
        ...

    def sweep(self) -> None:
        """Look whether anything happened since the last call, and end if nothing did."""
        ...

    def cut(self) -> None:
        """End now."""
        ...


class Connections:
    """The open connections of one listener and what happened on them.

    Attributes
    ----------
    collected_bytes : int
        Bytes of unfinished bodies.
    captured_bytes : int
        Bytes that are kept of exchanges in work.
    requests : int
        Requests whose head was understood.
    refused : int
        Requests answered with an error of ours: bad syntax, too long, no upstream.
    captured : int
        Exchanges offered to the tap.
    tap_errors : int
        Exchanges lost because the tap raised.
    upstream_errors : int
        Requests answered with 502 or 504, or cut in the middle, because the upstream failed.
    retried : int
        Requests sent a second time because a kept connection had gone stale.
    request_ids : RequestIds
        Makes the ids of exchanges whose callers gave none.
    """

    __slots__ = (
        "_ended",
        "_open",
        "captured",
        "captured_bytes",
        "collected_bytes",
        "draining",
        "refused",
        "request_ids",
        "requests",
        "retried",
        "tap_errors",
        "upstream_errors",
    )

    def __init__(self) -> None:
        self._open: set[Closing] = set()
        self._ended: asyncio.Event | None = None
        self.draining = False
        self.collected_bytes = 0
        self.captured_bytes = 0
        self.requests = 0
        self.refused = 0
        self.captured = 0
        self.tap_errors = 0
        self.upstream_errors = 0
        self.retried = 0
        self.request_ids = RequestIds()

    def __len__(self) -> int:
        return len(self._open)

    def add(self, connection: Closing) -> None:
        """Count a connection that was made."""
        self._open.add(connection)

    def remove(self, connection: Closing) -> None:
        """Forget a connection that was lost."""
        self._open.discard(connection)
        if not self._open and self._ended is not None:
            self._ended.set()

    def sweep(self) -> None:
        """End what was silent for a whole interval; to be called every ``idle_s`` seconds."""
        for connection in tuple(self._open):
            connection.sweep()

    async def drain(self, grace_s: float) -> int:
        """End all connections: idle ones now, busy ones after their answer, all after the grace.

        Parameters
        ----------
        grace_s : float
            How long requests in work may take, seconds.

        Returns
        -------
        int
            Number of connections that had to be cut.
        """
        self.draining = True
        self._ended = asyncio.Event()
        for connection in tuple(self._open):
            connection.finish()
        if self._open:
            try:
                await asyncio.wait_for(self._ended.wait(), grace_s)
            except TimeoutError:
                left = tuple(self._open)
                for connection in left:
                    connection.cut()
                return len(left)
        return 0
