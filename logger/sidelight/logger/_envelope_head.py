"""Request line and headers of a stored request, as far as CloudEvents need them.

Most header lines of a sender are the same in each of its requests: their parsed form is
remembered, which halves the time of a head. Lines that differ each time are known by name.
"""

from typing import Final, NamedTuple

_PREFIX: Final = b"ce-"
_CONTENT: Final = {b"content-type": ":type", b"content-encoding": ":encoding"}
CHANGING: Final = frozenset(
    {
        *("id", "time", "requestid", "recordedtime", "latencyms", "traceparent", "datalength"),
        *("xrequestid", "inferenceid", "datadigest", "datasize"),
    }
)
"""Attributes that differ from event to event: nothing is remembered of them."""
_MAX_REMEMBERED: Final = 4096
_MAX_LINE_BYTES: Final = 256
_WHITE: Final = b" \t"

_names: dict[bytes, str] = {}
_IRRELEVANT: Final = ("", "")


class Head(NamedTuple):
    """Path without query, ``ce-`` attributes by lower-case name, and the content headers.

    ``is_encoded`` tells whether any value may be quoted or percent-encoded.
    """

    path: str
    attributes: dict[str, str]
    content_type: str
    content_encoding: str
    is_encoded: bool


def read_head(head: bytes) -> Head:
    r"""Return what a raw head says; of a header that stands twice, the first.

    Examples
    --------
    >>> head = read_head(b"POST /events?x HTTP/1.1\r\nCe-Id: 7\r\n\r\n")
    >>> head.path, head.attributes
    ('/events', {'id': '7'})

    """
    lines = head.split(b"\r\n")
    # Backwards, so that the first of two equal names stays.
    attributes = dict(map(_field, reversed(lines)))
    attributes.pop("", None)
    words = lines[0].split(b" ", 2)
    path = words[1].partition(b"?")[0] if len(words) > 1 else b""
    return Head(
        _text(path),
        attributes,
        attributes.pop(":type", ""),
        attributes.pop(":encoding", ""),
        b"%" in head or b'"' in head,
    )


class _Fields(dict[bytes, tuple[str, str]]):
    """Name and value of header lines; what is not remembered is read."""

    def __missing__(self, line: bytes) -> tuple[str, str]:
        name, colon, value = line.partition(b":")
        attribute = _names.get(name)
        if attribute is None:
            attribute = attribute_of(name)
        field = (attribute, _text(value.strip(_WHITE))) if attribute and colon else _IRRELEVANT
        if attribute not in CHANGING and len(line) <= _MAX_LINE_BYTES:
            if len(self) >= _MAX_REMEMBERED:
                self.clear()
            self[line] = field
        return field


_field: Final = _Fields().__getitem__


def attribute_of(name: bytes) -> str:
    """Return the attribute that a header is, in any case; "" for the others."""
    lowered = name.lower()
    attribute = _CONTENT.get(lowered, "")
    if lowered.startswith(_PREFIX):
        attribute = _text(lowered[len(_PREFIX) :])
    if len(name) <= _MAX_LINE_BYTES:
        if len(_names) >= _MAX_REMEMBERED:
            _names.clear()
        _names[name] = attribute
    return attribute


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        # RFC 9110 5.5: other bytes are opaque; Latin-1 keeps each of them.
        return value.decode("latin-1")
