"""The body of a request on its way to the upstream: where it ends, and what of it is the body's."""

from sidelight.logger._http_chunks import Chunks
from sidelight.logger._http_head import CHUNKED


class RequestBody:
    """Follows one body after the other; none is collected.

    Attributes
    ----------
    ended : bool
        Whether the body has come to its end.
    left : int
        Bytes to come; for one in chunks negative, which says nothing.
    """

    __slots__ = ("_chunks", "ended", "left")

    def __init__(self) -> None:
        self._chunks: Chunks | None = None
        self.ended = False
        self.left = 0

    def begin(self, length: int) -> None:
        """Await a body of so many bytes, or `CHUNKED`."""
        self.ended = False
        self.left = length
        self._chunks = Chunks() if length == CHUNKED else None

    def feed(self, data: bytes) -> tuple[bytes, list[bytes], bytes]:
        """Read on.

        Parameters
        ----------
        data : bytes
            The next piece; nothing may be fed after the end.

        Returns
        -------
        framed : bytes
            For the upstream.
        parts : list of bytes
            The body's own bytes in it.
        rest : bytes
            What follows the end.

        Raises
        ------
        Refused
            With 400, if chunks are not framed as they must be.
        """
        chunks = self._chunks
        if chunks is not None:
            framed, parts = chunks.feed(data)
            self.ended = chunks.ended
            return framed, parts, chunks.rest
        left = self.left
        framed, rest = (data, b"") if len(data) <= left else (data[:left], data[left:])
        self.left = left - len(framed)
        self.ended = self.left == 0
        return framed, [framed], rest
