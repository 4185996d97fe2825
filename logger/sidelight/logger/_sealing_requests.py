"""What of a request is sealed, piece by piece, whose it is, and what of its head stays readable."""

from collections.abc import Collection, Iterator
from functools import lru_cache
from typing import Final
from urllib.parse import unquote

import msgspec

from sidelight.logger._envelope_feedback import feedback
from sidelight.logger._envelope_head import Head
from sidelight.logger._envelope_record import RECORDS_ROUTE
from sidelight.logger._envelope_split import split_array
from sidelight.logger._identity import FEEDBACK_TYPE, deployment_name, identity, is_known_type
from sidelight.logger._sealed_body import Piece
from sidelight.payloads import Event

BATCH: Final = b"application/cloudevents-batch"
"""What the content type of a batch begins with."""

_REQUIRED: Final = ("specversion", "type", "source", "id")
_ARRAY: Final = msgspec.json.Decoder(list[msgspec.Raw])


@lru_cache(maxsize=8)
def _as_bytes(names: frozenset[str]) -> frozenset[bytes]:
    return frozenset(name.encode("latin-1", "replace") for name in names)


def readable_head(head: bytes, headers: Collection[str]) -> bytes:
    r"""Return what stays readable of a head: the route, and some headers.

    Examples
    --------
    >>> readable_head(b"POST /?who=me HTTP/1.1\r\nCe-Id: 7\r\nCe-Type: t\r\n\r\n", {"ce-type"})
    b'POST / HTTP/1.1\r\nCe-Type: t\r\n\r\n'

    """
    wanted = _as_bytes(frozenset(headers))
    lines = head.split(b"\r\n")
    words = lines[0].split(b" ")
    if len(words) > 1:
        words[1] = words[1].partition(b"?")[0]
    kept = [line for line in lines[1:] if line.partition(b":")[0].strip().lower() in wanted]
    return b"\r\n".join([b" ".join(words), *kept, b"", b""])


def requests_of(event: Event) -> list[tuple[str, str]]:
    """Return (deployment, request id) of everything that an event tells something about."""
    key = identity(event)
    own = [(key.deployment, key.request_id)]
    if event.type != FEEDBACK_TYPE:
        return own
    items, _ = feedback(event)
    found = {(_stored(item["deployment"]), item["request_id"]): None for item in items}
    return list(found) or own


def _stored(name: str) -> str:
    namespace, slash, rest = name.partition("/")
    return deployment_name(unquote(namespace), unquote(rest)) if slash else name


def is_batch(head: Head) -> bool:
    """Whether the parser takes a request apart; complete attributes of a known type win."""
    content_type = head.content_type.strip().lower()
    if head.path == RECORDS_ROUTE or not content_type.startswith(BATCH.decode()):
        return False
    return not (
        all(head.attributes.get(name) for name in _REQUIRED)
        and is_known_type(head.attributes["type"])
    )


def pieces_of(body: bytes, numbers: Collection[int]) -> Iterator[Piece]:
    """Return where the members of a batch stand that are events."""
    at = 0
    for number, member in enumerate(_members(body)):
        # Only white space and a comma stand before it, and no member begins with these.
        start = body.index(member, at)
        at = start + len(member)
        if number in numbers:
            yield Piece(number=number, start=start, end=at)


def _members(body: bytes) -> list[bytes]:
    try:
        return [bytes(member) for member in _ARRAY.decode(body)]
    except (msgspec.DecodeError, ValueError, RecursionError):
        return split_array(body)
