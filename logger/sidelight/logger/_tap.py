"""Copies of what a relay passes on, bounded, handed to the tap when the client has its answer."""

import logging
import time
from typing import Literal

from sidelight.logger._connections import Connections, Limits
from sidelight.logger._exchange import Exchange, Tap
from sidelight.logger._http_head import RequestHead, ResponseHead
from sidelight.logger._request_id import id_in_body
from sidelight.logger._tap_body import Kept

log = logging.getLogger(__name__)


class Capture:
    """Follows the exchanges of one client connection, one after the other.

    Parameters
    ----------
    tap : Tap
        Asked whether it wants an exchange, then offered it.
    limits : Limits
        Bounds of what is kept.
    connections : Connections
        Counts what was captured and what the tap spoiled; makes ids.

    Attributes
    ----------
    request, response : Kept
        The bodies of the exchange in work.
    """

    __slots__ = (
        "_arrived",
        "_connections",
        "_gives_id",
        "_head",
        "_own_id",
        "_passed_on",
        "_request_id",
        "_started",
        "_started_ns",
        "_tap",
        "_trusts_ids",
        "request",
        "response",
    )

    def __init__(self, tap: Tap, *, limits: Limits, connections: Connections) -> None:
        self._tap = tap
        self._connections = connections
        self._gives_id = limits.gives_request_id
        self._trusts_ids = limits.trusts_request_ids
        self._head: RequestHead | None = None
        self._own_id = self._request_id = b""
        self._started = 0.0
        self._started_ns = 0
        self._passed_on = 0.0
        self._arrived = 0.0
        self.request = Kept(limits, connections)
        self.response = Kept(limits, connections)

    def begin(self, head: RequestHead) -> bool:
        """Begin an exchange, if the tap wants it."""
        try:
            wanted = self._tap.wants(head.method, head.target, head.raw)
        except Exception:
            self._connections.tap_errors += 1
            log.exception("tap failed to say what it wants")
            return False
        if wanted:
            self._head = head
            self._request_id = head.request_id() if self._trusts_ids else b""
            self._own_id = b""
            self._started_ns = time.time_ns()
            self._started = self._passed_on = self._arrived = time.perf_counter()
        return wanted

    def passed_on(self) -> None:
        """Note that the request is on its way to the upstream."""
        self._passed_on = time.perf_counter()

    def arrived(self) -> None:
        """Note that a piece of the answer has come."""
        self._arrived = time.perf_counter()

    def identify(self, answer: ResponseHead | None, *, is_whole: bool) -> bytes:
        """Settle the id of the exchange when its answer begins.

        Parameters
        ----------
        answer : ResponseHead or None
            The upstream's; None when the answer is ours.
        is_whole : bool
            Whether the request has come to its end; half a body is not searched.

        Returns
        -------
        bytes
            The id that the client is to be told; empty when it has given one, or reads the
            upstream's, or is not to be told.
        """
        if self._own_id:
            # Ours takes the place of an answer that broke before its head was on its way.
            return self._own_id if self._gives_id else b""
        if self._trusts_ids:
            if not self._request_id and is_whole:
                self._request_id = id_in_body(self.request.beginning())
            if not self._request_id and answer is not None:
                self._request_id = answer.request_id or b""
            if self._request_id or not self._gives_id:
                return b""
        self._own_id = self._request_id = self._connections.request_ids.new()
        has_header = answer is not None and answer.request_id is not None
        return b"" if has_header or not self._gives_id else self._request_id

    def end(
        self,
        status: int,
        response_head: bytes,
        aborted_by: Literal["", "client", "upstream"] = "",
        *,
        n_missing: int = 0,
    ) -> None:
        """End the exchange and offer it, after what was written for the client is on its way.

        Of the request, ``n_missing`` bytes never came: the client went away, or had its answer
        before.
        """
        head = self._head
        if head is None:
            return
        self._head = None
        now = time.perf_counter()
        elapsed = now - self._started
        added_s = self._passed_on - self._started
        if self._arrived > self._passed_on:
            added_s += now - self._arrived
        request = self.request
        response = self.response
        request_cut = request.cut + n_missing
        response_cut = response.cut
        exchange = Exchange(
            method=head.method,
            target=head.target,
            request_head=head.raw,
            request_digest=request.digest if request_cut and not n_missing else b"",
            request_body=request.take(),
            response_head=response_head,
            response_digest=response.digest if response_cut else b"",
            response_body=response.take(),
            status=status,
            started_ns=self._started_ns,
            finished_ns=self._started_ns + int(elapsed * 1e9),
            latency_ms=elapsed * 1e3,
            request_cut=request_cut,
            response_cut=response_cut,
            added_s=added_s,
            request_id=self._request_id,
            aborted_by=aborted_by,
        )
        try:
            self._tap.offer(exchange)
        except Exception:
            self._connections.tap_errors += 1
            log.exception("tap failed to take an exchange")
        else:
            self._connections.captured += 1
