"""One captured request with its answer, and what a capture hands it to."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(slots=True, kw_only=True)
class Exchange:
    """One captured request and its answer, as the bytes went by.

    Not frozen: freezing costs a microsecond for each of its fields, and one is built for every
    captured request.

    Attributes
    ----------
    method, target : bytes
        As in the request line.
    request_head, response_head : bytes
        Raw, from the first line through the blank line; ``response_head`` is empty when the client
        went away before there was one.
    request_body, response_body : bytes
        Without the framing of a chunked transfer, up to the capture bound.
    status : int
        As answered to the client; 502 or 504 when the proxy answered because the upstream failed.
        What was broken off in its middle has the status of the break, not the one that was sent:
        499 when the client went away before it had the whole answer, 502 when the upstream ended
        in the middle of its answer (whose head is in ``response_head``, and whose beginning the
        client has before its connection is cut).
    started_ns, finished_ns : int
        Wall clock, nanoseconds since 1970.
    latency_ms : float
        Monotonic, from the complete head of the request to the last byte of the answer,
        milliseconds.
    request_cut, response_cut : int
        Bytes beyond the capture bound that were forwarded but not kept. Of a request that did not
        come to its end, also those that never came; of one in chunks, which does not say how many,
        one.
    added_s : float
        What of the latency is the proxy's own, seconds: from the complete head of the request to
        its way to the upstream (with the wait for a connection), and the handling of the last
        piece of the answer.
    request_id : bytes
        The id by which both halves are paired, when whoever made the exchange knows it: the
        caller's; else the ``X-Request-Id`` of the answer, when the model gives one; else one that
        was made for this exchange and returned to the caller. Empty: it stands in a head or a
        body, or is made later.
    request_digest, response_digest : bytes
        SHA-256 of the whole body where it was cut, 32 bytes; otherwise empty. Of an answer
        that was broken off, the whole is what came; a request that was has none.
    aborted_by : str
        ``"client"`` (status 499) or ``"upstream"`` (502) when that side ended the exchange before
        the client had a whole answer; a 502 that the client could read whole is not aborted.
    """

    method: bytes
    target: bytes
    request_head: bytes
    request_body: bytes
    response_head: bytes
    response_body: bytes
    status: int
    started_ns: int
    finished_ns: int
    latency_ms: float
    request_cut: int = 0
    response_cut: int = 0
    added_s: float = 0.0
    request_id: bytes = b""
    request_digest: bytes = b""
    response_digest: bytes = b""
    aborted_by: str = ""


class Tap(Protocol):
    """Where captured exchanges go."""

    def wants(self, method: bytes, target: bytes, head: bytes) -> bool:
        """Whether the exchange that begins with this head is to be captured; cheap."""
        ...

    def offer(self, exchange: Exchange) -> None:
        """Take one exchange; never blocks, never raises."""
        ...
