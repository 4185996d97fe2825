"""Which dialect a body is written in: KServe tells no path, so the body itself must say.

What a sender says of a body is a hint: KServe's agent labels the answer with the content type of
the request, and forwards no content encoding.
"""

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

from sidelight.adapters.dialects._encodings import coding_of, inflated
from sidelight.adapters.dialects._frames import unframed
from sidelight.adapters.dialects._half import Dialect, Half, Side, Undecodable
from sidelight.adapters.dialects._lenient_json import lenient_json
from sidelight.adapters.dialects._lines import csv_table, json_lines
from sidelight.adapters.dialects._opaque import opaque
from sidelight.adapters.dialects._seldon_grpc import seldon_protobuf
from sidelight.adapters.dialects._tf_predict import predict
from sidelight.adapters.dialects._v2_binary import binary_tensors
from sidelight.adapters.dialects._v2_grpc import OpenInferenceMessages
from sidelight.payloads import Event

_JSON_STARTS: Final = (b"{", b"[")
_WHITE: Final = b" \t\r\n"
# Some encoders begin UTF-8 with it; a reader may ignore it (RFC 8259 section 8.1).
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
# The tag of field 1 of a message, and a line break.
_FIRST_FIELD: Final = b"\n"
_MESSAGES: Final = OpenInferenceMessages()
_CSV: Final = "text/csv"
# KServe's agent labels a stream of events with what its request was.
_EVENT_STREAM: Final = (b"data:", b"event:", b"retry:", b": ")
_LINES: Final = ("jsonlines", "jsonl", "ndjson", "x-jsonlines", "x-ndjson")
_NO_JSON: Final = object()
_NO_ATTRIBUTES: Final[Mapping[str, str]] = {}
_HEAD_BYTES: Final = "inferenceheadercontentlength"
_SELDON_TYPES: Final = "io.seldon."

# Objects that are known and are no tables: what they are, for the counter of what stays opaque.
_KINDS: Final[tuple[tuple[str, frozenset[str]], ...]] = (
    ("language_model", frozenset({"messages", "prompt", "choices"})),
    ("explanation", frozenset({"explanations"})),
)
_KINDS_INSIDE: Final[tuple[tuple[str, frozenset[str]], ...]] = (
    ("explanation", frozenset({"anchor", "shap_values", "attributions", "ale_values"})),
    ("detector", frozenset({"is_drift", "is_outlier"})),
)


def read_payload(
    data: bytes,
    side: Side,
    dialects: Sequence[Dialect],
    *,
    event: Event | None = None,
    max_inflated_bytes: int = 64 << 20,
) -> Half:
    """Return what a body says; what cannot be read comes back opaque with a reason.

    Parameters
    ----------
    data : bytes
        The payload as it came; compression is known by its magic bytes, whatever headers say.
    side : "request" or "response"
        Which half it is.
    dialects : sequence of Dialect
        Of JSON objects, asked in order. Other forms are known by their bytes and content type.
    event : Event, optional
        That the body came in: content type, content encoding (``deflate`` and ``br`` have no
        magic bytes), protocol and the length of the JSON in front of binary tensors.
    max_inflated_bytes : int, default 64 MiB
        A compressed body that is larger inside stays as it came.

    """
    if not data:
        return opaque(b"")
    try:
        if data[:1] not in _JSON_STARTS:
            data = _inflated(data, event, max_inflated_bytes).removeprefix(_BYTE_ORDER_MARK)
        body = _parsed(data)
        if body is _NO_JSON:
            return _other(data, side, event, max_inflated_bytes)
    except Undecodable as error:
        return opaque(data, error.reason)
    try:
        return _decoded(body, data, side, dialects, event)
    except Undecodable as error:
        return opaque(data, error.reason, form="json")
    except RecursionError:
        return opaque(data, "too_deep", form="json")


def _inflated(data: bytes, event: Event | None, max_bytes: int) -> bytes:
    stated = event.extensions.get("contentencoding", "") if event else ""
    coding = coding_of(data, stated)
    return inflated(data, coding, max_bytes=max_bytes) if coding else data


