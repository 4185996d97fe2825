"""The body of one request, collected up to a bound."""

from sidelight.logger._http import problem
from sidelight.logger._http_chunks import Chunks
from sidelight.logger._http_head import CHUNKED, Refused


class CollectedBody:
    """Collects one body, cut anywhere.

    Parameters
    ----------
    length : int
        Bytes to come, or `CHUNKED`.
    limit : int
        Bytes beyond which a chunked body is refused.

    Attributes
    ----------
    ended : bool
        Whether the body is whole.
    size : int
        Bytes collected so far.
    """

    __slots__ = ("_chunks", "_left", "_limit", "_parts", "ended", "size")

    def __init__(self, length: int, limit: int) -> None:
        self._chunks = Chunks() if length == CHUNKED else None
        self._left = length
        self._limit = limit
        self._parts: list[bytes] = []
        self.size = 0
        self.ended = False

    def feed(self, data: bytes) -> bytes:
        """Take the next piece; returns what follows the end.

        Raises
        ------
        Refused
            With 400 for bad chunks, with 413 for too many bytes.
        """
        chunks = self._chunks
        if chunks is None:
            part = data if len(data) <= self._left else data[: self._left]
            self._left -= len(part)
            self._parts.append(part)
            self.size += len(part)
            self.ended = self._left == 0
            return data[len(part) :]
        _, parts = chunks.feed(data)
        self._parts.extend(parts)
        self.size += sum(map(len, parts))
        if self.size > self._limit:
            raise too_long(self._limit)
        self.ended = chunks.ended
        return chunks.rest

    def take(self) -> bytes:
        """Give out the whole body."""
        return b"".join(self._parts)


def too_many(limit: int) -> bytes:
    """Answer to a body for which there is no room beside those of the other clients."""
    return problem(
        503,
        "too many bodies are being received at once",
        expected=f"at most {limit} bytes of all clients together",
        hint="send again after the time in Retry-After",
        headers=((b"retry-after", b"1"),),
    )


def too_long(limit: int) -> Refused:
    """Refusal of a body of more than `limit` bytes."""
    return Refused(413, "the body is too long", expected=f"at most {limit} bytes")
