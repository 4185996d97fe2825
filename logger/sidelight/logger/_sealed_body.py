"""A request as it is stored when parts of it may have to be erased: each part with its own key.

Instead of a body stands::

    magic 4 | version u8 | flags u8 | parts u32 | parts times (number u32 | keys u32 | length u32)
    | numbers of the keys u64 | ciphertexts

All numbers are little-endian. A part is encrypted with AES-256-GCM under a key that seals nothing
else, so its nonce is constant; with several keys it is their exclusive or, so that it cannot be
read when one of them is gone. A request with one event is one part: head and body as they came. Of
a batch each member is a part, and the frame is another one: the head, and the bytes between the
members. Parts put together are the request byte for byte.
"""

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from sidelight.logger._sealed_marks import ERASED_HEAD, ERASED_MEMBER, SEALED_MAGIC

KEY_BYTES: Final = 32
FRAME: Final = 0xFFFFFFFF
"""Stands for the number of a member in the part that is the frame of a batch."""

_VERSION: Final = 1
_IS_BATCH: Final = 1
_HEADER: Final = struct.Struct("<4sBBI")
_PART: Final = struct.Struct("<III")
_LENGTH: Final = struct.Struct("<I")
# Sealed with each part, so that none stands for another one.
_PLACE: Final = struct.Struct("<BII")
_NONCE: Final = bytes(12)
Key = tuple[int, bytes]
"""Number of a key, and the key."""