def _decoded(
    body: Any, data: bytes, side: Side, dialects: Sequence[Dialect], event: Event | None
) -> Half:
    if type(body) is dict:
        for dialect in dialects:
            if dialect.claims(body, side):
                try:
                    return dialect.decode(body, side)
                except Undecodable as error:
                    if error.reason != "binary_tensor":
                        raise
                # The bytes of tensors may be nothing but white space, which JSON may end with.
                attributes = event.extensions if event else _NO_ATTRIBUTES
                return binary_tensors(data, side, _head_bytes(attributes))
    return _unclaimed(body, data, event)


def _unclaimed(body: Any, data: bytes, event: Event | None) -> Half:
    """Read one line of lines: it is a JSON value too."""
    media = _media(event)
    if media.endswith(_LINES):
        return json_lines(data)
    if media == _CSV and type(body) not in {dict, list}:
        return csv_table(data)
    raise Undecodable(_kind(body))


def _media(event: Event | None) -> str:
    content_type = (event.datacontenttype if event else "") or ""
    return content_type.partition(";")[0].strip().lower()


def _kind(body: Any) -> str:
    if type(body) is not dict:
        return "unknown_json"
    for kind, keys in _KINDS:
        if not keys.isdisjoint(body):
            return kind
    inner = body.get("data")
    if type(inner) is dict:
        for kind, keys in _KINDS_INSIDE:
            if not keys.isdisjoint(inner):
                return kind
    return "unknown_json"


def _parsed(data: bytes) -> Any:
    """Return a JSON value; ``_NO_JSON`` when it is none."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        pass
    if not data.lstrip(_WHITE).startswith(_JSON_STARTS):
        return _NO_JSON
    try:
        return lenient_json(data)
    except Undecodable as error:
        if error.reason == "not_json":
            return _NO_JSON
        raise


def _other(data: bytes, side: Side, event: Event | None, max_bytes: int) -> Half:
    """Read what is not one JSON value."""
    attributes = event.extensions if event else _NO_ATTRIBUTES
    media = _media(event)
    protocol = attributes.get("protocol", "").lower()
    if not protocol and event and event.type.startswith(_SELDON_TYPES):
        # Its oldest executors did not say, and knew one protocol.
        protocol = "seldon"
    if data.startswith(_FIRST_FIELD):
        # The length of a model's name behind it may look like the beginning of JSON.
        with contextlib.suppress(Undecodable):
            return _protobuf(data, side, media, protocol, max_bytes)
    if data.lstrip(_WHITE).startswith(_JSON_STARTS):
        return _json_and_more(data, side, attributes)
    if attributes.get(_HEAD_BYTES) == "0":
        # One tensor and nothing else: name, shape and datatype stand in the model's metadata.
        raise Undecodable("raw_tensor")
    if media.endswith(_LINES):
        return json_lines(data)
    if media == _CSV:
        return csv_table(data)
    if media == "text/event-stream" or data.startswith(_EVENT_STREAM):
        raise Undecodable("event_stream")
    return _protobuf(data, side, media, protocol, max_bytes)


def _json_and_more(data: bytes, side: Side, attributes: Mapping[str, str]) -> Half:
    try:
        return binary_tensors(data, side, _head_bytes(attributes))
    except Undecodable as error:
        reason = error.reason
    try:
        return json_lines(data)
    except Undecodable:
        # Neither: what is wrong with tensors says more than that it is no JSON.
        raise Undecodable("not_json" if reason == "binary_tensor" else reason) from None


def _head_bytes(attributes: Mapping[str, str]) -> int | None:
    text = attributes.get(_HEAD_BYTES, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None  # noqa: PLR2004 - digits of any length there is


def _protobuf(data: bytes, side: Side, media: str, protocol: str, max_bytes: int) -> Half:
    if protocol == "tensorflow":
        return predict(unframed(data, max_bytes=max_bytes), side)
    if _MESSAGES.claims(data, media=media, protocol=protocol):
        return _MESSAGES.decode(data, side, max_inflated_bytes=max_bytes)
    if protocol == "seldon":
        return seldon_protobuf(unframed(data, max_bytes=max_bytes))
    try:
        # No content type, or another one's: the message must say for itself what it is.
        return _MESSAGES.decode(data, side, max_inflated_bytes=max_bytes)
    except Undecodable:
        raise Undecodable("not_json") from None
