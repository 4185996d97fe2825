"""Heads of events that were understood before: one match of a pattern, and nothing is left to ask.

A sender writes the same lines in front of each of its events. From a head that was read thoroughly
and found to be an event in binary mode, a pattern is made: the names of the headers, their order,
and every line that frames a message stand in it as they came, the other values may be anything
that a value may be. What it matches would be read thoroughly with the same result; what it does
not match is.
"""

import re
from collections.abc import Callable
from typing import Final

from sidelight.logger._door_checks import REQUIRED, is_plainly_binary
from sidelight.logger._http_head import RequestHead

# Lines that decide how a message is framed, what becomes of its connection, or its mode.
_FIXED: Final = frozenset(
    {
        *(b"connection", b"proxy-connection", b"keep-alive", b"te", b"trailer", b"upgrade"),
        *(b"transfer-encoding", b"expect", b"content-type"),
    }
)
_REQUIRED: Final = frozenset(b"ce-" + name for name in REQUIRED)
EVENT_TARGETS: Final = frozenset({b"/", b"/events", b"/dead-letter"})
_TOKEN_TARGET: Final = re.compile(rb"/events/[A-Za-z0-9_-]+")

# RFC 9110 5.5, as llhttp has it. A value that is required begins at once, or behind one blank.
_VALUE: Final = rb"[\t\x20-\x7e\x80-\xff]*+"
_SOME_VALUE: Final = rb" ?[\x21-\x7e\x80-\xff]" + _VALUE
_LENGTH: Final = rb" ?([0-9]{1,9}+)"
_TOKEN: Final = rb"(/events/[A-Za-z0-9_-]{1,256}+)"

# A pattern costs the loop some 4 microseconds a byte of a head that is nothing but short lines.
_MAX_BYTES: Final = 4 << 10
_MAX_HEADS: Final = 16
_MAX_SEEN: Final = 64
# When more kinds of heads come than can be kept, most of them are not worth a lesson.
_RELUCTANCE: Final = 64


class LearnedHead:
    """One pattern.

    Attributes
    ----------
    match : callable
        Of its compiled form.
    length_group : int
        Of a match, the length of the body; group 1 is the target where that has a token in it.
    head : RequestHead
        The one that it was learned from; of every head that matches it tells the same, but for
        the target and the length.
    target : bytes
        Of the request; empty when it has a token in it and may be another each time.
    hits : int
        How often it was found lately.
    shape : tuple of bytes
        What stands in the pattern as it came.

    """

    __slots__ = ("head", "hits", "length_group", "match", "shape", "target")

    def __init__(self, head: RequestHead) -> None:
        has_token = _TOKEN_TARGET.fullmatch(head.target) is not None
        self.head = head
        self.hits = 0
        self.shape = _shape(head)
        self.target = b"" if has_token else head.target
        self.length_group = 2 if has_token else 1
        self.match: Callable[[bytes], re.Match[bytes] | None] = re.compile(_pattern(head)).match


class LearnedHeads:
    """The heads that one door has learned: a few, since a sender has one or two.

    Attributes
    ----------
    heads : list of LearnedHead
        To be looked through in this order.

    """

    def __init__(self) -> None:
        self.heads: list[LearnedHead] = []
        self._seen: set[tuple[bytes, ...]] = set()
        self._reluctance = 1
        self._unlearned = 0

    def learn(self, head: RequestHead) -> None:
        """Make a pattern of a head when such a one comes for the second time.

        Parameters
        ----------
        head : RequestHead
            Of a request that was taken as an event; any head may be given.

        """
        self._unlearned += 1
        if self._unlearned < self._reluctance or not _is_plain(head):
            return
        self._unlearned = 0
        shape = _shape(head)
        # It was known and read thoroughly nevertheless: what came behind it did not come at once.
        if any(known.shape == shape for known in self.heads):
            return
        if shape not in self._seen:
            if len(self._seen) >= _MAX_SEEN:
                self._seen.clear()
            self._seen.add(shape)
            return
        self._seen.discard(shape)
        if len(self.heads) >= _MAX_HEADS:
            self._reluctance = _RELUCTANCE
            self._forget_one()
        self.heads.append(LearnedHead(head))

    def _forget_one(self) -> None:
        """Forget what came least; what comes most is looked for first."""
        self.heads.sort(key=lambda known: known.hits, reverse=True)
        self.heads.pop()
        for known in self.heads:
            known.hits //= 2


def _is_plain(head: RequestHead) -> bool:
    return (
        len(head.raw) <= _MAX_BYTES
        and head.method == b"POST"
        and (head.target in EVENT_TARGETS or _TOKEN_TARGET.fullmatch(head.target) is not None)
        and head.length >= 0
        and head.keep_alive
        and not (head.is_http_10 or head.expects_continue or head.upgrades)
        and b"\r\ncontent-length:" in (folded := head.raw.lower())
        and is_plainly_binary(folded)
    )


def _shape(head: RequestHead) -> tuple[bytes, ...]:
    """Return what stands in a pattern of this head as it came."""
    request, *lines = head.raw[:-4].split(b"\r\n")
    target = b"" if _TOKEN_TARGET.fullmatch(head.target) else request
    return (target, *[_fixed(line) for line in lines])


def _fixed(line: bytes) -> bytes:
    name = line.partition(b":")[0]
    return line if name.lower() in _FIXED else name


def _pattern(head: RequestHead) -> bytes:
    request, *lines = head.raw[:-4].split(b"\r\n")
    if _TOKEN_TARGET.fullmatch(head.target):
        parts = [b"POST ", _TOKEN, re.escape(b" HTTP/1.1\r\n")]
    else:
        parts = [re.escape(request + b"\r\n")]
    for line in lines:
        name = line.partition(b":")[0].lower()
        parts.append(re.escape(_fixed(line)))
        if name not in _FIXED:
            parts += b":", _value(name)
        parts.append(rb"\r\n")
    return b"".join([*parts, rb"\r\n"])


def _value(name: bytes) -> bytes:
    if name == b"content-length":
        return _LENGTH
    return _SOME_VALUE if name in _REQUIRED else _VALUE
