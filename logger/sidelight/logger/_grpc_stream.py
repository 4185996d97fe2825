"""Which answers of a stream belong to which of its requests, and when one has all of its answers.

A stream carries many inferences. Each request of it becomes an exchange of its own:

- An answer belongs to the request with its id (field 3 of both messages). One without an id
  belongs to the oldest request that has no answer yet, else to the last one answered.
- A request has all its answers when one says so (Triton's parameter ``triton_final_response``) or
  is an error, when the stream ends, when no answer came for a while after one, or when too many
  other requests wait. A model may answer one request never, once or many times.
- No answer is a body of no bytes; one is the bare message; several are the frames of
  ``application/grpc``. Triton's wrapping around each answer is taken off.
- The id of the exchange is the message's, where it is the first of the stream with it; else the
  id of the call, with a number from the second message on.
"""

import asyncio
import time
from typing import Final

from sidelight.logger._exchange import Exchange
from sidelight.logger._grpc_body import GrpcBody
from sidelight.logger._grpc_defer import Defer
from sidelight.logger._grpc_head import Metadata, request_head, response_head
from sidelight.logger._grpc_message import Streamed, streamed
from sidelight.logger._grpc_method import Method
from sidelight.logger._grpc_recorder import POST, Recorder
from sidelight.logger._grpc_status import OK, http_status

_MAX_USED_IDS: Final = 4096
_ERROR_STATUS: Final = 500


class _Asked:
    """A request whose answers are collected."""

    __slots__ = (
        "head",
        "id",
        "is_error",
        "last",
        "message_id",
        "request",
        "response",
        "started",
        "started_ns",
        "target",
    )

    def __init__(self, request: GrpcBody, response: GrpcBody) -> None:
        self.started_ns = time.time_ns()
        self.started = self.last = time.perf_counter()
        self.request = request
        self.response = response
        self.message_id = self.id = self.target = self.head = b""
        self.is_error = False


class StreamRecording:
    """One call with streams of requests and answers; nothing here raises.

    Parameters
    ----------
    recorder : Recorder
        Where exchanges go.
    method : Method
        Which one is called.
    metadata : tuple of (str, str or bytes)
        Of the call.
    defer : Defer
        How exchanges are offered.
    loop : AbstractEventLoop, optional
        For the time after which an answered request is finished; None does without.

    Attributes
    ----------
    request_id : bytes
        The call's own id, the caller's or a new one.
    is_id_new : bool
        Whether the caller has to be told the id.

    """

    def __init__(
        self,
        recorder: Recorder,
        method: Method,
        metadata: Metadata,
        *,
        defer: Defer,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._recorder = recorder
        self._method = method
        self._metadata = tuple(metadata)
        self._defer = defer
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None
        self._asked: list[_Asked] = []
        self._used: set[bytes] = set()
        self._n_requests = 0
        self._answered: Metadata = ()
        given = recorder.call_id(self._metadata)
        self.request_id = given or recorder.ids.new()
        self.is_id_new = not given

    @property
    def trusts_ids(self) -> bool:
        """Whether what the server answers with may become the id."""
        return self._recorder.limits.trusts_request_ids

    def request(self, message: bytes) -> None:
        """Take a request that is passed on."""
        with self._recorder.guarded:
            self._take_request(message)

    def response(self, message: bytes) -> None:
        """Take an answer that was passed on."""
        with self._recorder.guarded:
            self._take_response(message)

    def initial(self, metadata: Metadata) -> None:
        """Take the metadata that came before the first answer."""
        self._answered = tuple(metadata)

    def end(self, code: int, *, metadata: Metadata = (), aborted_by: str = "") -> None:
        """End the call: what is not finished is, with the status of the call."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        asked, self._asked = self._asked, []
        trailing = tuple(metadata)
        for item in asked:
            with self._recorder.guarded:
                self._finish(item, code, trailing, aborted_by)

    def _take_request(self, message: bytes) -> None:
        recorder = self._recorder
        self._n_requests += 1
        named = self._method.called(message, self._metadata)
        asked = _Asked(
            GrpcBody(recorder.limits, recorder.counts), GrpcBody(recorder.limits, recorder.counts)
        )
        asked.message_id = named.id
        asked.id = self._own_id(recorder.message_id(named.id))
        asked.target = self._method.target(named)
        asked.head = request_head(asked.target, self._metadata, is_one_of_many=True)
        asked.request.add(message)
        self._asked.append(asked)
        if len(self._asked) > recorder.limits.max_unfinished:
            oldest = next((item for item in self._asked if item.response.n), self._asked[0])
            self._finish(oldest)

    def _own_id(self, message_id: bytes) -> bytes:
        if message_id and message_id not in self._used:
            if len(self._used) >= _MAX_USED_IDS:
                self._used.clear()
            self._used.add(message_id)
            return message_id
        base = message_id or self.request_id
        return (
            base
            if not message_id and self._n_requests == 1
            else b"%b.%d"
            % (
                base,
                self._n_requests,
            )
        )

    def _take_response(self, message: bytes) -> None:
        answer = streamed(message)
        asked = self._belongs_to(answer)
        if asked is None:
            self._recorder.counts.unmatched += 1
            return
        asked.last = time.perf_counter()
        asked.response.add(answer.message)
        asked.is_error = asked.is_error or answer.is_error
        if answer.is_last or answer.is_error:
            self._finish(asked)
        elif self._timer is None and self._loop is not None:
            self._timer = self._loop.call_later(self._recorder.limits.settle_s, self._settle)

    def _belongs_to(self, answer: Streamed) -> _Asked | None:
        if answer.id:
            # The first of several with one id: servers answer in order.
            return next((item for item in self._asked if item.message_id == answer.id), None)
        unanswered = next((item for item in self._asked if not item.response.n), None)
        return unanswered or (self._asked[-1] if self._asked else None)

    def _settle(self) -> None:
        self._timer = None
        settle_s = self._recorder.limits.settle_s
        now = time.perf_counter()
        answered = [item for item in self._asked if item.response.n]
        left = [item for item in answered if now - item.last < settle_s]
        for item in answered:
            if item not in left:
                with self._recorder.guarded:
                    self._finish(item)
        if left and self._loop is not None:
            first = min(item.last for item in left)
            self._timer = self._loop.call_later(first + settle_s - now, self._settle)

    def _finish(
        self, asked: _Asked, code: int = OK, trailing: Metadata = (), aborted_by: str = ""
    ) -> None:
        if asked in self._asked:
            self._asked.remove(asked)
        request, response = asked.request.take(), asked.response.take()
        # Of a stream that ended well, a request without an answer ended with it.
        last = asked.last if asked.response.n and code == OK else time.perf_counter()
        elapsed = last - asked.started
        status = _ERROR_STATUS if asked.is_error and code == OK else http_status(code)
        metadata = (*self._answered, *trailing)
        exchange = Exchange(
            method=POST,
            target=asked.target,
            request_head=asked.head,
            request_body=request.data,
            response_head=response_head(status, code, metadata, media=response.media),
            response_body=response.data,
            status=status,
            started_ns=asked.started_ns,
            finished_ns=asked.started_ns + int(elapsed * 1e9),
            latency_ms=elapsed * 1e3,
            request_cut=request.cut,
            response_cut=response.cut,
            request_id=asked.id,
            request_digest=request.digest,
            response_digest=response.digest,
            aborted_by=aborted_by,
        )
        self._defer.soon(self._recorder.offer, exchange)
