"""One captured CloudEvent, encoded once, in a form from which each wire format is cheap."""

import base64
import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Self

import msgspec
import orjson

from sidelight.logger.errors import SpoolError

BATCH_CONTENT_TYPE: Final = b"application/cloudevents-batch+json"

_PREFIX: Final = struct.Struct("<BI")
_EMBEDDED: Final = 1

# Receivers bound the nesting of a whole batch. A body that stands alone within a parser's bound
# can exceed it inside the batch, and would then cost its neighbours their delivery.
_FREE_NESTING: Final = 100
_MAX_EMBEDDED_BYTES: Final = 256 * 1024
# Behind that much, validating alone is cheaper than building what is said.
_MAX_BUILT_BYTES: Final = 2048
_ANY: Final = msgspec.json.Decoder(msgspec.Raw)
_FEW: Final = 8
_OPENING: Final = b"[" * 900
_CLOSING: Final = b"]" * 900

_SPACE: Final = b" \t\r\n"
_BLANKS: Final = b" \t"
# CloudEvents HTTP binding 3.1.3.2: space, double quote, percent and everything outside
# U+0021 to U+007E is percent-encoded, and nothing else should be.
_UNSAFE: Final = re.compile(rb"[^\x21\x23\x24\x26-\x7e]")
_CONTROLS: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


@dataclass(slots=True)
class CapturedEvent:
    """A CloudEvent (1.0.2) with its attributes as JSON and its data as the bytes on the wire.

    Not frozen, though nobody changes one: freezing costs half a microsecond, and two are built for
    every captured request.

    Parameters
    ----------
    attributes : bytes
        JSON object of strings without its closing brace: every attribute, never the data.
    data : bytes
        The payload, byte for byte.
    is_embedded : bool, default False
        Whether ``data`` is one JSON value that may stand as it is behind ``"data":``.

    Examples
    --------
    >>> event = CapturedEvent(b'{"id":"1","datacontenttype":"application/json"', b"[0.5]", True)
    >>> event.member()
    b'{"id":"1","datacontenttype":"application/json","data":[0.5]}'
    >>> event.headers()
    [(b'ce-endpoint', b''), (b'ce-id', b'1'), (b'content-type', b'application/json')]

    """

    attributes: bytes
    data: bytes
    is_embedded: bool = False

    @property
    def size(self) -> int:
        """Length in bytes of the member of a batch, exact to a few bytes."""
        data = len(self.data)
        return len(self.attributes) + 20 + (data if self.is_embedded else (data + 2) // 3 * 4)

    def member(self) -> bytes:
        """Return the event in the JSON format; valid JSON data stands verbatim."""
        if self.is_embedded:
            return b'%b,"data":%b}' % (self.attributes, self.data)
        if not self.data:
            return self.attributes + b"}"
        return b'%b,"data_base64":"%b"}' % (self.attributes, base64.b64encode(self.data))

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Return the headers of the binary mode; the body is ``data``."""
        # As KServe's agent sends it; an empty attribute has no place in the JSON format.
        attributes = orjson.loads(self.attributes + b"}")
        headers = [] if "endpoint" in attributes else [(b"ce-endpoint", b"")]
        for name, value in attributes.items():
            text = value.encode()
            if name == "datacontenttype":
                headers.append((b"content-type", _header_safe(text)))
            elif name == "id":
                headers.append((b"ce-id", _verbatim(text)))
            else:
                headers.append((b"ce-" + name.encode(), _percent_encoded(text)))
        return headers

    def pack(self) -> bytes:
        """Return the event as one record of the spool."""
        kind = _EMBEDDED if self.is_embedded else 0
        return _PREFIX.pack(kind, len(self.attributes)) + self.attributes + self.data

    @classmethod
    def unpack(cls, record: bytes) -> Self:
        """Read what ``pack`` wrote.

        Raises
        ------
        SpoolError
            When the record was written by something else.

        """
        try:
            kind, length = _PREFIX.unpack_from(record)
        except struct.error:
            kind, length = 0, len(record)
        end = _PREFIX.size + length
        if end > len(record) or kind > _EMBEDDED:
            raise SpoolError(
                f"spooled record of {len(record)} bytes: expected a captured event, got something "
                "else; was the folder written by another program?"
            )
        return cls(record[_PREFIX.size : end], record[end:], kind == _EMBEDDED)


def batch_body(events: Iterable[CapturedEvent]) -> bytes:
    """Return events as one JSON array (CloudEvents JSON format, section 4)."""
    return b"[" + b",".join([event.member() for event in events]) + b"]"


def is_embeddable(data: bytes) -> bool:
    """Whether ``data`` may stand in a batch as it is and be found there byte for byte.

    It is valid JSON for strict parsers (no NaN, valid UTF-8, and when short no number beyond a
    double), is not
    ``null`` (which means "no data" there), has no white space around it, which a receiver cannot
    tell from the batch's own, and does not nest too deeply to share a document with others. Nor is
    it long: reading it would hold up the traffic, and base64 is ten times as fast.
    """
    if (
        len(data) > _MAX_EMBEDDED_BYTES
        or not data
        or data[0] in _SPACE
        or data[-1] in _SPACE
        or data == b"null"
    ):
        return False
    if not _is_json(data):
        return False
    if len(data) <= 2 * _FREE_NESTING or _count(data, b"[") + _count(data, b"{") <= _FREE_NESTING:
        return True
    try:
        orjson.loads(_OPENING + data + _CLOSING)
    except orjson.JSONDecodeError:
        return False
    return True


def _count(data: bytes, byte: bytes) -> int:
    """Count a byte; of the few in a tensor faster than ``bytes.count``, which looks at each."""
    place = -1
    for n_found in range(_FEW):
        place = data.find(byte, place + 1)
        if place < 0:
            return n_found
    return data.count(byte)


def _is_json(data: bytes) -> bool:
    """Whether data is JSON.

    Of long ASCII the grammar alone is checked, in a third of the time. A number beyond a double
    then passes; a receiver that refuses it costs that one event, which is counted.
    """
    try:
        if len(data) > _MAX_BUILT_BYTES and data.isascii():
            _ANY.decode(data)
        else:
            orjson.loads(data)
    except (msgspec.DecodeError, orjson.JSONDecodeError, RecursionError):
        return False
    return True


def _percent_encoded(text: bytes) -> bytes:
    if not _UNSAFE.search(text):
        return text
    return _UNSAFE.sub(lambda match: b"%%%02X" % match.group()[0], text)


def _verbatim(text: bytes) -> bytes:
    """Give the caller's id as it is, the way KServe's agent sends it.

    Receivers take the id of an inference without percent-decoding, because that agent does not
    encode it; encoded, the same id would be another one than in a batch. What no header can carry
    is encoded nevertheless.
    """
    if _CONTROLS.search(text) or text != text.strip(_BLANKS):
        return _percent_encoded(text)
    return text


def _header_safe(text: bytes) -> bytes:
    return _CONTROLS.sub(b"", text)
