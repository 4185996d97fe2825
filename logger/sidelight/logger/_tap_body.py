"""A bounded copy of one body, with the digest of what the bound cut."""

import hashlib
from typing import Final

from sidelight.logger._connections import Connections, Limits

# As far as an id is looked for in a body, and in a longer one; see `id_in_body`.
_SEARCHED_BYTES: Final = 64 * 1024
_BEGINNING_BYTES: Final = 512


class Kept:
    """The beginning of a body, and how much more there was.

    Parameters
    ----------
    limits : Limits
        Bounds of one body and of all together.
    connections : Connections
        Counts what all together keep.

    Attributes
    ----------
    cut : int
        Bytes that were not kept.

    Notes
    -----
    A body within the bound is never hashed. One that says it is longer is hashed as it comes; one
    in chunks that turns out to be, from the cut on, with what was kept before it at once (0.6 ms
    a MiB on a processor with SHA instructions).
    """

    __slots__ = ("_connections", "_hash", "_limit", "_limit_of_all", "_parts", "_size", "cut")

    def __init__(self, limits: Limits, connections: Connections) -> None:
        self._limit = limits.capture_limit
        self._limit_of_all = limits.max_captured_bytes
        self._connections = connections
        self._parts: list[bytes] = []
        self._size = 0
        self._hash: hashlib._Hash | None = None
        self.cut = 0

    def announce(self, length: int) -> None:
        """Learn how long the body says it is; a negative number says nothing."""
        if length > self._limit:
            self._hash = hashlib.sha256()

    def add(self, data: bytes) -> None:
        """Keep as much of this as there is room for; nothing behind a cut."""
        connections = self._connections
        size = self._size + len(data)
        all_size = connections.captured_bytes + len(data)
        if size > self._limit or all_size > self._limit_of_all or self._hash is not None:
            self._add_hashed(data)
            return
        self._size = size
        connections.captured_bytes = all_size
        self._parts.append(data)

    def _add_hashed(self, data: bytes) -> None:
        connections = self._connections
        room = min(self._limit - self._size, self._limit_of_all - connections.captured_bytes)
        room = 0 if self.cut else min(max(room, 0), len(data))
        if self._hash is None:
            self._hash = hashlib.sha256()
            for part in self._parts:
                self._hash.update(part)
        self._hash.update(data)
        self.cut += len(data) - room
        if room:
            self._size += room
            connections.captured_bytes += room
            self._parts.append(data[:room])

    def beginning(self) -> bytes:
        """Give what is kept; of more than 64 KiB in pieces the first 512 bytes, at least."""
        parts = self._parts
        if len(parts) == 1:
            return parts[0]
        if self._size <= _SEARCHED_BYTES:
            return b"".join(parts)
        joined = b""
        for part in parts:
            joined += part
            if len(joined) >= _BEGINNING_BYTES:
                break
        return joined

    @property
    def digest(self) -> bytes:
        """SHA-256 of all that came, when some of it was cut; otherwise empty."""
        return self._hash.digest() if self.cut and self._hash is not None else b""

    def take(self) -> bytes:
        """Give out what was kept, and begin anew."""
        parts = self._parts
        kept = parts[0] if len(parts) == 1 else b"".join(parts)
        parts.clear()
        self._connections.captured_bytes -= self._size
        self._size = 0
        if self._hash is not None:
            self._hash = None
            self.cut = 0
        return kept