class SealedBodyError(ValueError):
    """The bytes are no sealed body, or not the one that was sealed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """One event of a request that is about to be sealed.

    Parameters
    ----------
    number : int
        Its number in the batch; 0 of a single event.
    start, end : int
        Where its bytes stand in the body; not used of a single event.

    """

    number: int
    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedPart:
    """One part of a sealed body: whose it is, the numbers of its keys, and its ciphertext."""

    number: int
    keys: tuple[int, ...]
    ciphertext: bytes

    def opened(self, keys: Sequence[bytes], *, order: int, is_batch: bool) -> bytes:
        """Return what was sealed; raise ``SealedBodyError`` when these are not its keys."""
        place = _PLACE.pack(is_batch, order, self.number)
        try:
            return AESGCM(_joined(keys)).decrypt(_NONCE, self.ciphertext, place)
        except InvalidTag:
            raise SealedBodyError("a part does not open with its key") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedBody:
    """The parts of a sealed request.

    Parameters
    ----------
    parts : tuple of SealedPart
        The request itself; or the frame of a batch, and its members in order.
    is_batch : bool
        Which of the two.

    """

    parts: tuple[SealedPart, ...]
    is_batch: bool

    def encode(self) -> bytes:
        """Return what is stored."""
        flags = _IS_BATCH if self.is_batch else 0
        out = [_HEADER.pack(SEALED_MAGIC, _VERSION, flags, len(self.parts))]
        out += [
            _PART.pack(part.number, len(part.keys), len(part.ciphertext)) for part in self.parts
        ]
        numbers = [number for part in self.parts for number in part.keys]
        out.append(struct.pack(f"<{len(numbers)}Q", *numbers))
        out += [part.ciphertext for part in self.parts]
        return b"".join(out)

    @classmethod
    def decode(cls, data: bytes) -> "SealedBody":
        """Read what ``encode`` wrote; raise ``SealedBodyError`` when it is not that."""
        try:
            return cls._decode(data)
        except struct.error as error:
            raise SealedBodyError("a sealed body is cut") from error

    @classmethod
    def _decode(cls, data: bytes) -> "SealedBody":
        magic, version, flags, n_parts = _HEADER.unpack_from(data)
        end = _HEADER.size + n_parts * _PART.size
        if magic != SEALED_MAGIC or version != _VERSION or flags & ~_IS_BATCH or end > len(data):
            raise SealedBodyError("not a sealed body")
        heads = list(_PART.iter_unpack(data[_HEADER.size : end]))
        n_keys = sum(keys for _, keys, _ in heads)
        numbers = struct.unpack_from(f"<{n_keys}Q", data, end)
        at, key = end + 8 * n_keys, 0
        parts = []
        for number, keys, length in heads:
            parts.append(
                SealedPart(
                    number=number,
                    keys=numbers[key : key + keys],
                    ciphertext=data[at : at + length],
                )
            )
            key, at = key + keys, at + length
        if at != len(data) or not parts or (not flags and len(parts) > 1):
            raise SealedBodyError("a sealed body is cut")
        return cls(parts=tuple(parts), is_batch=bool(flags))


def seal_request(head: bytes, body: bytes, keys: Sequence[Key]) -> SealedBody:
    """Seal a request with one event.

    Parameters
    ----------
    head, body : bytes
        As they came.
    keys : sequence of (number, key)
        Fresh ones, 32 bytes each.

    """
    part = _sealed(0, keys, _LENGTH.pack(len(head)) + head + body)
    return SealedBody(parts=(part,), is_batch=False)


def seal_batch(
    head: bytes, body: bytes, pieces: Sequence[Piece], keys: Sequence[Sequence[Key]]
) -> SealedBody:
    """Seal a batch, each member by itself.

    Parameters
    ----------
    head, body : bytes
        As they came.
    pieces : sequence of Piece
        The members, in the order of the body; what is between them belongs to the frame.
    keys : sequence of sequences of (number, key)
        Those of the frame, then those of each member.

    """
    frame, at = [_LENGTH.pack(len(head)), head], 0
    parts = []
    for order, piece in enumerate(pieces, 1):
        gap = body[at : piece.start]
        frame += (_LENGTH.pack(len(gap)), gap)
        text = body[piece.start : piece.end]
        parts.append(_sealed(piece.number, keys[order], text, order))
        at = piece.end
    frame += (_LENGTH.pack(len(body) - at), body[at:])
    parts.insert(0, _sealed(FRAME, keys[0], b"".join(frame), 0))
    return SealedBody(parts=tuple(parts), is_batch=True)


def open_body(
    sealed: SealedBody, find: Callable[[Sequence[int]], Sequence[bytes] | None]
) -> tuple[bytes, bytes, frozenset[int]]:
    """Return head, body and the numbers of the members that cannot be read any more.

    Parameters
    ----------
    sealed : SealedBody
        Parts.
    find : callable
        Returns the keys of these numbers; None when one of them is gone.

    Raises
    ------
    SealedBodyError
        When a part is not what was sealed.

    """
    opened = [
        None
        if (keys := find(part.keys)) is None
        else part.opened(keys, order=order, is_batch=sealed.is_batch)
        for order, part in enumerate(sealed.parts)
    ]
    first = opened[0]
    if first is None:
        members = sealed.parts[1:] if sealed.is_batch else sealed.parts
        return ERASED_HEAD, b"", frozenset(part.number for part in members) or frozenset((0,))
    head, rest = _texts(first, 1)
    if not sealed.is_batch:
        return head[0], rest, frozenset()
    gaps, rest = _texts(rest, len(sealed.parts))
    if rest:
        raise SealedBodyError("the frame of a batch has another length")
    erased = frozenset(
        part.number for part, text in zip(sealed.parts[1:], opened[1:], strict=True) if text is None
    )
    texts = [ERASED_MEMBER if text is None else text for text in opened[1:]]
    body = [gaps[0]]
    for text, gap in zip(texts, gaps[1:], strict=True):
        body += (text, gap)
    return head[0], b"".join(body), erased


def _sealed(number: int, keys: Sequence[Key], text: bytes, order: int | None = None) -> SealedPart:
    """Seal one part; ``order`` is its place in a batch, None for a request of its own."""
    if not keys:
        raise SealedBodyError("expected a key for each part, got none")
    place = _PLACE.pack(order is not None, order or 0, number)
    ciphertext = AESGCM(_joined([key for _, key in keys])).encrypt(_NONCE, text, place)
    return SealedPart(number=number, keys=tuple(of for of, _ in keys), ciphertext=ciphertext)


def _joined(keys: Sequence[bytes]) -> bytes:
    if len(keys) == 1:
        return keys[0]
    joined = reduce(int.__xor__, (int.from_bytes(key, "little") for key in keys))
    return joined.to_bytes(KEY_BYTES, "little")


def _texts(data: bytes, n: int) -> tuple[list[bytes], bytes]:
    """Take ``n`` texts, each behind its length, off the beginning of something."""
    texts, at = [], 0
    for _ in range(n):
        if at + _LENGTH.size > len(data):
            raise SealedBodyError("the frame of a request is cut")
        (length,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size
        texts.append(data[at : at + length])
        at += length
    if at > len(data):
        raise SealedBodyError("the frame of a request is cut")
    return texts, data[at:]
