"""The server's side of one HTTP/1.1 connection: requests in, in order, one answered at a time."""

import asyncio
import logging
from functools import partial
from typing import Final

from sidelight.logger._connection_answer import for_client, with_header
from sidelight.logger._connection_body import CollectedBody, too_long, too_many
from sidelight.logger._connection_head import in_origin_form, read_head, without_empty_lines
from sidelight.logger._connection_peer import has_hung_up, keep_asking
from sidelight.logger._connections import Connections, Limits
from sidelight.logger._exchange import Tap
from sidelight.logger._http import Request, Service, problem
from sidelight.logger._http_head import Refused, RequestHead
from sidelight.logger._relay import Relay
from sidelight.logger._upstream import Upstream

log = logging.getLogger(__name__)

READY: Final = 0  # waiting for a head
_COLLECTING: Final = 1  # waiting for the body of a request of ours
ANSWERING: Final = 2  # waiting for the service's answer
_RELAYING: Final = 3  # the relay has it
_ENDED: Final = 4  # what still comes is not looked at

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_HEAD_TOO_LONG: Final = 431

# Why a connection is not read.
_WAITING_FULL: Final = 1
_UPSTREAM_FULL: Final = 2


class Connection(asyncio.Protocol):
    """One client's connection.

    Parameters
    ----------
    service : Service
        Decides about each request and answers what it collects.
    upstream : Upstream, optional
        Where relayed requests go; without one they are answered with 404.
    tap : Tap, optional
        Gets a copy of every relayed exchange that it wants.
    limits : Limits, optional
        Bounds.
    connections : Connections, optional
        What this connection shares with the others of its listener.

    Notes
    -----
    Made for uvloop, works on any asyncio loop. A head equal to the one before on the same
    connection is not read again: the usual client repeats itself.
    """

    __slots__ = (
        "_body",
        "_buffer",
        "_closing",
        "_half_closed",
        "_head",
        "_is_late",
        "_last",
        "_relay",
        "_running",
        "_serial",
        "_service",
        "_state",
        "_tap",
        "_touched",
        "_upstream",
        "_write_full",
        "connections",
        "held",
        "limits",
        "transport",
    )

    transport: asyncio.Transport
    _head: RequestHead

    def __init__(
        self,
        service: Service,
        upstream: Upstream | None = None,
        tap: Tap | None = None,
        *,
        limits: Limits | None = None,
        connections: Connections | None = None,
    ) -> None:
        self._service = service
        self._upstream = upstream
        self._tap = tap
        self.limits = limits if limits is not None else Limits()
        self.connections = connections if connections is not None else Connections()
        self._state = READY
        self._buffer = b""
        self._last: RequestHead | None = None
        self._relay: Relay | None = None
        self._body: CollectedBody | None = None
        self._serial = 0
        self._running = False
        self._closing = False
        self.held = 0
        self._write_full = False
        self._touched = True
        self._is_late = False
        self._half_closed = False

    # What the loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self.transport = transport  # type: ignore[assignment]  # servers make full transports
        self.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - a cut is an end too
        """End: an answer that comes later is dropped, a relayed request is given up."""
        self.connections.remove(self)
        relaying = self._state == _RELAYING
        self._state = _ENDED
        self._serial += 1
        self._buffer = b""
        self._drop_body()
        if relaying and self._relay is not None:
            self._relay.client_lost()

    def data_received(self, data: bytes) -> None:
        """Take what came."""
        self._touched = True
        state = self._state
        if state == READY:
            self._buffer = self._buffer + data if self._buffer else data
            if not self._write_full:
                self._run()
        elif state == _COLLECTING:
            self._collect(data)
            self._run()
        elif state == _RELAYING:
            assert self._relay is not None  # noqa: S101 - the state says so
            self._wait_with(self._relay.request_data(data))
        elif state == ANSWERING:
            self._wait_with(data)

    def eof_received(self) -> bool:
        """Keep the connection of a client that has said all and waits for its answers.

        Whether it has closed only its own half, or is gone, TCP does not tell before something is
        sent. So what is in work is answered, unless the system knows better.
        """
        state = self._state
        if state == _RELAYING and self._relay is not None:
            keeps = self._relay.client_ended()
        else:
            keeps = state == ANSWERING
        if not keeps or has_hung_up(self.transport):
            return False
        self._half_closed = True
        keep_asking(self.transport)
        return True

    def pause_writing(self) -> None:
        """Stop taking requests and answers: the client does not read."""
        self._write_full = True
        if self._state == _RELAYING and self._relay is not None:
            self._relay.client_full()

    def resume_writing(self) -> None:
        """Go on."""
        self._write_full = False
        if self._state == _RELAYING and self._relay is not None:
            self._relay.client_ready()
        else:
            self._run()

    # What the listener calls.

    def finish(self) -> None:
        """End as soon as the request in work is answered; at once when there is none."""
        self._closing = True
        if self._state == READY:
            self._end()

    def sweep(self) -> None:
        """End a connection that was silent since the last call and has no request in work.

        So does one whose head was there in parts at the last call and still is, and one whose
        client has turned out to be gone, not only to have said all.
        """
        if self._half_closed and has_hung_up(self.transport):
            self.transport.abort()
        elif self._state == READY and self._buffer and not self._write_full:
            if self._is_late:
                self._refuse(problem(408, "the head of the request did not come in time"))
            self._is_late = True
        elif not self._touched:
            if self._state == READY:
                self._end()
            elif self._state == _COLLECTING:
                self._refuse(problem(408, "the request did not come to its end in time"))
            elif self._state == _RELAYING and not self.held and self._relay is not None:
                self._relay.client_stalled()
            elif self._state == _ENDED:
                self.transport.abort()
        self._touched = False

    def cut(self) -> None:
        """End now."""
        self.transport.abort()

    # What the relay calls.

    def hold(self) -> None:
        """Do not read: the upstream cannot take more."""
        self._hold(_UPSTREAM_FULL)

    def free(self) -> None:
        """Read again, unless there is another reason not to."""
        self._free(_UPSTREAM_FULL)

    def take_waiting(self) -> bytes:
        """Give out what the client sent ahead of its answer."""
        waiting, self._buffer = self._buffer, b""
        self._free(_WAITING_FULL)
        return waiting

    def _hold(self, reason: int) -> None:
        if not self.held and not self.transport.is_closing():
            self.transport.pause_reading()
        self.held |= reason

    def _free(self, reason: int) -> None:
        if self.held & reason:
            self.held &= ~reason
            if not self.held and not self.transport.is_closing():
                self.transport.resume_reading()

    @property
    def is_write_full(self) -> bool:
        """Whether the client does not read what it was sent."""
        return self._write_full

    @property
    def is_closing(self) -> bool:
        """Whether the connection ends with the answer in work."""
        return self._closing

    def relayed(self, *, keep_alive: bool, whole: bool) -> None:
        """Go on after an answer that the relay has passed on.

        Parameters
        ----------
        keep_alive : bool
            Whether the connection may be used again.
        whole : bool
            Whether the request was read to its end.
        """
        if not whole:
            self._linger()
        elif keep_alive and not self._closing:
            self._ready()
        else:
            self._end()

    def send_problem(self, payload: bytes, *, whole: bool) -> None:
        """Answer the relayed request with an error of ours."""
        keep_alive = whole and self._head.keep_alive and not self._closing
        self._send(payload, keep_alive=keep_alive)
        self.relayed(keep_alive=keep_alive, whole=whole)

    # Requests, one after the other.

    def _run(self) -> None:
        # A loop, not recursion: an answer given at once inside of it only changes the state, so
        # that a thousand pipelined requests do not nest.
        if self._running:
            return
        self._running = True
        try:
            while self._state == READY and self._buffer and not self._write_full:
                if not self._next():
                    break
        finally:
            self._running = False
        if self._half_closed and self._state == READY and not self._write_full:
            self._end()
        elif self.held & _WAITING_FULL and len(self._buffer) < self.limits.max_waiting_bytes:
            self._free(_WAITING_FULL)

    def _next(self) -> bool:
        data = self._buffer
        head = self._last
        if head is None or not data.startswith(head.raw):
            data = without_empty_lines(data)
            if self.limits.takes_absolute_form:
                data = in_origin_form(data)
            self._buffer = data
            try:
                head = read_head(data, self.limits.max_head_bytes)
            except Refused as refused:
                self._refuse(self._told(refused).response())
                return False
            if head is None:
                return False
            self._last = head
            self._is_late = False
        self._head = head
        self.connections.requests += 1
        try:
            verdict = self._service.admit(head.method, head.target, head.raw)
        except Exception:
            log.exception("service failed to admit a request")
            verdict = problem(500, "the request could not be looked at")
        if verdict is None and self._upstream is not None:
            self._state = _RELAYING
            self._buffer = b""
            relay = self._relay
            if relay is None:
                relay = self._relay = Relay(self, self._upstream, self._tap)
            self._wait_with(relay.begin(head, data))
            return True
        self._buffer = data[len(head.raw) :]
        if isinstance(verdict, int):
            self._begin_collecting(verdict)
        else:
            self._refuse_politely(
                verdict
                if verdict is not None
                else problem(404, "nothing is served at this address", got=head.target)
            )
        return True

    def _told(self, refused: Refused) -> Refused:
        if self.limits.has_few_statuses:
            refused.status = 413 if refused.status == _HEAD_TOO_LONG else 400
        return refused

    def _begin_collecting(self, limit: int) -> None:
        head = self._head
        length = head.length
        if length > limit:
            self._refuse(too_long(limit).response())
            return
        if 0 <= length <= len(self._buffer):
            body = self._buffer[:length]
            self._buffer = self._buffer[length:]
            self._handle(body)
            return
        self._state = _COLLECTING
        self._body = CollectedBody(length, limit)
        if head.expects_continue and not self._buffer:
            self.transport.write(_CONTINUE)
        if self._buffer:
            self._collect(self._buffer)

    def _collect(self, data: bytes) -> None:
        body = self._body
        assert body is not None  # noqa: S101 - the state says so
        before = body.size
        try:
            self._buffer = body.feed(data)
        except Refused as refused:
            self.connections.collected_bytes += body.size - before
            self._refuse(refused.response())
            return
        self.connections.collected_bytes += body.size - before
        if body.ended:
            self._drop_body()
            self._handle(body.take())
        elif self.connections.collected_bytes > self.limits.max_collected_bytes:
            self._refuse(too_many(self.limits.max_collected_bytes))

    def _drop_body(self) -> None:
        if self._body is not None:
            self.connections.collected_bytes -= self._body.size
            self._body = None

    def _handle(self, body: bytes) -> None:
        head = self._head
        self._state = ANSWERING
        self._serial += 1
        request = Request(head.method, head.target, head.raw, body)
        respond = partial(self._answer, self._serial)
        try:
            self._service.handle(request, respond)
        except Exception:
            log.exception("service failed to handle a request")
            respond(problem(500, "the request could not be handled"))

    def _answer(self, serial: int, payload: bytes) -> None:
        if serial != self._serial or self._state != ANSWERING:
            return
        self._serial += 1
        keep_alive = self._head.keep_alive and not self._closing
        keep_alive = self._send(payload, keep_alive=keep_alive)
        if keep_alive:
            self._ready()
        else:
            self._end()

    def _ready(self) -> None:
        self._state = READY
        if self._buffer or self.held:
            self._run()
        if self._half_closed and self._state == READY and not self._running:
            self._end()

    def _wait_with(self, data: bytes) -> None:
        # More than one request at a time is nobody's hurry: what came early waits, bounded.
        if data:
            self._buffer = self._buffer + data if self._buffer else data
            if self._state == READY:
                self._run()
            elif self._state == _ENDED:
                self._buffer = b""
            elif len(self._buffer) > self.limits.max_waiting_bytes:
                self._hold(_WAITING_FULL)

    # Answers of ours.

    def _send(self, payload: bytes, *, keep_alive: bool) -> bool:
        payload, keep_alive = for_client(payload, self._head, keep_alive=keep_alive)
        self.transport.write(payload)
        return keep_alive

    def _refuse_politely(self, payload: bytes) -> None:
        """Refuse an understood request; its body, if it is here already, is passed over."""
        length = self._head.length
        if 0 <= length <= len(self._buffer):
            self._buffer = self._buffer[length:]
            self._state = ANSWERING
            self._answer(self._serial, payload)
        else:
            self._send(payload, keep_alive=False)
            self._linger()

    def _refuse(self, payload: bytes) -> None:
        """Refuse what was not understood; nothing after it can be."""
        self.connections.refused += 1
        self.transport.write(with_header(payload, b"connection: close"))
        self._linger()

    def _linger(self) -> None:
        # RFC 9112 9.6: closing while the client still sends resets the connection, and the reset
        # can destroy the answer before the client has read it.
        self._forget()
        transport = self.transport
        if transport.is_closing():
            return
        if transport.can_write_eof():
            transport.write_eof()
        self.held = 0
        transport.resume_reading()
        asyncio.get_running_loop().call_later(self.limits.linger_s, transport.abort)

    def _end(self) -> None:
        self._forget()
        self.transport.close()

    def _forget(self) -> None:
        self._state = _ENDED
        self._serial += 1
        self._buffer = b""
        self._drop_body()
