"""One client connection to an HTTP/1.1 sink: requests, then their answers."""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final, cast

import httptools

# What follows the head of an answer is of no interest, but the connection is only used again
# when it has passed: that long and that much is waited for.
_BODY_PATIENCE_S: Final = 0.5
_MAX_ANSWER_BYTES: Final = 256 * 1024
_FIRST_FINAL_STATUS: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Status and ``Retry-After`` of an answer; the body is not kept."""

    status: int
    retry_after_s: float | None = None


class SinkConnection(asyncio.Protocol):
    """Post requests, and read their answers in the same order.

    Attributes
    ----------
    is_open : bool
        Whether another request can be sent.
    n_answers : int
        Answers read so far.

    """

    def __init__(self) -> None:
        self.is_open = False
        self.n_answers = 0
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._waiting: deque[asyncio.Future[Answer]] = deque()
        self._patience: asyncio.TimerHandle | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._status = 0
        self._n_bytes = 0
        self._retry_after: bytes | None = None

    def post(self, requests: Sequence[bytes]) -> list[asyncio.Future[Answer]]:
        """Send whole requests at once; return their answers to come.

        Each fails with ``ConnectionError`` when the sink closes the connection before it, and
        with ``httptools.HttpParserError`` when what comes is no HTTP.

        Raises
        ------
        ConnectionError
            When the connection is closed already.

        """
        if self._transport is None or not self.is_open:
            raise ConnectionResetError("the sink closed the connection")
        if not self._waiting:
            # The last answer may have left it in any state: its body is not always awaited.
            self._parser = httptools.HttpResponseParser(self)
        waiting = [self._loop.create_future() for _ in requests]
        self._waiting += waiting
        self._transport.write(b"".join(requests))
        return waiting

    def close(self) -> None:
        """Close at once; what was not sent is not sent any more."""
        self.is_open = False
        if self._patience is not None:
            self._patience.cancel()
        if self._transport is not None:
            self._transport.abort()
        self._fail(ConnectionResetError("the connection was closed"))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        # Not isinstance: the transports of uvloop are of its own classes.
        self._transport = cast("asyncio.Transport", transport)
        self.is_open = True

    def connection_lost(self, exc: Exception | None) -> None:
        """End; an answer whose head was read stands."""
        self.is_open = False
        self._answer()
        self._fail(exc or ConnectionResetError("the sink closed the connection"))

    def data_received(self, data: bytes) -> None:
        """Read a piece of the answers."""
        if not self._waiting:
            self.close()  # an answer to nothing
            return
        self._n_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._answer()
            self._fail(error)
            self.close()
        else:
            if self._n_bytes > _MAX_ANSWER_BYTES:
                self._give_up()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep what the sender obeys."""
        if name.lower() == b"retry-after":
            self._retry_after = value

    def on_headers_complete(self) -> None:
        """Know the outcome; wait a little for the body."""
        status = self._parser.get_status_code()
        if status >= _FIRST_FINAL_STATUS:
            self._status = status
            self._patience = self._loop.call_later(_BODY_PATIENCE_S, self._give_up)

    def on_message_complete(self) -> None:
        """Be ready for the next answer."""
        if self._status:
            self.n_answers += 1
            self.is_open = self.is_open and self._parser.should_keep_alive()
            self._answer()
            self._n_bytes = 0
            if not self.is_open:
                self.close()

    def _give_up(self) -> None:
        self._answer()
        self._fail(httptools.HttpParserError("endless answer"))
        self.close()

    def _answer(self) -> None:
        """Give the first that waits its answer, when there is one."""
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        if self._status and self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.done():
                waiting.set_result(
                    Answer(status=self._status, retry_after_s=_seconds(self._retry_after))
                )
        self._status, self._retry_after = 0, None

    def _fail(self, error: BaseException) -> None:
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.done():
                waiting.set_exception(error)
                # Who waited for an earlier one does not come for this one any more.
                waiting.exception()


def _seconds(value: bytes | None) -> float | None:
    """Read ``Retry-After``: seconds or a date (RFC 9110, 10.2.3); None when it is neither."""
    text = (value or b"").decode("latin-1").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())
