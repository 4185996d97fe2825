"""The few headers of a head that frame or route its message; everything else stays raw bytes."""

import re
from typing import Final

# The headers that change how a message is framed or forwarded; searched in a head in lower case.
_SPECIAL: Final = re.compile(
    rb"\r\n(connection|proxy-connection|keep-alive|te|transfer-encoding|upgrade"
    rb"|content-length|expect|host):[ \t]*([^\r\n]*)"
)

# RFC 9110 7.6.1. Transfer-Encoding belongs to them, but the chunks are passed on, so it stays.
_HOP_BY_HOP: Final = frozenset(
    {b"connection", b"proxy-connection", b"keep-alive", b"te", b"upgrade"}
)

# Connection may not name these: without them the next hop would frame or route another message.
_NEVER_DROPPED: Final = frozenset({b"content-length", b"transfer-encoding", b"host", b"trailer"})

# What Connection usually says; these have no header of their own that is not dropped anyway.
_OPTIONS_WITHOUT_HEADER: Final = _HOP_BY_HOP | {b"close", b""}


class Special:
    """The headers of one head that frame or route its message, found in one pass.

    Attributes
    ----------
    values : dict
        Last value by name, both in lower case; of Transfer-Encoding all of them, as one list.
    options : set of bytes
        Members of Connection, in lower case.
    hosts : int
        Number of Host headers.
    lengths_differ : bool
        Whether there is more than one length.
    """

    __slots__ = ("_cuts", "_raw", "hosts", "lengths_differ", "options", "values")

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._cuts: list[tuple[int, int]] = []
        self.values: dict[bytes, bytes] = {}
        self.options: set[bytes] = set()
        self.hosts = 0
        self.lengths_differ = False
        for header in _SPECIAL.finditer(raw.lower()):
            name, value = header.groups()
            value = value.rstrip(b" \t")
            if name == b"host":
                self.hosts += 1
            elif name in _HOP_BY_HOP:
                self._cuts.append(header.span())
                if name == b"connection":
                    self._add_options(value)
            elif name == b"content-length" and self.values.get(name, value) != value:
                self.lengths_differ = True
            elif name == b"transfer-encoding" and name in self.values:
                # RFC 9110 5.3: one list on several lines. A reader that looks at one line only
                # would frame another message, so all of them are looked at.
                value = self.values[name] + b", " + value
            self.values[name] = value

    def _add_options(self, value: bytes) -> None:
        if b"," in value:
            self.options.update([option.strip(b" \t") for option in value.split(b",")])
        else:
            self.options.add(value)

    def without_hop_by_hop(self) -> bytes:
        """Give the head without the headers that are meant for one hop (RFC 9110 7.6.1)."""
        raw = self._raw
        if not self.options <= _OPTIONS_WITHOUT_HEADER:
            return without_headers(raw, _HOP_BY_HOP | (self.options - _NEVER_DROPPED))
        for start, end in reversed(self._cuts):
            raw = raw[:start] + raw[end:]
        return raw


def without_headers(raw: bytes, dropped: frozenset[bytes]) -> bytes:
    """Head without the headers of these names (lower case)."""
    lines = raw.split(b"\r\n")
    kept = [line for line in lines[1:] if line.partition(b":")[0].lower() not in dropped]
    return b"\r\n".join([lines[0], *kept])
