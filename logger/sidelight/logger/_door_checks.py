"""What the door looks at before it stores a request: whether it is a CloudEvent at all."""

import json
import re
from collections.abc import Callable
from typing import Any, Final

import msgspec
import orjson

from sidelight.logger._envelope_inflate import InflateError, inflated_json
from sidelight.logger._envelope_json import parse_structured
from sidelight.logger._envelope_member import EventLimits, Place
from sidelight.logger._envelope_split import split_array
from sidelight.logger._http import Request
from sidelight.logger._identity import is_known_type
from sidelight.logger.errors import EnvelopeError

MAX_NESTING: Final = 1000
# Members of one batch: as many of the shortest events are 20 MiB. Each costs objects, event or not.
MAX_MEMBERS: Final = 1 << 18

_STRUCTURED: Final = b"application/cloudevents"
_BATCH: Final = b"application/cloudevents-batch"
_JSON_FORMATS: Final = (b"", b"+json")
REQUIRED: Final = (b"specversion", b"type", b"source", b"id")
_RECORD_KEYS: Final = ("id", "kind", "data")
_REQUIRED_FIELDS: Final = tuple(b"\r\nce-" + name + b":" for name in REQUIRED)
# A false suspicion of an empty value, or of another mode, costs microseconds and nothing else.
_NO_VALUE: Final = (b"\r", b" \r", b"  ", b" \t", b"\t")
_GOT_CHARS: Final = 80


class _AnObject(msgspec.Struct, gc=False):
    """Any JSON object, with nothing of it kept: 24 bytes where its text would be 64."""


_ARRAY: Final = msgspec.json.Decoder(list[msgspec.Raw])
_OBJECTS: Final = msgspec.json.Decoder(list[_AnObject])
_JSON_ERRORS: Final = (msgspec.DecodeError, ValueError, RecursionError)
# A string is one token, so that brackets in it do not count.
_TOKEN: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?|[\[\]{}]', re.DOTALL)
_NOWHERE: Final = Place(partition=0, position=0, received_ns=0)
_LIMITS: Final = EventLimits()


