"""From calls of gRPC to exchanges, for the proxy and the interceptors alike."""

import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from hashlib import sha256
from threading import Lock
from typing import Final, Protocol

from sidelight.logger._exchange import Exchange, Tap
from sidelight.logger._grpc_body import GrpcCounts, GrpcLimits
from sidelight.logger._grpc_defer import Defer
from sidelight.logger._grpc_head import REQUEST_ID, Metadata, given_id, request_head, response_head
from sidelight.logger._grpc_method import METHODS, Method
from sidelight.logger._grpc_status import http_status
from sidelight.logger._request_id import RequestIds

log = logging.getLogger(__name__)

POST: Final = b"POST"


class Recorder:
    """Make exchanges of the calls of one server and offer them to a tap.

    Nothing here raises: a call never fails because of its capture.

    Parameters
    ----------
    tap : Tap
        Asked whether it wants a call, then offered its exchange.
    limits : GrpcLimits, optional
        Bounds of what is kept.
    counts : GrpcCounts, optional
        Where it is counted.

    """

    def __init__(
        self, tap: Tap, *, limits: GrpcLimits | None = None, counts: GrpcCounts | None = None
    ) -> None:
        self.tap = tap
        self.limits = limits or GrpcLimits()
        self.counts = counts or GrpcCounts()
        self.ids = RequestIds()
        self.guarded = _Guarded(self.counts)
        self._worker: ThreadPoolExecutor | None = None
        self._waiting = 0
        self._lock = Lock()

    def close(self) -> None:
        """Wait for what is hashed; it has been offered, or its loop been told to, afterwards."""
        if self._worker is not None:
            self._worker.shutdown()

    def finish(self, do: Callable[[], None], size: int) -> bool:
        """Run on a thread what takes time by the size of messages; False when too many wait."""
        with self._lock:
            if self._waiting and self._waiting + size > self.limits.max_captured_bytes:
                return False
            self._waiting += size
            if self._worker is None:
                self._worker = ThreadPoolExecutor(1, "sidelight-grpc")
        self._worker.submit(self._finish, do, size)
        return True

    def _finish(self, do: Callable[[], None], size: int) -> None:
        with self.guarded:
            do()
        with self._lock:
            self._waiting -= size

    def call(
        self, path: str, metadata: Metadata, message: bytes, defer: Defer
    ) -> "CallRecording | None":
        """Begin to record a call of one request and one answer; None when nobody wants it.

        Parameters
        ----------
        path : str
            ``/package.Service/Method``.
        metadata : iterable of (str, str or bytes)
            Of the call.
        message : bytes
            The request, serialised.
        defer : Defer
            How the exchange is offered.

        """
        method = METHODS.get(path)
        if method is None:
            return None
        with self.guarded:
            named = method.called(message, metadata)
            target = method.target(named)
            head = request_head(target, metadata)
            if self.tap.wants(POST, target, head):
                recording = CallRecording(self, target, head, defer)
                given = self.call_id(metadata) or self.message_id(named.id)
                recording.request_id = given or self.ids.new()
                recording.is_id_new = not given
                recording.request(message)
                return recording
        return None

    def call_id(self, metadata: Metadata) -> bytes:
        """Return the id that a caller gave to a whole call; empty when none counts."""
        return given_id(metadata) if self.limits.trusts_request_ids else b""

    def message_id(self, given: bytes) -> bytes:
        """Return the id that a caller gave to one message; empty when none counts."""
        return given if self.limits.trusts_request_ids else b""

    def wants(self, method: Method, metadata: Metadata) -> bool:
        """Whether the tap wants a stream, of which the messages are still to come."""
        with self.guarded:
            return self.tap.wants(POST, method.path, request_head(method.path, metadata))
        return False

    def offer(self, exchange: Exchange) -> None:
        """Offer an exchange to the tap."""
        with self.guarded:
            self.tap.offer(exchange)
            self.counts.took()


class Recording(Protocol):
    """What goes by in one call; nothing of it raises."""

    request_id: bytes
    is_id_new: bool

    @property
    def trusts_ids(self) -> bool:
        """Whether what the server answers with may become the id."""
        ...

    def request(self, message: bytes) -> None:
        """Take a request."""
        ...

    def initial(self, metadata: Metadata) -> None:
        """Take the metadata in front of the answers."""
        ...

    def response(self, message: bytes) -> None:
        """Take an answer."""
        ...

    def end(self, code: int, *, metadata: Metadata = (), aborted_by: str = "") -> None:
        """End the call; ``metadata`` came behind the answers."""
        ...


class _Guarded:
    """A block that ends at an error of ours, which is counted and logged."""

    def __init__(self, counts: GrpcCounts) -> None:
        self._counts = counts

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> bool:
        if not isinstance(error, Exception):
            return False
        self._counts.tap_errors += 1
        log.error("capture of a gRPC call failed", exc_info=error)
        return True


