"""Request line and headers of a stored request, as far as CloudEvents need them.

Most header lines of a sender are the same in each of its requests: their parsed form is
remembered, which halves the time of a head. Lines that differ each time are known by name.
"""

from typing import Final, NamedTuple

_PREFIX: Final = b"ce-"
_CONTENT: Final = {b"content-type": ":type", b"content-encoding": ":encoding"}
_CHANGING: Final = frozenset(
    {"id", "time", "requestid", "recordedtime", "latencyms", "traceparent", "datalength"}
)
_MAX_REMEMBERED: Final = 4096
_MAX_LINE_BYTES: Final = 256
_WHITE: Final = b" \t"

_remembered: dict[bytes, tuple[str, str]] = {}
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
    fields = list(map(_remembered.get, lines))
    for place, field in enumerate(fields):
        if field is None:
            fields[place] = _field(lines[place])
    # Backwards, so that the first of two equal names stays.
    attributes = dict(filter(None, reversed(fields)))
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


def _field(line: bytes) -> tuple[str, str]:
    name, colon, value = line.partition(b":")
    name = name.lower()
    field = _IRRELEVANT
    if colon and name.startswith(_PREFIX):
        field = (_text(name[3:]), _text(value.strip(_WHITE)))
    elif colon and name in _CONTENT:
        field = (_CONTENT[name], _text(value.strip(_WHITE)))
    if len(line) <= _MAX_LINE_BYTES and field[0] not in _CHANGING:
        if len(_remembered) >= _MAX_REMEMBERED:
            _remembered.clear()
        _remembered[line] = field
    return field


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        # RFC 9110 5.5: other bytes are opaque; Latin-1 keeps each of them.
        return value.decode("latin-1")