class RefusedEvent(Exception):  # noqa: N818 - never leaves the door
    """A request that is not stored: its status, one word for the counter, and the parts to say."""

    def __init__(
        self, status: int, reason: str, detail: str, *, expected: str, got: str | bytes, hint: str
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.reason = reason
        self.detail = detail
        self.expected = expected
        self.got = got
        self.hint = hint


def check_event(request: Request, *, max_inflated_bytes: int) -> str:
    """Return the mode of a request: ``binary``, ``structured`` or ``batch``.

    Members of a batch and payloads are looked at later, by the consumer of the journal.

    Raises
    ------
    RefusedEvent
        When the request is no CloudEvent.

    """
    if is_plainly_binary(request.head.lower()):
        return "binary"
    header = request.header
    content_type = header(b"content-type") or b""
    media_type = content_type.partition(b";")[0].strip().lower()
    required = [header(b"ce-" + name) for name in REQUIRED]
    known = is_known_type((required[1] or b"").decode("latin-1"))
    # KServe's agent copies the caller's Content-Type onto its events: its attributes win.
    if not media_type.startswith(_STRUCTURED) or (known and all(required)):
        _check_binary(required, content_type, known=known)
        return "binary"
    is_batch = media_type.startswith(_BATCH)
    if media_type.removeprefix(_BATCH if is_batch else _STRUCTURED) not in _JSON_FORMATS:
        raise RefusedEvent(
            415,
            "media_type",
            "this format of CloudEvents is not supported",
            expected="application/cloudevents+json or application/cloudevents-batch+json",
            got=media_type[:_GOT_CHARS],
            hint="send JSON, or binary mode",
        )
    text = _inflated(request, max_bytes=max_inflated_bytes)
    if is_batch:
        _or_refused(_check_array, text)
        return "batch"
    _or_refused(_check_object, text)
    return "structured"


def check_payload_record(request: Request, *, max_inflated_bytes: int) -> None:
    """Check a record of ModelMesh's payload processor: a JSON object with id, kind and data.

    Raises
    ------
    RefusedEvent
        When it is none.

    """
    _or_refused(_check_record, _inflated(request, max_bytes=max_inflated_bytes))


def is_plainly_binary(folded: bytes) -> bool:
    """Whether a head in lower case has all that binary mode needs; most have, so it is quick."""
    if folded.find(_STRUCTURED) >= 0:
        return False
    for field in _REQUIRED_FIELDS:
        at = folded.find(field)
        if at < 0 or folded.startswith(_NO_VALUE, at + len(field)):
            return False
    return True


def _check_binary(required: list[bytes | None], content_type: bytes, *, known: bool) -> None:
    missing = [name for name, value in zip(REQUIRED, required, strict=True) if not value]
    if not missing or (known and missing == [b"id"]):
        return
    if not any(value is not None for value in required):
        raise RefusedEvent(
            400,
            "no_event",
            "the request is no CloudEvent",
            expected="ce- headers, or a body of application/cloudevents(-batch)+json",
            got=b"Content-Type " + content_type[:_GOT_CHARS] if content_type else "neither",
            hint="CloudEvents HTTP protocol binding 1.0, section 3",
        )
    raise RefusedEvent(
        400,
        "attribute",
        "a required attribute of the CloudEvent is missing or empty",
        expected="headers ce-specversion, ce-type, ce-source and ce-id with values",
        got="no " + ", ".join("ce-" + name.decode() for name in missing),
        hint="CloudEvents 1.0, section 3.1",
    )


def _inflated(request: Request, *, max_bytes: int) -> bytes:
    coding = (request.header(b"content-encoding") or b"").decode("latin-1")
    try:
        return inflated_json(request.body, coding, max_bytes=max_bytes)
    except InflateError as error:
        status = {"too_large": 413, "coding": 415}.get(error.reason, 400)
        raise RefusedEvent(
            status,
            f"inflate_{error.reason}",
            "the compressed body cannot be taken",
            expected=error.expected,
            got=error.got,
            hint="send a smaller batch, whole, with gzip or without compression",
        ) from None


def _or_refused(check: Callable[[bytes], object], text: bytes) -> None:
    try:
        check(text)
    except EnvelopeError as error:
        raise RefusedEvent(
            400,
            "envelope",
            f"the JSON envelope is wrong: {error.what}",
            expected=error.expected,
            got=error.got,
            hint="CloudEvents JSON format 1.0",
        ) from None


def _check_array(text: bytes) -> None:
    if len(text) > 2 * MAX_MEMBERS:
        _check_long_array(text)
        return
    try:
        _ARRAY.decode(text)
    except _JSON_ERRORS:
        # Slower, but sees members behind NaN tokens and deep payloads, as the consumer does.
        split_array(text)


def _check_long_array(text: bytes) -> None:
    try:
        n_members = len(_OBJECTS.decode(text))
    except _JSON_ERRORS:
        n_members = len(split_array(text, most=MAX_MEMBERS))
    if n_members > MAX_MEMBERS:
        raise RefusedEvent(
            413,
            "members",
            "the batch has too many members",
            expected=f"at most {MAX_MEMBERS} events in one request",
            got="more",
            hint="send smaller batches",
        )


def _check_object(text: bytes) -> None:
    _check_nesting(text)
    parse_structured(text, _NOWHERE, _LIMITS)


def _check_record(text: bytes) -> None:
    _check_nesting(text)
    record = _loaded(text)
    if not isinstance(record, dict):
        raise EnvelopeError("body", expected="a JSON object", got=type(record).__name__)
    missing = [key for key in _RECORD_KEYS if record.get(key) is None or record[key] == ""]
    if missing and missing != ["data"]:
        raise EnvelopeError("body", expected="id, kind and data", got="no " + ", ".join(missing))
    if "data" not in record:
        raise EnvelopeError("body", expected="id, kind and data", got="no data")


def _loaded(text: bytes) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        pass
    try:
        # Accepts the NaN tokens that model servers write.
        return json.loads(text)
    except (ValueError, RecursionError):
        raise EnvelopeError("body", expected="JSON", got=f"{len(text)} malformed bytes") from None


def _check_nesting(text: bytes) -> None:
    if text.count(b"[") + text.count(b"{") <= MAX_NESTING:
        return
    depth = 0
    for token in _TOKEN.finditer(text):
        byte = text[token.start()]
        if byte in b"[{":
            depth += 1
            if depth > MAX_NESTING:
                raise EnvelopeError(
                    "nesting", expected=f"at most {MAX_NESTING} levels of JSON", got="more"
                )
        elif byte in b"]}":
            depth -= 1