class CallRecording:
    """One call with one request and one answer.

    Attributes
    ----------
    request_id : bytes
        The caller's or a new one.
    is_id_new : bool
        Whether the caller has to be told the id.
    """

    __slots__ = (
        "_added_s",
        "_arrived",
        "_defer",
        "_head",
        "_initial",
        "_recorder",
        "_request",
        "_request_room",
        "_response",
        "_started",
        "_started_ns",
        "_target",
        "is_id_new",
        "request_id",
    )

    def __init__(self, recorder: Recorder, target: bytes, head: bytes, defer: Defer) -> None:
        self._recorder = recorder
        self._target = target
        self._head = head
        self._defer = defer
        self._started_ns = time.time_ns()
        self._started = self._arrived = time.perf_counter()
        self._added_s = 0.0
        self._request = self._response = b""
        self._request_room = 0
        self._initial: Metadata = ()
        self.request_id = b""
        self.is_id_new = False

    @property
    def trusts_ids(self) -> bool:
        """Whether what the server answers with may become the id."""
        return self._recorder.limits.trusts_request_ids

    def passed_on(self) -> None:
        """Note that the request is on its way to the model."""
        self._added_s = time.perf_counter() - self._started

    def arrived(self) -> None:
        """Note that the answer has come."""
        self._arrived = time.perf_counter()

    def request(self, message: bytes) -> None:
        """Take the request."""
        self._request = message
        self._request_room = self._room(message)
        self._recorder.counts.keep(self._request_room)

    def initial(self, metadata: Metadata) -> None:
        """Take the metadata in front of the answer."""
        self._initial = metadata

    def response(self, message: bytes) -> None:
        """Take the answer."""
        self._response = message

    def end(self, code: int, *, metadata: Metadata = (), aborted_by: str = "") -> None:
        """End the call and offer its exchange.

        Parameters
        ----------
        code : int
            Status of gRPC as answered to the client.
        metadata : iterable of (str, str or bytes)
            What came behind the answer.
        aborted_by : str
            As in ``Exchange``.

        """
        recorder = self._recorder
        with recorder.guarded:
            recorder.counts.keep(-self._request_room)
            room = self._room(self._response)
            exchange = self._exchange(code, metadata, aborted_by)
            exchange.request_cut = len(self._request) - self._request_room
            exchange.response_cut = len(self._response) - room
            if exchange.request_cut or exchange.response_cut:
                size = len(self._request) + len(self._response)
                if recorder.finish(partial(self._hash, exchange), size):
                    return
                # Rather no digest than memory without bound.
                self._cut(exchange)
            self._defer.soon(recorder.offer, exchange)

    def _room(self, message: bytes) -> int:
        """Return how much of a message may be kept."""
        limits = self._recorder.limits
        left = limits.max_captured_bytes - self._recorder.counts.captured_bytes
        return max(min(len(message), limits.capture_limit, left), 0)

    def _hash(self, exchange: Exchange) -> None:
        """Hash and cut what is too long, which no answer is to wait for."""
        if exchange.request_cut:
            exchange.request_digest = sha256(self._request).digest()
        if exchange.response_cut:
            exchange.response_digest = sha256(self._response).digest()
        self._cut(exchange)
        self._defer.from_thread(self._recorder.offer, exchange)

    def _cut(self, exchange: Exchange) -> None:
        exchange.request_body = self._request[: len(self._request) - exchange.request_cut]
        exchange.response_body = self._response[: len(self._response) - exchange.response_cut]

    def _exchange(self, code: int, trailing: Metadata, aborted_by: str) -> Exchange:
        now = time.perf_counter()
        elapsed = now - self._started
        if self._arrived > self._started:
            self._added_s += now - self._arrived
        status = http_status(code)
        return Exchange(
            method=POST,
            target=self._target,
            request_head=self._head,
            request_body=self._request,
            response_head=response_head(status, code, (*self._initial, *trailing)),
            response_body=self._response,
            status=status,
            started_ns=self._started_ns,
            finished_ns=self._started_ns + int(elapsed * 1e9),
            latency_ms=elapsed * 1e3,
            added_s=self._added_s,
            request_id=self.request_id,
            aborted_by=aborted_by,
        )


def returned_id(recording: Recording | None, metadata: Metadata) -> tuple[tuple[str, str], ...]:
    """Return what the caller is told of the id: nothing when it knows one.

    An id that the model server answers with is the one that the caller sees, so it is taken.
    """
    if recording is None or not recording.is_id_new:
        return ()
    for key, value in metadata:
        if key == REQUEST_ID and isinstance(value, str) and value.strip():
            if recording.trusts_ids:
                recording.request_id = value.strip().encode("latin-1", "replace")
            return ()
    return ((REQUEST_ID, recording.request_id.decode("latin-1")),)
