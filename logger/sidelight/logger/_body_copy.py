"""Copies of bodies that pass through the model's own process, bounded one by one and together."""

import hashlib
import threading


class CopyBudget:
    """What the copies of all exchanges in work may take together.

    Parameters
    ----------
    max_bytes : int
        Beyond it a body is cut where it stands.

    """

    __slots__ = ("_left", "_lock")

    def __init__(self, max_bytes: int) -> None:
        self._left = max_bytes
        # Reentrant: a body that the garbage collector ends gives back what it had.
        self._lock = threading.RLock()

    def grant(self, size: int) -> int:
        """Take that many bytes, or as many as are left; return how many."""
        with self._lock:
            granted = min(size, self._left)
            self._left -= granted
        return granted

    def give_back(self, size: int) -> None:
        """Return what was granted."""
        with self._lock:
            self._left += size


class BodyCopy:
    """The beginning of a body, how much more there was, and the digest of all of it when cut.

    Parameters
    ----------
    limit : int
        Bytes that are kept.
    budget : CopyBudget
        Of all bodies together.

    Attributes
    ----------
    size : int
        Bytes that are kept.
    cut : int
        Bytes that were not.

    """

    __slots__ = ("_budget", "_digest", "_limit", "_parts", "cut", "size")

    def __init__(self, limit: int, budget: CopyBudget) -> None:
        self._limit = limit
        self._budget = budget
        self._parts: list[bytes] = []
        self._digest: hashlib._Hash | None = None
        self.size = 0
        self.cut = 0

    def add(self, data: bytes) -> None:
        """Keep as much of this as there is room for; nothing behind a cut."""
        size = len(data)
        if self._digest is not None:
            self._digest.update(data)
            self.cut += size
            return
        room = self._budget.grant(min(size, self._limit - self.size))
        if room < size:
            self._digest = hashlib.sha256(b"".join(self._parts))
            self._digest.update(data)
            self.cut = size - room
            data = data[:room]
        if room:
            self.size += room
            self._parts.append(data)

    def peek(self) -> bytes:
        """Return what is kept so far."""
        if len(self._parts) > 1:
            self._parts = [b"".join(self._parts)]
        return self._parts[0] if self._parts else b""

    def take(self) -> bytes:
        """Give out what is kept, and the budget back."""
        kept = self.peek()
        self._budget.give_back(self.size)
        self._parts = []
        self.size = 0
        return kept

    @property
    def digest(self) -> bytes:
        """SHA-256 of the whole body when it was cut, 32 bytes; empty when it was not."""
        return self._digest.digest() if self._digest is not None else b""
