"""The JSON event format and its batches, with the data kept as the sender wrote it."""

import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import msgspec

from sidelight.logger._arrival import Arrival
from sidelight.logger._envelope_head import CHANGING
from sidelight.logger._envelope_member import (
    Attributes,
    EventLimits,
    Place,
    Rejected,
    build_event,
)
from sidelight.logger._envelope_split import sound_text, split_array, split_object
from sidelight.logger._envelope_template_members import MemberTemplates
from sidelight.logger.errors import EnvelopeError
from sidelight.payloads import Event

# Raw values are skipped, not decoded: the bytes of ``data`` stay exactly what was sent.
_OBJECT: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ARRAY: Final = msgspec.json.Decoder(list[msgspec.Raw])
_NULL: Final = b"null"
_QUOTE: Final = 0x22
_QUOTE_OR_NULL: Final = b'"n'
# No number can be one of these. An id may be: some senders count.
_NAMES: Final = ("type", "source")
_BACKSLASH: Final = b"\\"
_DATA: Final = frozenset({"data", "data_base64", "datacontentencoding"})
_JSON_ERRORS: Final = (msgspec.DecodeError, UnicodeDecodeError, ValueError, RecursionError)

# Most values of a sender are the same in each of its events: their texts are remembered.
_MAX_REMEMBERED: Final = 4096
_MAX_REMEMBERED_BYTES: Final = 128
_texts: dict[bytes, str] = {}

# A megabyte of ``{}`` is no reason for a third of a million notes; the bytes are kept anyway.
_MAX_NOTED: Final = 1000

templates: Final = MemberTemplates()


def parse_structured(text: bytes, place: Place, limits: EventLimits, index: int = 0) -> Event:
    """Return the event of one object; raise ``EnvelopeError`` when it is none."""
    return _event(_fields(text), place, index, limits)


def scan_structured(text: bytes, place: Place, limits: EventLimits) -> Event | Arrival:
    """Return the event of a structured request; raise ``EnvelopeError`` when it is none."""
    return _scanned(text, place, 0, limits)


def scan_batch(
    text: bytes, place: Place, limits: EventLimits
) -> tuple[Sequence[Event | Arrival], list[Rejected]]:
    """Return the events of a batch and its bad members; the others go on.

    Raises
    ------
    EnvelopeError
        When the body is no JSON array.

    """
    arrivals = templates.arrivals(text, place, limits)
    if arrivals is not None:
        return arrivals, []
    events: list[Event | Arrival] = []
    rejected: list[Rejected] = []
    further: dict[str, Rejected] = {}
    for index, member in enumerate(_members(text)):
        try:
            events.append(_scanned(bytes(member), place, index, limits))
        except EnvelopeError as error:
            bad = place.rejected(index, error)
            if len(rejected) < _MAX_NOTED:
                rejected.append(bad)
            else:
                known = further.get(bad.reason)
                further[bad.reason] = replace(known, n=known.n + 1) if known else bad
    return events, [*rejected, *further.values()]


def _members(text: bytes) -> Sequence[bytes | msgspec.Raw]:
    try:
        return _ARRAY.decode(text)
    except _JSON_ERRORS:
        return split_array(text)


def _scanned(text: bytes, place: Place, index: int, limits: EventLimits) -> Event | Arrival:
    arrival = templates.arrival(text, place, index, limits)
    if arrival is not None:
        return arrival

    event = parse_structured(text, place, limits, index)
    templates.learn_member(text, event, lambda text: parse_structured(text, place, limits, index))
    return event


def _fields(text: bytes) -> dict[str, bytes]:
    try:
        return {name: bytes(value) for name, value in _OBJECT.decode(text).items()}
    except _JSON_ERRORS:
        return split_object(text)


def _event(fields: dict[str, bytes], place: Place, index: int, limits: EventLimits) -> Event:
    attributes = {
        name: _texts.get(value) or _read_text(name, value)
        for name, value in fields.items()
        if name not in _DATA and value != _NULL
    }
    for name in _NAMES:
        if fields.get(name, _NULL)[0] not in _QUOTE_OR_NULL:
            raise EnvelopeError(name, expected="a JSON string", got=_kind_of_raw(fields[name]))
    # CloudEvents 0.2 spelt it so.
    if "contenttype" in attributes:
        attributes.setdefault("datacontenttype", attributes.pop("contenttype"))
    return build_event(attributes, _data(fields, attributes), place, index, limits)


def _data(fields: dict[str, bytes], attributes: Attributes) -> bytes:
    """Return the payload; a JSON string stays one unless the content type says otherwise."""
    data = fields.get("data", _NULL)
    encoded = fields.get("data_base64", _NULL)
    if encoded != _NULL:
        if data != _NULL:
            raise EnvelopeError("data", expected="data or data_base64", got="both")
        return _decoded("data_base64", encoded)
    if data == _NULL:
        return b""
    if data[0] == _QUOTE:
        coding = fields.get("datacontentencoding", _NULL)
        if coding.strip(b'"').lower() == b"base64":
            return _decoded("data", data)
        if not _is_json_type(attributes.get("datacontenttype", "")):
            return _text("data", data).encode()
    return data


def _is_json_type(content_type: str) -> bool:
    # CloudEvents JSON format 3.1: no content type means JSON.
    media_type = content_type.partition(";")[0].strip().lower()
    return not media_type or media_type.endswith(("/json", "+json"))


def _decoded(name: str, value: bytes) -> bytes:
    if value[0] != _QUOTE:
        raise EnvelopeError(name, expected="base64 in a JSON string", got=_kind_of_raw(value))
    text = value[1:-1]
    try:
        if _BACKSLASH in text:
            text = _text(name, value).encode()
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise EnvelopeError(name, expected="base64", got="other characters") from None


def _read_text(name: str, value: bytes) -> str:
    text = _text(name, value)
    if name not in CHANGING and len(value) <= _MAX_REMEMBERED_BYTES:
        if len(_texts) >= _MAX_REMEMBERED:
            _texts.clear()
        _texts[value] = text
    return text


def _text(name: str, value: bytes) -> str:
    """Return an attribute as text: strings as they are, other values as their JSON."""
    try:
        if value[0] == _QUOTE:
            if _BACKSLASH in value:
                return sound_text(json.loads(value))
            return value[1:-1].decode()
        return value.decode()
    except (ValueError, RecursionError):
        raise EnvelopeError(
            name[:80], expected="a JSON string in UTF-8", got="other bytes"
        ) from None


def _kind_of_raw(value: bytes) -> str:
    return {0x7B: "an object", 0x5B: "an array"}.get(value[0], "another value")
