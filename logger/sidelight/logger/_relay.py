"""Passes the requests of one client on to the upstream and the answers back, as they come."""

import ssl
from typing import Final, Literal

from sidelight.logger._connection_answer import with_header
from sidelight.logger._exchange import Tap
from sidelight.logger._http import problem
from sidelight.logger._http_head import CHUNKED, Refused, RequestHead, ResponseHead
from sidelight.logger._relay_answer import Answer
from sidelight.logger._relay_body import RequestBody
from sidelight.logger._relay_client import Client
from sidelight.logger._relay_deadline import Deadline
from sidelight.logger._tap import Capture
from sidelight.logger._upstream import Upstream
from sidelight.logger._upstream_link import Link

_SWITCHING_PROTOCOLS: Final = 101
_CLIENT_GONE: Final = 499
_UPSTREAM_GONE: Final = 502


class Relay:
    """One client's way to the upstream; it is used again for each of its requests.

    Parameters
    ----------
    client : Client
        The client's connection.
    upstream : Upstream
        Where requests go.
    tap : Tap or None
        Gets copies.
    """

    __slots__ = (
        "_answer",
        "_answer_s",
        "_body",
        "_capture",
        "_client",
        "_deadline",
        "_failure",
        "_head",
        "_identify",
        "_is_captured",
        "_is_tunnel",
        "_link",
        "_link_held",
        "_passed_over",
        "_queue",
        "_replay",
        "_retried",
        "_upstream",
    )

    _head: RequestHead

    def __init__(self, client: Client, upstream: Upstream, tap: Tap | None) -> None:
        self._client = client
        self._upstream = upstream
        self._capture = (
            Capture(tap, limits=client.limits, connections=client.connections)
            if tap is not None
            else None
        )
        self._answer = Answer()
        self._body = RequestBody()
        self._identify = self._settle_id
        self._is_captured = False
        self._is_tunnel = False
        self._link: Link | None = None
        self._link_held = False
        self._queue: bytes | None = None
        self._replay: bytes | None = None
        self._retried = False
        # Of a request whose upstream failed: our answer, which waits for the rest of the body.
        self._failure: tuple[int, bytes] | None = None
        self._passed_over = 0
        self._answer_s = client.limits.answer_s
        self._deadline = Deadline(self._expired)

    # The client's side.

    def begin(self, head: RequestHead, data: bytes) -> bytes:
        """Pass a request on, with what has come of its body; returns what follows it."""
        self._head = head
        self._retried = False
        capture = self._capture
        is_captured = self._is_captured = capture is not None and capture.begin(head)
        self._answer.reset(head, self._identify if is_captured else None)
        body = self._body
        size = len(head.raw)
        end = size + head.length
        if size <= end <= len(data):
            rest = data[end:]
            content = data[size:end]
            if is_captured and content:
                capture.request.add(content)  # type: ignore[union-attr]  # captured, so there is one
            message = data if head.forward is head.raw and not rest else head.forward + content
            body.ended = True
        else:
            body.begin(head.length)
            if is_captured:
                capture.request.announce(head.length)  # type: ignore[union-attr]  # as above
            message = head.forward
            rest = data[size:]
        self._replay = message if len(message) <= self._client.limits.max_replay_bytes else None
        link = self._upstream.take(self)
        self._link = link
        if link is not None:
            link.transport.write(message)
            if is_captured:
                capture.passed_on()  # type: ignore[union-attr]  # as above
        else:
            self._queue = message
        if self._answer_s is not None:
            self._deadline.begin(self._answer_s)
        return rest if body.ended or not rest else self.request_data(rest)

    def request_data(self, data: bytes) -> bytes:
        """Pass on more of the request's body; returns what follows its end."""
        if self._is_tunnel:
            if self._link is not None:
                self._link.transport.write(data)
            return b""
        body = self._body
        if body.ended:
            return data
        try:
            framed, parts, rest = body.feed(data)
        except Refused as refused:
            self._failure = None
            self._give_up(400, refused.response(), aborted_by="client")
            return b""
        if self._is_captured:
            for part in parts:
                self._capture.request.add(part)  # type: ignore[union-attr]  # as in begin
        if self._failure is not None:
            self._pass_over(framed)
        elif framed:
            self._send_on(framed)
            if self._answer_s is not None:
                self._deadline.begin(self._answer_s)
        return rest

    def client_ended(self) -> bool:
        """Learn that the client sends no more; returns whether it can still be answered."""
        if not self._is_tunnel:
            return self._body.ended
        link = self._link
        if link is None or not link.transport.can_write_eof():
            return False
        link.transport.write_eof()
        return True

    def client_full(self) -> None:
        """Stop reading the upstream: the client does not read."""
        if self._link is not None and not self._link_held:
            self._link_held = True
            self._link.transport.pause_reading()

    def client_ready(self) -> None:
        """Read the upstream again."""
        if self._link_held:
            self._link_held = False
            if self._link is not None and not self._link.transport.is_closing():
                self._link.transport.resume_reading()

    def client_stalled(self) -> None:
        """Give up on a client that has stopped in the middle of its request."""
        head, body = self._head, self._body
        is_asked = not (head.expects_continue and body.left in {head.length, CHUNKED})
        if is_asked and not body.ended and not self._is_tunnel and self._answer.head is None:
            self._failure = None
            payload = problem(408, "the request did not come to its end in time")
            self._give_up(408, payload, aborted_by="client")

    def client_lost(self) -> None:
        """Give the request up; nobody waits for its answer."""
        self._deadline.close()
        self._failure = None
        link, self._link = self._link, None
        self._queue = None
        self._upstream.cancel(self)
        if link is not None:
            if self._is_tunnel:
                link.release(keep_alive=False)
            else:
                link.drop()
        self._record(_CLIENT_GONE, aborted_by="client")

    # The upstream's side.

    def linked(self, link: Link) -> None:
        """Send what has waited for the connection."""
        queue, self._queue = self._queue, None
        if queue is None:
            link.release(keep_alive=True)
            return
        self._link = link
        link.transport.write(queue)
        if self._is_captured:
            self._capture.passed_on()  # type: ignore[union-attr]  # as in begin
        if self._client.is_write_full:
            self.client_full()
        self._client.free()

    def unlinked(self, error: OSError | TimeoutError) -> None:
        """Say that the upstream cannot be reached."""
        if self._queue is None:
            return
        if isinstance(error, TimeoutError):
            self._fail(504, "the upstream did not take the connection in time")
        elif isinstance(error, ssl.SSLCertVerificationError):
            self._fail(
                502,
                "the upstream's certificate is not trusted",
                expected="a certificate of a known authority for the upstream's name",
                got=error.verify_message.encode(),
            )
        elif isinstance(error, ssl.SSLError):
            self._fail(502, "the upstream does not agree on TLS", got=(error.reason or "").encode())
        else:
            self._fail(502, "the upstream cannot be reached")

    def link_full(self) -> None:
        """Stop reading the client: the upstream does not read."""
        self._client.hold()

    def link_ready(self) -> None:
        """Read the client again."""
        self._client.free()

    def response_data(self, data: bytes) -> None:  # noqa: C901 - one path of a hot loop
        """Pass on what the upstream answers."""
        client = self._client
        answer = self._answer
        link = self._link
        assert link is not None  # noqa: S101 - only a link calls this
        if self._is_tunnel:
            client.transport.write(data)
            return
        if self._is_captured:
            self._capture.arrived()  # type: ignore[union-attr]  # as in begin
        began = answer.head is not None
        try:
            out, parts = answer.feed(
                data,
                link,
                may_keep=self._body.ended and self._head.keep_alive and not client.is_closing,
                max_head_bytes=client.limits.max_head_bytes,
            )
        except Refused as refused:
            if not began:
                answer.head = None
            self._fail(502, refused.detail, expected=refused.expected, got=refused.got)
            return
        if out:
            client.transport.write(out)
        if self._is_captured:
            for part in parts:
                self._capture.response.add(part)  # type: ignore[union-attr]  # as in begin
        if answer.ended:
            self._complete()
        elif not began:
            link.hasten()
            if answer.head is not None:
                self._deadline.end()

    def link_lost(self, exc: Exception | None) -> None:
        """End the answer, try once more, or say that it failed."""
        link, self._link = self._link, None
        self._link_held = False
        if self._is_tunnel:
            self._client.transport.close()
        elif self._answer.ends_with_connection and exc is None:
            self._complete()
        elif self._answer.head is not None:
            self._client.connections.upstream_errors += 1
            self._break_off(_UPSTREAM_GONE, "upstream")
        elif link is not None and self._may_retry(link):
            self._retried = True
            self._client.connections.retried += 1
            self._queue = self._replay
            self._upstream.connect(self)
        else:
            self._fail(502, "the upstream closed the connection before it answered")

    def _may_retry(self, link: Link) -> bool:
        # A used connection that ends without a byte has most likely gone stale before the request
        # came. Most likely is enough only for what may be done twice (RFC 9110 9.2.2).
        return (
            link.was_used
            and not self._retried
            and not self._answer.heard
            and self._head.is_repeatable
            and self._body.ended
            and self._replay is not None
        )

    # Ends.

    def _send_on(self, framed: bytes) -> None:
        if self._replay is not None:
            replay = self._replay + framed
            within = len(replay) <= self._client.limits.max_replay_bytes
            self._replay = replay if within else None
        if self._link is not None:
            self._link.transport.write(framed)
        elif self._queue is not None:
            self._queue += framed
            if len(self._queue) > self._client.limits.max_waiting_bytes:
                self._client.hold()

    def _complete(self) -> None:
        if self._answer_s is not None:
            self._deadline.end()
        answer = self._answer
        head = answer.head
        assert head is not None  # noqa: S101 - an answer that ended has begun
        client = self._client
        if head.status == _SWITCHING_PROTOCOLS:
            self._become_tunnel()
            return
        self._record(head.status)
        link, self._link = self._link, None
        if link is not None:
            if self._link_held:
                self._link_held = False
                if not link.transport.is_closing():
                    link.transport.resume_reading()
            link.release(keep_alive=answer.link_keep_alive and self._body.ended)
        if client.held:
            client.free()
        client.relayed(keep_alive=answer.client_keep_alive, whole=self._body.ended)

    def _become_tunnel(self) -> None:
        self._is_tunnel = True
        self._record(_SWITCHING_PROTOCOLS)
        early = self._client.take_waiting()
        if early and self._link is not None:
            self._link.transport.write(early)

    def _break_off(self, status: int, aborted_by: Literal["client", "upstream"]) -> None:
        """Cut the client: half of an answer must not look like a whole one."""
        self._deadline.end()
        self._record(status, aborted_by=aborted_by)
        self._unlink()
        self._client.transport.abort()

    def _fail(
        self, status: int, detail: str, *, expected: str | None = None, got: bytes | None = None
    ) -> None:
        self._client.connections.upstream_errors += 1
        hint = self._upstream.hint
        payload = problem(status, detail, expected=expected, got=got, hint=hint)
        body = self._body
        if self._answer.head is not None or body.ended or self._is_unwilling():
            self._give_up(status, payload, aborted_by="upstream")
            return
        # An answer now would cost the rest of the request, which is wanted for the record, and the
        # client's connection. So it waits, with the connection read as if all were well.
        self._unlink()
        self._failure = (status, payload)
        self._passed_over = 0
        self._deadline.begin(self._client.limits.linger_s)
        self._client.free()

    def _is_unwilling(self) -> bool:
        """Whether the client will not send, or not soon, the rest of its request."""
        head = self._head
        limit = self._client.limits.capture_limit
        return self._body.left > limit or (
            # It waits for an interim answer, and has sent nothing yet if nothing is missing.
            head.expects_continue and self._body.left in {head.length, CHUNKED}
        )

    def _pass_over(self, framed: bytes) -> None:
        self._passed_over += len(framed)
        if self._body.ended or self._passed_over > self._client.limits.capture_limit:
            self._answer_failure()

    def _answer_failure(self) -> None:
        if self._failure is not None:
            (status, payload), self._failure = self._failure, None
            self._give_up(status, payload, aborted_by="upstream")

    def _expired(self) -> None:
        if self._failure is not None:
            self._answer_failure()
        else:
            self._fail(504, "the upstream did not answer in time")

    def _give_up(
        self, status: int, payload: bytes, *, aborted_by: Literal["client", "upstream"]
    ) -> None:
        if self._answer.head is not None:
            self._break_off(_UPSTREAM_GONE if aborted_by == "upstream" else status, aborted_by)
            return
        self._deadline.end()
        self._unlink()
        if self._is_captured and (request_id := self._settle_id(None)):
            payload = with_header(payload, b"X-Request-Id: " + request_id)
        self._record(status)
        self._client.free()
        self._client.send_problem(payload, whole=self._body.ended)

    def _unlink(self) -> None:
        link, self._link = self._link, None
        self._queue = None
        self._link_held = False
        if link is not None:
            link.drop()

    def _settle_id(self, answer: ResponseHead | None) -> bytes:
        """Give the id that the client is told; of a captured exchange only."""
        capture = self._capture
        assert capture is not None  # noqa: S101 - captured, so there is one
        return capture.identify(answer, is_whole=self._body.ended)

    def _record(self, status: int, *, aborted_by: Literal["", "client", "upstream"] = "") -> None:
        if self._is_captured:
            self._is_captured = False
            head, body = self._answer.head, self._body
            self._capture.end(  # type: ignore[union-attr]  # as in begin
                status,
                head.raw if head is not None else b"",
                aborted_by,
                n_missing=0 if body.ended else max(body.left, 1),
            )
