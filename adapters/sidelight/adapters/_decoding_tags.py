"""The tags of an inference: what its events and bodies say that has no column of its own."""

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any, Final, NamedTuple
from urllib.parse import unquote

import orjson

from sidelight.adapters.dialects import Half
from sidelight.payloads import Event

_TAGS: Final = (
    ("abortedby", "aborted_by"),
    ("annotations", "annotations"),
    ("datadigest", "data_digest"),
    ("datalength", "data_length"),
    ("datasize", "data_size"),
    ("detectortype", "detector_type"),
    ("inferenceid", "inference_id"),
    ("metadata", "metadata"),
    ("redacted", "redacted"),
    ("redactionreason", "redaction_reason"),
    ("requestmethod", "method"),
    ("requestpath", "path"),
    ("samplingrate", "sampling_rate"),
    ("traceparent", "traceparent"),
    ("truncated", "truncated"),
    ("xrequestid", "x_request_id"),
)
_JSON: Final = frozenset({"annotations", "metadata"})
MEANINGLESS: Final = frozenset({"", "{}", "null"})
_HEADERS: Final = (("header", "headers"), ("responseheader", "response_headers"))
_DEAD_LETTER: Final = ("dest", "code", "data")
_KNATIVE: Final = "knativeerror"

# What bodies say -> the tag. An error's text is the answer's, the others may be of either half.
_FACTS: Final = (
    ("id", "payload_id"),
    ("model", "model"),
    ("params", "params"),
    ("batch_id", "batch_id"),
    ("routing", "routing"),
    ("metrics", "metrics"),
    ("error", "error"),
)
_SIDES: Final = ("request", "response")
_MAX_OWN_TAGS: Final = 64


def tags_of(events: Sequence[Event], request: Half | None, response: Half | None) -> dict[str, Any]:
    """Return the tags of an inference; where both halves say something, the request's.

    Parameters
    ----------
    events : sequence of Event
        The response, then the request; one of them may be missing.
    request, response : Half or None
        What was read of them.

    """
    tags: dict[str, Any] = {}
    for event in reversed(events):
        _add_stated(tags, event)
    for half in (request, response):
        if half is not None and half.facts:
            _add_facts(tags, half.facts)
    asked_reason = request.reason if request is not None else None
    answered_reason = response.reason if response is not None else None
    if asked_reason or answered_reason:
        reasons = zip(_SIDES, (asked_reason, answered_reason), strict=True)
        tags["undecoded"] = {side: reason for side, reason in reasons if reason}
    halves = zip(_SIDES, (request, response), strict=True)
    if empty := [side for side, half in halves if half is not None and "empty" in half.facts]:
        tags["empty"] = empty
    return tags


def written(tags: dict[str, Any]) -> str:
    """Return tags as JSON that every parser reads, whatever their values are."""
    try:
        return orjson.dumps(tags).decode()
    except TypeError:
        # Numbers beyond 64 bits, halves of surrogate pairs.
        text = json.dumps(tags, ensure_ascii=False, default=str)
        sound = text.encode("utf-8", "replace").decode()
        return json.dumps(json.loads(sound, parse_constant=lambda _: None))


def _add_facts(tags: dict[str, Any], facts: Mapping[str, Any]) -> None:
    for fact, tag in _FACTS:
        if fact in facts:
            tags.setdefault(tag, facts[fact])
    own = facts.get("tags")
    if type(own) is dict:
        # Seldon's models tag their answers; ours are not replaced by them.
        for name in list(own)[:_MAX_OWN_TAGS]:
            tags.setdefault(name, own[name])


def _add_stated(tags: dict[str, Any], event: Event) -> None:
    """Add the tags that one event's attributes make, in a fixed order."""
    extensions = event.extensions
    plain, groups, has_error = _plan(tuple(extensions))
    for name, tag in plain:
        if tag not in tags and (value := extensions[name]) not in MEANINGLESS:
            tags[tag] = _json_or_text(value) if name in _JSON else value
    for tag, names in groups:
        if tag not in tags:
            tags[tag] = {header: extensions[name] for header, name in names}
    if has_error:
        tags.setdefault("dead_letter", _dead_letter(extensions))
    elif event.dead_letter:
        tags.setdefault("dead_letter", True)
    if event.id_missing:
        tags.setdefault("id_missing", True)


class _Plan(NamedTuple):
    """Attributes that are tags by themselves, headers by the tag that holds them, dead letters."""

    plain: tuple[tuple[str, str], ...]
    groups: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]
    has_error: bool


@lru_cache(maxsize=4096)
def _plan(names: tuple[str, ...]) -> _Plan:
    """Return which attributes of a sender are tags: all its events have the same ones."""
    groups = [
        (tag, tuple((name[len(prefix) :], name) for name in names if name.startswith(prefix)))
        for prefix, tag in _HEADERS
    ]
    return _Plan(
        tuple((name, tag) for name, tag in _TAGS if name in names),
        tuple((tag, headers) for tag, headers in groups if headers),
        any(name.startswith(_KNATIVE) for name in names),
    )


def _dead_letter(extensions: Mapping[str, str]) -> dict[str, Any]:
    """Return what Knative says of a failed delivery; its data are base64, cut off somewhere."""
    found: dict[str, Any] = {
        name: extensions[_KNATIVE + name]
        for name in _DEAD_LETTER
        if extensions.get(_KNATIVE + name)
    }
    if (code := found.get("code", "")).isascii() and code.isdigit():
        found["code"] = int(code[:9])
    if text := found.get("data"):
        with suppress(binascii.Error, ValueError):
            found["data"] = base64.b64decode(text[: len(text) // 4 * 4]).decode(errors="replace")
    return found


def _json_or_text(value: str) -> Any:
    """Read JSON as KServe's agent writes it, raw, or as an intermediary encoded it again."""
    for text in (value, unquote(value)):
        try:
            read = json.loads(text)
        except (ValueError, RecursionError):
            continue
        try:
            json.dumps(read, allow_nan=False).encode()
        except (ValueError, RecursionError):
            break
        return read
    return value
