"""The chunked transfer coding (RFC 9112 7.1), read strictly and incrementally."""

import re
from typing import Final

from sidelight.logger._http_head import Refused

# Sixteen digits would overflow 64 bits in a reader less careful than we are. Extensions are
# visible characters and blanks only: a lone CR or LF in one is how chunks are smuggled.
_SIZE_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?")
_TRAILER_LINE: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t\x20-\x7e\x80-\xff]*")

_MAX_LINE_BYTES: Final = 4096
_MAX_TRAILER_BYTES: Final = 65536

_IN_SIZE: Final = 0
_IN_DATA: Final = 1
_AFTER_DATA: Final = 2
_IN_TRAILER: Final = 3
_ENDED: Final = 4


class Chunks:
    """Reads one chunked body, cut anywhere.

    Attributes
    ----------
    ended : bool
        Whether the last chunk and its trailer were read.
    rest : bytes
        What followed the end.
    """

    __slots__ = ("_left", "_line", "_state", "_trailer_bytes", "rest")

    def __init__(self) -> None:
        self._state = _IN_SIZE
        self._left = 0
        self._line = b""
        self._trailer_bytes = 0
        self.rest = b""

    @property
    def ended(self) -> bool:
        return self._state == _ENDED

    def feed(self, data: bytes) -> tuple[bytes, list[bytes]]:
        """Read on.

        Parameters
        ----------
        data : bytes
            The next piece; nothing may be fed after the end.

        Returns
        -------
        framed : bytes
            What may be passed on: a line of framing that is not complete is held back, so that
            nothing unchecked ever leaves.
        parts : list of bytes
            The body's own bytes in it.

        Raises
        ------
        Refused
            With 400, if the framing is not exactly as the standard has it.
        """
        if self._line:
            data = self._line + data
            self._line = b""
        parts: list[bytes] = []
        at = 0
        while at < len(data) and self._state != _ENDED:
            if self._state == _IN_DATA:
                part = data[at : at + self._left]
                parts.append(part)
                at += len(part)
                self._left -= len(part)
                if not self._left:
                    self._state = _AFTER_DATA
                continue
            end = data.find(b"\r\n", at)
            if end < 0:
                self._hold(data[at:])
                return data[:at], parts
            self._read_line(data[at:end])
            at = end + 2
        if self._state == _ENDED:
            self.rest = data[at:]
            return data[:at], parts
        return data, parts

    def _hold(self, line: bytes) -> None:
        if self._state == _AFTER_DATA and line != b"\r":
            raise _refused()
        if len(line) > _MAX_LINE_BYTES:
            raise _refused(line)
        self._line = line

    def _read_line(self, line: bytes) -> None:
        if self._state == _IN_SIZE:
            size = _SIZE_LINE.fullmatch(line)
            if size is None or len(line) > _MAX_LINE_BYTES:
                raise _refused(line)
            self._left = int(size[1], 16)
            self._state = _IN_DATA if self._left else _IN_TRAILER
        elif self._state == _AFTER_DATA:
            if line:
                raise _refused()
            self._state = _IN_SIZE
        elif not line:
            self._state = _ENDED
        else:
            self._trailer_bytes += len(line)
            too_much = self._trailer_bytes > _MAX_TRAILER_BYTES
            if too_much or _TRAILER_LINE.fullmatch(line) is None:
                raise _refused(line)


def _refused(line: bytes = b"") -> Refused:
    return Refused(
        400,
        "the chunked body is not framed as RFC 9112 7.1 has it",
        expected="a size in hexadecimal digits, CRLF, that many bytes, CRLF",
        got=line[:40] or None,
    )
