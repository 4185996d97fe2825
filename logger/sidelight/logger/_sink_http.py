"""A CloudEvents receiver behind HTTP/1.1: the collector, or a Knative broker."""

import asyncio
import logging
import ssl
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlsplit

import httptools

from sidelight.logger._emitter_event import BATCH_CONTENT_TYPE, CapturedEvent, batch_body
from sidelight.logger._sink import Delivery
from sidelight.logger._sink_connection import Answer, SinkConnection
from sidelight.logger._sink_files import HeaderFiles, TlsFiles

log = logging.getLogger(__name__)

SinkMode = Literal["batch", "binary"]

# Knative's data plane: these, 5xx and a broken connection pass; another 4xx is a verdict on the
# events. Redirects are not allowed for webhooks; the address is wrong, the events are not. A
# wrong token (401, 403) says nothing about the events either: it is set right, then they go.
_PASSING: Final = frozenset((401, 403, 404, 408, 409, 429))
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


class HttpSink:
    """Post captured events to one address.

    In the binary mode several requests are on their way at once, one behind the other on one
    connection, which receivers answer in order. After a failure it is one at a time again, and
    more with each success. Where a request fails and receivers have taken some behind it, these
    are not sent again: only the one that failed comes late, and no event comes twice.

    Parameters
    ----------
    url : str
        ``http`` or ``https``, with host; a path and a query are kept.
    mode : "batch" or "binary", default "batch"
        One ``application/cloudevents-batch+json`` for all, or one request for each event.
    timeout_s : float, default 10.0
        For a connection and for each answer, seconds.
    headers : mapping of str to str, optional
        Sent with each request.
    header_files : mapping of str to Path, optional
        Headers whose values stand in files, for example a token behind ``Authorization``; they
        are read again when they change.
    tls : ssl.SSLContext, optional
        For ``https``; made from the files that follow otherwise.
    ca_file : Path, optional
        Certificates of the authorities to trust, PEM; the system's otherwise.
    certificate_file, key_file : Path, optional
        Our own certificate and its key, PEM, read again when they change.
    server_name : str, optional
        The name that the receiver's certificate is for, when it is not the host of the address.
    max_in_flight : int, default 64
        Requests on their way in the binary mode; 1 keeps the order even where one fails.

    Raises
    ------
    ValueError
        When the address, a header or a file cannot be used.

    """

    def __init__(  # noqa: PLR0913 - what a receiver may ask for
        self,
        url: str,
        *,
        mode: SinkMode = "batch",
        timeout_s: float = 10.0,
        headers: Mapping[str, str] | None = None,
        header_files: Mapping[str, Path] | None = None,
        tls: ssl.SSLContext | None = None,
        ca_file: Path | None = None,
        certificate_file: Path | None = None,
        key_file: Path | None = None,
        server_name: str | None = None,
        max_in_flight: int = 64,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in _DEFAULT_PORTS or not parts.hostname or parts.username:
            raise ValueError(
                f"sink {parts.scheme}://{parts.hostname}: expected http(s)://HOST[:PORT]/PATH "
                "without user or password; give those as a header"
            )
        if max_in_flight < 1:
            raise ValueError(f"max_in_flight: expected 1 or more, got {max_in_flight}")
        self._host = parts.hostname
        self._port = parts.port or _DEFAULT_PORTS[parts.scheme]
        self._tls: ssl.SSLContext | TlsFiles | None = None
        if parts.scheme == "https":
            self._tls = tls or TlsFiles(ca=ca_file, certificate=certificate_file, key=key_file)
            self._server_name = server_name
        else:
            self._server_name = None
        self._mode = mode
        self._timeout_s = timeout_s
        self._max_in_flight = max_in_flight
        self._in_flight = 1
        # Taken behind one that failed; and how many were taken since.
        self._ahead: set[tuple[bytes, bytes]] = set()
        self._n_since = 0
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        lines = [f"POST {target} HTTP/1.1", f"Host: {parts.netloc}", "User-Agent: sidelight"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        if any(set(line) & set("\r\n\0") for line in (*lines, *(header_files or {}))):
            raise ValueError("sink headers: expected values on one line, got a line break")
        self._head = ("\r\n".join(lines) + "\r\n").encode("latin-1")
        self._header_files = HeaderFiles(header_files or {})
        self._connection: SinkConnection | None = None

    async def send(self, events: Sequence[CapturedEvent]) -> Delivery:
        """Deliver events in order; see ``Sink``."""
        head = self._head + self._header_files.lines()
        if self._mode == "batch":
            request = _request(head, [(b"content-type", BATCH_CONTENT_TYPE)], batch_body(events))
            (answer,) = await self._ask([request])
            delivery = _delivery(answer)
            n_all = len(events)
            return Delivery(
                n_taken=n_all * delivery.n_taken,
                n_refused=n_all * delivery.n_refused,
                failure=delivery.failure,
                retry_after_s=delivery.retry_after_s,
            )
        n_taken = 0
        while n_taken < len(events):
            window = events[n_taken : n_taken + self._in_flight]
            n_of_window, failed = await self._send_window(head, window)
            n_taken += n_of_window
            if failed is not None:
                return Delivery(
                    n_taken=n_taken,
                    n_refused=failed.n_refused,
                    failure=failed.failure,
                    retry_after_s=failed.retry_after_s,
                )
        return Delivery(n_taken=n_taken)

    async def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    async def _send_window(
        self, head: bytes, events: Sequence[CapturedEvent]
    ) -> tuple[int, Delivery | None]:
        """Send events at once; return how many from the front are taken, and what failed then."""
        keys = [(event.attributes, event.data) for event in events]
        fresh = [n for n, key in enumerate(keys) if key not in self._ahead]
        requests = [_request(head, events[n].headers(), events[n].data) for n in fresh]
        answers = await self._ask(requests) if requests else []
        said = {n: _delivery(answer) for n, answer in zip(fresh, answers, strict=True)}
        first = next((n for n in fresh if not said[n].n_taken), None)
        failed = None if first is None else said[first]
        n_taken = len(events) if first is None else first
        self._ahead.difference_update(keys[:n_taken])
        self._ahead.update(keys[n] for n in fresh if n > n_taken and said[n].n_taken)
        self._remember(n_taken, failed)
        return n_taken, failed

    def _remember(self, n_taken: int, failed: Delivery | None) -> None:
        if failed is not None:
            self._n_since = 0
            # A verdict on one event says that the receiver is well.
            self._in_flight = self._in_flight if failed.n_refused else 1
            return
        self._in_flight = min(self._in_flight * 2, self._max_in_flight)
        self._n_since += n_taken
        if self._n_since > self._max_in_flight:
            # They would have come by now: they were dropped, or went into another process.
            self._ahead.clear()

    async def _ask(self, requests: Sequence[bytes]) -> list[Answer | BaseException]:
        """Return an answer for each request, or why there is none, which is the same behind it."""
        answers: list[Answer | BaseException] = []
        is_fresh = False
        try:
            while len(answers) < len(requests):
                is_fresh = await self._connect() or is_fresh
                came, error = await self._exchange(requests[len(answers) :])
                answers += came
                if error is None:
                    continue
                await self.close()
                # The sink may have closed a kept connection while requests were on their way, or
                # answers so many on one connection and no more.
                if not isinstance(error, ConnectionError) or (is_fresh and not came):
                    raise error
        except asyncio.CancelledError:
            await self.close()
            raise
        except (OSError, httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            await self.close()
            answers += [error] * (len(requests) - len(answers))
        return answers

    async def _connect(self) -> bool:
        """Have a connection; whether it is a new one."""
        if self._connection is not None and self._connection.is_open:
            return False
        await self.close()
        context = self._tls.context() if isinstance(self._tls, TlsFiles) else self._tls
        async with asyncio.timeout(self._timeout_s):
            _, self._connection = await asyncio.get_running_loop().create_connection(
                SinkConnection,
                self._host,
                self._port,
                ssl=context,
                server_hostname=self._server_name,
            )
        return True

    async def _exchange(self, requests: Sequence[bytes]) -> tuple[list[Answer], Exception | None]:
        """Send requests one behind the other; return the answers that came, and what failed."""
        connection = self._connection
        if connection is None:
            return [], ConnectionResetError("no connection")
        answers: list[Answer] = []
        try:
            for waiting in connection.post(requests):
                async with asyncio.timeout(self._timeout_s):
                    answers.append(await waiting)
        except (OSError, httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            return answers, error
        return answers, None


def _request(head: bytes, headers: Sequence[tuple[bytes, bytes]], body: bytes) -> bytes:
    lines = b"".join(b"%b: %b\r\n" % header for header in headers)
    return b"%b%bContent-Length: %d\r\n\r\n%b" % (head, lines, len(body), body)


def _delivery(answer: Answer | BaseException) -> Delivery:
    if isinstance(answer, BaseException):
        return Delivery(n_taken=0, failure=_failure(answer))
    status = answer.status
    if 200 <= status < 300:  # noqa: PLR2004 - RFC 9110, 15.3
        return Delivery(n_taken=1)
    is_verdict = 400 <= status < 500 and status not in _PASSING  # noqa: PLR2004 - RFC 9110, 15.5
    return Delivery(
        n_taken=0,
        n_refused=int(is_verdict),
        failure=f"status_{status}",
        retry_after_s=answer.retry_after_s,
    )


def _failure(error: BaseException) -> str:
    match error:
        case TimeoutError():
            return "timeout"
        case ssl.SSLError():
            return "tls"
        case ConnectionRefusedError():
            return "refused"
        case ConnectionError():
            return "reset"
        case OSError():
            return "unreachable"
        case _:
            return "garbage"
