"""The messages of one side of a call, kept up to a bound; the rest is hashed and counted."""

import struct
from dataclasses import dataclass
from hashlib import sha256
from threading import Lock
from typing import Any, Final

from sidelight.logger._grpc_frames import frame
from sidelight.logger._grpc_head import FRAMED, PROTOBUF

_HEAD: Final = struct.Struct(">BI")


@dataclass(frozen=True, slots=True, kw_only=True)
class GrpcLimits:
    """Bounds of what a capture of gRPC keeps; calls themselves know none.

    Parameters
    ----------
    capture_limit : int, default 11 MiB
        Bytes of the messages of one side of an inference that are kept. As base64 they have room
        in the 16 MiB that the collector's door takes.
    max_captured_bytes : int, default 64 MiB
        Bytes that are kept of all calls in work together.
    max_unfinished : int, default 128
        Requests of one stream whose answers are waited for; beyond it the oldest is taken for
        finished.
    settle_s : float, default 30.0
        A request of a stream that was answered is taken for finished when no further answer came
        for this long, unless the server marks last answers, seconds.
    trusts_request_ids : bool, default True
        Whether the id of an inference is the one that its caller gave, or that the server answers
        with; otherwise each gets one of ours.

    Raises
    ------
    ValueError
        When one is not positive.

    """

    capture_limit: int = 11 * 1024 * 1024
    max_captured_bytes: int = 64 * 1024 * 1024
    max_unfinished: int = 128
    settle_s: float = 30.0
    trusts_request_ids: bool = True

    def __post_init__(self) -> None:
        for name in ("capture_limit", "max_captured_bytes", "max_unfinished", "settle_s"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}: expected a positive number, got {getattr(self, name)}")


class GrpcCounts:
    """What happened to the calls of one server.

    Attributes
    ----------
    calls : int
        Calls that came in.
    in_flight : int
        Calls in work.
    captured : int
        Exchanges offered to the tap.
    captured_bytes : int
        Bytes that are kept of calls in work.
    tap_errors : int
        Exchanges lost because the tap, or the capture, raised.
    unmatched : int
        Answers of streams that belong to no request that was waited for; they were passed on.
    upstream_errors : int
        Calls that the proxy ended with ``UNAVAILABLE`` or ``INTERNAL``, as its upstream did.
    """

    __slots__ = (
        "_lock",
        "calls",
        "captured",
        "captured_bytes",
        "in_flight",
        "tap_errors",
        "unmatched",
        "upstream_errors",
    )

    def __init__(self) -> None:
        self.calls = 0
        self.in_flight = 0
        self.captured = 0
        self.captured_bytes = 0
        self.tap_errors = 0
        self.unmatched = 0
        self.upstream_errors = 0
        self._lock = Lock()

    def keep(self, size: int) -> None:
        """Count bytes that are kept from now on, or no longer; from any thread."""
        with self._lock:
            self.captured_bytes += size

    def called(self) -> None:
        """Count a call that begins; from any thread."""
        with self._lock:
            self.calls += 1
            self.in_flight += 1

    def ended(self) -> None:
        """Count a call that ends; from any thread."""
        with self._lock:
            self.in_flight -= 1

    def took(self) -> None:
        """Count an exchange that the tap has taken; from any thread."""
        with self._lock:
            self.captured += 1


@dataclass(slots=True)
class TakenBody:
    """A body as it goes into an exchange."""

    data: bytes
    cut: int
    digest: bytes
    media: bytes


class GrpcBody:
    """Keep one message as it is, several as the frames of ``application/grpc``.

    Parameters
    ----------
    limits : GrpcLimits
        Bounds of this body and of all together.
    counts : GrpcCounts
        Counts what all together keep.

    """

    __slots__ = ("_bare", "_counts", "_first_size", "_framed", "_limits", "_messages", "_size", "n")

    def __init__(self, limits: GrpcLimits, counts: GrpcCounts) -> None:
        self._limits = limits
        self._counts = counts
        self._messages: list[bytes] = []
        self._size = 0
        self._first_size = 0
        self._bare = b""
        # Bytes that were cut, and the hash of all frames; hashlib names no public type.
        self._framed: tuple[int, Any] | None = None
        self.n = 0

    def add(self, message: bytes) -> None:
        """Keep a message if there is room for all of it, of the first what there is room for."""
        self.n += 1
        size = len(message)
        if self._framed is None:
            room = min(
                self._limits.capture_limit - self._size,
                self._limits.max_captured_bytes - self._counts.captured_bytes,
            )
            if size <= room:
                self._keep(message, size)
                return
            self._cut(message, max(room, 0))
            return
        cut, hashed = self._framed
        hashed.update(frame(message))
        self._framed = (cut + size + _HEAD.size, hashed)

    def _keep(self, message: bytes, size: int) -> None:
        if self.n == 1:
            self._first_size = size
        self._messages.append(message)
        self._size += size
        self._counts.keep(size)

    def _cut(self, message: bytes, room: int) -> None:
        """Begin to hash: what was kept goes first, so that the digest is of the whole body."""
        hashed = sha256(b"".join(map(frame, self._messages)))
        hashed.update(frame(message))
        cut = len(message)
        if self.n == 1:
            self._bare = sha256(message).digest()
            self._keep(message[:room], room)
            self._first_size = cut
            cut -= room
        else:
            cut += _HEAD.size
        self._framed = (cut, hashed)

    def take(self) -> TakenBody:
        """Give out what was kept, and forget it."""
        messages = self._messages
        self._counts.keep(-self._size)
        self._messages, self._size = [], 0
        cut = self._framed[0] if self._framed is not None else 0
        if self.n <= 1:
            return TakenBody(messages[0] if messages else b"", cut, self._bare, PROTOBUF)
        parts = [_HEAD.pack(0, self._first_size) + messages[0], *map(frame, messages[1:])]
        digest = self._framed[1].digest() if self._framed is not None else b""
        return TakenBody(b"".join(parts), cut, digest, FRAMED)
