"""A CloudEvents receiver behind HTTP/1.1: the collector, or a Knative broker."""

import asyncio
import logging
import ssl
from collections.abc import Mapping, Sequence
from typing import Final, Literal
from urllib.parse import urlsplit

import httptools

from sidelight.logger._emitter_event import BATCH_CONTENT_TYPE, CapturedEvent, batch_body
from sidelight.logger._sink import Delivery
from sidelight.logger._sink_connection import Answer, SinkConnection

log = logging.getLogger(__name__)

SinkMode = Literal["batch", "binary"]

# Knative's data plane: these, 5xx and a broken connection pass; another 4xx is a verdict on the
# events. Redirects are not allowed for webhooks; the address is wrong, the events are not. A
# wrong token (401, 403) says nothing about the events either: it is set right, then they go.
_PASSING: Final = frozenset((401, 403, 404, 408, 409, 429))
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


class HttpSink:
    """Post captured events to one address.

    Parameters
    ----------
    url : str
        ``http`` or ``https``, with host; a path and a query are kept.
    mode : "batch" or "binary", default "batch"
        One ``application/cloudevents-batch+json`` for all, or one request for each event.
    timeout_s : float, default 10.0
        For a connection and for each answer, seconds.
    headers : mapping of str to str, optional
        Sent with each request, for example ``Authorization``.
    tls : ssl.SSLContext, optional
        For ``https``; the system's authorities otherwise.

    Raises
    ------
    ValueError
        When the address or a header cannot be used.

    """

    def __init__(
        self,
        url: str,
        *,
        mode: SinkMode = "batch",
        timeout_s: float = 10.0,
        headers: Mapping[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in _DEFAULT_PORTS or not parts.hostname or parts.username:
            raise ValueError(
                f"sink {parts.scheme}://{parts.hostname}: expected http(s)://HOST[:PORT]/PATH "
                "without user or password; give those as a header"
            )
        self._host = parts.hostname
        self._port = parts.port or _DEFAULT_PORTS[parts.scheme]
        is_tls = parts.scheme == "https"
        self._tls = (tls or ssl.create_default_context()) if is_tls else None
        self._mode = mode
        self._timeout_s = timeout_s
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        lines = [f"POST {target} HTTP/1.1", f"Host: {parts.netloc}", "User-Agent: sidelight"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        if any(set(line) & set("\r\n\0") for line in lines):
            raise ValueError("sink headers: expected values on one line, got a line break")
        self._head = ("\r\n".join(lines) + "\r\n").encode("latin-1")
        self._connection: SinkConnection | None = None

    async def send(self, events: Sequence[CapturedEvent]) -> Delivery:
        """Deliver events in order; see ``Sink``."""
        if self._mode == "batch":
            body = batch_body(events)
            delivery = await self._deliver([(b"content-type", BATCH_CONTENT_TYPE)], body)
            n_all = len(events)
            return Delivery(
                n_taken=n_all * delivery.n_taken,
                n_refused=n_all * delivery.n_refused,
                failure=delivery.failure,
                retry_after_s=delivery.retry_after_s,
            )
        for n_taken, event in enumerate(events):
            delivery = await self._deliver(event.headers(), event.data)
            if not delivery.n_taken:
                return Delivery(
                    n_taken=n_taken,
                    n_refused=delivery.n_refused,
                    failure=delivery.failure,
                    retry_after_s=delivery.retry_after_s,
                )
        return Delivery(n_taken=len(events))

    async def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    async def _deliver(self, headers: Sequence[tuple[bytes, bytes]], body: bytes) -> Delivery:
        lines = b"".join(b"%b: %b\r\n" % header for header in headers)
        request = b"%b%bContent-Length: %d\r\n\r\n%b" % (self._head, lines, len(body), body)
        try:
            answer = await self._ask(request)
        except (OSError, httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            await self.close()
            return Delivery(n_taken=0, failure=_failure(error))
        except asyncio.CancelledError:
            await self.close()
            raise
        return _delivery(answer)

    async def _ask(self, request: bytes) -> Answer:
        connection = self._connection
        if connection is not None and connection.is_open:
            try:
                return await self._post(connection, request)
            except ConnectionError:
                # The sink may have closed an idle connection while the request was on its way.
                log.debug("the sink closed a kept connection")
        await self.close()
        async with asyncio.timeout(self._timeout_s):
            _, self._connection = await asyncio.get_running_loop().create_connection(
                SinkConnection, self._host, self._port, ssl=self._tls
            )
        return await self._post(self._connection, request)

    async def _post(self, connection: SinkConnection, request: bytes) -> Answer:
        async with asyncio.timeout(self._timeout_s):
            return await connection.post(request)


def _delivery(answer: Answer) -> Delivery:
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
