"""Records of ModelMesh's payload processor: a JSON object around a payload in base64.

``{"id", "kind": "request" | "response", "modelid", "metadata", "data"}`` at its own route;
``modelid`` ends in a suffix of the serving runtime that is no part of the model's name.
"""

import base64
import binascii
import json
from typing import Any, Final

from sidelight.logger._envelope_inflate import InflateError, inflated_json
from sidelight.logger._envelope_member import EventLimits, Place, build_event
from sidelight.logger._envelope_split import sound_text
from sidelight.logger.errors import EnvelopeError
from sidelight.payloads import Event

RECORDS_ROUTE: Final = "/consumer/kserve/v2"
_TYPE: Final = "io.sidelight.modelmesh."
_SOURCE: Final = "/modelmesh"
_KINDS: Final = ("request", "response")
_SUFFIX: Final = "__isvc"


def parse_record(body: bytes, coding: str, place: Place, limits: EventLimits) -> Event:
    """Return the record as an event; raise ``EnvelopeError`` when it is none.

    Parameters
    ----------
    body : bytes
        The record, as it came.
    coding : str
        Its Content-Encoding; empty for none.
    place : Place
    limits : EventLimits

    """
    try:
        text = inflated_json(body, coding, max_bytes=limits.max_inflated_bytes)
    except InflateError as error:
        raise EnvelopeError("body", expected=error.expected, got=error.got) from None
    record = _object(text)
    record_id, kind, model = (_text(record, name) for name in ("id", "kind", "modelid"))
    if not record_id:
        raise EnvelopeError("id", expected="a string", got="none")
    if kind not in _KINDS:
        raise EnvelopeError("kind", expected="request or response", got=kind[:80] or "none")
    attributes = {
        "specversion": "1.0",
        "type": _TYPE + kind,
        "source": _SOURCE,
        "id": record_id,
        "modelname": model.partition(_SUFFIX)[0],
    }
    metadata = record.get("metadata")
    if isinstance(metadata, dict) and metadata:
        attributes["metadata"] = json.dumps(metadata)
    return build_event(attributes, _payload(record.get("data")), place, 0, limits)


def _object(body: bytes) -> dict[str, Any]:
    try:
        record = json.loads(body)
    except (ValueError, RecursionError):
        raise EnvelopeError("body", expected="JSON", got=f"{len(body)} other bytes") from None
    if not isinstance(record, dict):
        raise EnvelopeError("body", expected="a JSON object", got=type(record).__name__)
    return record


def _text(record: dict[str, Any], name: str) -> str:
    value = record.get(name, "")
    if not isinstance(value, str):
        raise EnvelopeError(name, expected="a string", got=type(value).__name__)
    return sound_text(value)


def _payload(data: object) -> bytes:
    if data is None:
        return b""
    if not isinstance(data, str):
        raise EnvelopeError("data", expected="base64 in a string", got=type(data).__name__)
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise EnvelopeError("data", expected="base64", got="other characters") from None
