"""One exchange that is copied while it passes through the model's own process."""

import logging
import time
from typing import Protocol

from sidelight.logger._body_copy import BodyCopy, CopyBudget
from sidelight.logger._exchange import Exchange, Tap
from sidelight.logger._request_id import header, id_in_body, id_in_head

log = logging.getLogger(__name__)

CLIENT_GONE = 499
"""Status of an exchange whose client went away before the answer; nginx's word for it."""

FAILED = 500
"""Status of an exchange in which the application failed before its answer."""


class IdentifyingTap(Tap, Protocol):
    """A tap that gives ids to requests that have none."""

    def new_id(self) -> bytes:
        """Return a request id that nobody else gives."""
        ...


class CopiedExchange:
    """Follow one exchange from its head to its end, and offer it then.

    Parameters
    ----------
    tap : IdentifyingTap
        Where it goes.
    method, target, head : bytes
        Of the request; ``head`` as HTTP/1.1 would have it.
    limit : int
        Bytes that are kept of each body.
    budget : CopyBudget
        Of all exchanges together.

    Attributes
    ----------
    request, response : BodyCopy
        The bodies as far as they have passed.
    status : int
        Of the answer; 0 before there is one.

    """

    __slots__ = (
        "_head",
        "_is_ended",
        "_lowered",
        "_method",
        "_own_id",
        "_request_id",
        "_response_head",
        "_started",
        "_started_ns",
        "_tap",
        "_target",
        "request",
        "response",
        "status",
    )

    def __init__(
        self,
        tap: IdentifyingTap,
        *,
        method: bytes,
        target: bytes,
        head: bytes,
        limit: int,
        budget: CopyBudget,
    ) -> None:
        self._tap = tap
        self._method = method
        self._target = target
        self._head = head
        self._lowered = head.lower()
        self._response_head = b""
        self._request_id = self._own_id = b""
        self._is_ended = False
        self._started_ns = time.time_ns()
        self._started = time.perf_counter()
        self.request = BodyCopy(limit, budget)
        self.response = BodyCopy(limit, budget)
        self.status = 0

    def identify(self, answer_head: bytes) -> bytes:
        """Return the id that the caller must be told; empty when it knows one.

        Parameters
        ----------
        answer_head : bytes
            Of the answer: what the application says there itself is told already.

        """
        if self._own_id:
            # An answer that takes the place of an earlier one tells the same.
            return self._own_id
        self._request_id = (
            id_in_head(self._head, self._lowered)
            or id_in_body(self.request.peek())
            or header(answer_head, answer_head.lower(), b"\r\nx-request-id:")
        )
        if not self._request_id:
            self._request_id = self._own_id = self._tap.new_id()
        return self._own_id

    def answer(self, status: int, head: bytes) -> None:
        """Note the head of the answer; a later one replaces it."""
        self.status = status
        self._response_head = head

    def end(self, status: int = FAILED, *, aborted_by: str = "") -> None:
        """Offer the exchange; only the first end counts.

        Parameters
        ----------
        status : int
            When no answer was begun.
        aborted_by : str
            See ``Exchange``.

        """
        if self._is_ended:
            return
        self._is_ended = True
        elapsed = time.perf_counter() - self._started
        request, response = self.request, self.response
        # Before the bodies are given out.
        request_cut = request.cut or self._unread()
        self._tap.offer(
            Exchange(
                method=self._method,
                target=self._target,
                request_head=self._head,
                request_body=request.take(),
                response_head=self._response_head,
                response_body=response.take(),
                status=self.status or status,
                started_ns=self._started_ns,
                finished_ns=self._started_ns + int(elapsed * 1e9),
                latency_ms=elapsed * 1e3,
                request_cut=request_cut,
                response_cut=response.cut,
                request_id=self._request_id,
                request_digest=request.digest,
                response_digest=response.digest,
                aborted_by=aborted_by,
            )
        )

    def _unread(self) -> int:
        """Return how many bytes of the request the application left unread, as far as is told."""
        told = header(self._head, self._lowered, b"\r\ncontent-length:")
        return max(0, int(told) - self.request.size) if told.isdigit() else 0
