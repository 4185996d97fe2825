"""The data of an event, with the attributes that are about it."""

import re
from typing import Final, NamedTuple

import orjson

from sidelight.logger._emitter_event import CapturedEvent, is_embeddable
from sidelight.logger._emitter_head import Facts
from sidelight.logger._exchange import Exchange
from sidelight.logger._redaction import Body, Redaction
from sidelight.logger._redaction_rule import Half

_FIRST_ERROR: Final = 400
# The known servers write it first; further in it is not worth the search.
_VERSION_KEY: Final = b'"model_version"'
_VERSION: Final = re.compile(rb'[ \t\r\n]*:[ \t\r\n]*("[\x20\x21\x23-\x5b\x5d-\x7e]{1,128}")')
_VERSION_BYTES: Final = 256
_KEYED: Final = "hmac-sha-256"


class EventRoute(NamedTuple):
    """What method and target say: the beginnings of both events, up to the id.

    ``deployments`` are the names that the deployment may have, the one in the events first;
    ``has_version`` says that the path names a version.
    """

    request: bytes
    response: bytes
    deployments: tuple[str, ...]
    has_version: bool


def plain_event(
    attributes: bytes, facts: Facts, body: bytes, cut: int, digest: bytes
) -> CapturedEvent:
    """Return the event of a body that leaves as it came; ``digest`` is that of a cut one."""
    if cut:
        attributes += _cut(len(body) + cut, digest.hex(), "sha-256")
    return CapturedEvent(attributes, body, facts.is_json and is_embeddable(body))


def redacted_event(
    attributes: bytes,
    redaction: Redaction,
    half: Half,
    route: EventRoute,
    facts: Facts,
    exchange: Exchange,
) -> CapturedEvent:
    """Return the event of what may leave of one half of an exchange."""
    is_request = half == "request"
    data, cut, digest = (
        (exchange.request_body, exchange.request_cut, exchange.request_digest)
        if is_request
        else (exchange.response_body, exchange.response_cut, exchange.response_digest)
    )
    is_failure = not is_request and (exchange.status >= _FIRST_ERROR or bool(exchange.aborted_by))
    names_version = not is_request and not route.has_version
    if not redaction.is_about(half, route.deployments, is_failure=is_failure):
        attributes += facts.tail.removeprefix(facts.media_tail)
        attributes += version_in(data) if names_version else b""
        return plain_event(attributes, facts, data, cut, digest)
    left = redaction.body(
        half,
        route.deployments,
        Body(
            data=data,
            media=facts.media,
            coding=facts.coding,
            head_bytes=facts.head_bytes,
            is_cut=cut > 0,
            is_failure=is_failure,
        ),
    )
    if left.withheld:
        # What may not be read may not be guessed either, but who has the key can compare.
        # Of a body that never came to its end there is no digest.
        keyed = redaction.digest(data) if not cut else redaction.digest_of(digest) if digest else ""
        attributes += b',"redacted":"withheld","redactionreason":' + orjson.dumps(left.withheld)
        attributes += _cut(len(data) + cut, keyed, _KEYED) if cut else _digest(keyed, _KEYED)
        return CapturedEvent(attributes, b"", False)  # noqa: FBT003 - the third of three
    attributes += b',"redacted":"applied"'
    if left.head_bytes is not None:
        attributes += b',"inferenceheadercontentlength":"%d"' % left.head_bytes
    if names_version:
        attributes += version_in(left.data)
    return CapturedEvent(attributes, left.data, facts.is_json and is_embeddable(left.data))


def version_in(body: bytes) -> bytes:
    """Return the attribute of the version that an answer of V2 names at its beginning."""
    start = body.find(_VERSION_KEY, 0, _VERSION_BYTES)
    if start < 0:
        return b""
    match = _VERSION.match(body, start + len(_VERSION_KEY))
    return b',"modelversion":' + match[1] if match else b""


def _cut(size: int, digest: str, algorithm: str) -> bytes:
    return b',"truncated":"true","datalength":"%d"%b' % (size, _digest(digest, algorithm))


def _digest(digest: str, algorithm: str) -> bytes:
    return b',"datadigest":"%b=%b"' % (algorithm.encode(), digest.encode()) if digest else b""
