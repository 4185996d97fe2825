"""What the heads of an exchange say for its events."""

import re
from collections.abc import Iterable
from typing import Final, NamedTuple, TypeVar

import orjson

from sidelight.logger._request_id import ID_HEADERS, header, id_in_head

_TRACEPARENT: Final = b"\r\ntraceparent:"
_CONTENT_TYPE: Final = b"\r\ncontent-type:"
_CONTENT_ENCODING: Final = b"\r\ncontent-encoding:"
_HEAD_BYTES: Final = b"\r\ninference-header-content-length:"
_CLAIM: Final = b"\r\nce-inferenceservicename:"
_CLAIMS: Final = ("inferenceservicename", "namespace", "component", "endpoint")
_IDENTITY: Final = b"identity"
_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_OTHER: Final = re.compile(r"[^a-z0-9]")
_MAX_REMEMBERED: Final = 1024
_MAX_REMEMBERED_HEAD_BYTES: Final = 2048
_MAX_DIGITS: Final = 12

SECRET_HEADERS: Final = frozenset(
    {
        "api-key",
        "authorization",
        "cookie",
        "proxy-authorization",
        "set-cookie",
        "x-api-key",
        "x-auth-token",
    }
)
"""Headers that never leave as they are."""

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


class Facts(NamedTuple):
    """What one head says; byte strings are JSON unless they are called raw.

    ``request_id`` and ``trace`` are strings or attributes, empty when there is none; ``claims``
    the platform's own attributes, by which another than the path names the deployment;
    ``headers`` those of the allow-list, raw; ``media`` the attribute of the content type.
    """

    request_id: bytes
    trace: bytes
    claims: tuple[tuple[str, str], ...]
    headers: tuple[tuple[str, str], ...]
    media: bytes
    coding: bytes
    raw_media: bytes
    raw_coding: bytes
    head_bytes: int | None
    is_json: bool


class Heads:
    """Read heads, or remember them: the usual peer repeats itself.

    Parameters
    ----------
    allowed : iterable of str
        Names of headers that travel in events.

    """

    def __init__(self, allowed: Iterable[str] = ()) -> None:
        self._allowed = [(name, b"\r\n%b:" % name.lower().encode()) for name in allowed]
        names = {key for _, key in self._allowed}
        # What differs from request to request; without it the head is the one of the last time.
        self._varying = [key for key in (*ID_HEADERS, _TRACEPARENT) if key not in names]
        self._known: dict[bytes, Facts] = {}

    def read(self, head: bytes) -> Facts:
        """Return what a raw head says."""
        facts = self._known.get(head)
        if facts is not None:
            return facts
        lowered = head.lower()
        rest = head
        for key in self._varying:
            if key in lowered:
                rest = _without(rest, key)
        if rest is head:
            return self._learn(head, lowered)
        facts = self._known.get(rest) or self._learn(rest, rest.lower())
        return facts._replace(request_id=_request_id(head, lowered), trace=_trace(head, lowered))

    def _learn(self, head: bytes, lowered: bytes) -> Facts:
        media = header(head, lowered, _CONTENT_TYPE)
        essence = media.partition(b";")[0].strip().lower()
        coding = header(head, lowered, _CONTENT_ENCODING)
        if coding.lower() == _IDENTITY:
            coding = b""
        head_bytes = header(head, lowered, _HEAD_BYTES)
        is_number = head_bytes.isdigit() and len(head_bytes) <= _MAX_DIGITS
        found = [(name, header(head, lowered, key)) for name, key in self._allowed]
        facts = Facts(
            request_id=_request_id(head, lowered),
            trace=_trace(head, lowered),
            claims=_claims(head, lowered) if _CLAIM in lowered else (),
            headers=tuple((name, text_of(value)) for name, value in found if value),
            media=b',"datacontenttype":' + string(media) if media else b"",
            coding=b',"contentencoding":' + string(coding) if coding else b"",
            raw_media=media,
            raw_coding=coding,
            head_bytes=int(head_bytes) if is_number else None,
            # Without a media type, CloudEvents data is JSON (JSON format, section 3.1).
            is_json=essence in (b"", b"application/json", b"text/json")
            or essence.endswith(b"+json"),
        )
        if len(head) <= _MAX_REMEMBERED_HEAD_BYTES:
            remember(self._known, head, facts)
        return facts


def attributes_of(headers: Iterable[str], prefix: str, *, hashed: Iterable[str]) -> dict[str, str]:
    """Return the names of the attributes by which headers travel.

    Parameters
    ----------
    headers : iterable of str
        Names on the allow-list.
    prefix : str
        Before the name, of which letters and digits stay, in lower case.
    hashed : iterable of str
        Those that leave as pseudonyms only.

    Raises
    ------
    ValueError
        When two would be one attribute, a name is none, or a header is a secret and not hashed.

    Examples
    --------
    >>> attributes_of(["X-Tenant"], "header", hashed=())
    {'X-Tenant': 'headerxtenant'}

    """
    safe = {name.lower() for name in hashed}
    taken: dict[str, str] = {}
    for name in headers:
        if not _NAME.fullmatch(name):
            raise ValueError(f"headers: expected the name of a header, got {name!r}")
        if name.lower() in SECRET_HEADERS and name.lower() not in safe:
            raise ValueError(
                f"headers: expected none that holds secrets, got {name}; a rule of redaction with "
                "the action hmac for this header, of both halves and all deployments, allows it"
            )
        attribute = prefix + _OTHER.sub("", name.lower())
        if attribute == prefix or attribute in taken:
            raise ValueError(
                f"headers: expected names that differ in letters and digits, got {name}"
                + (f" and {taken[attribute]}" if attribute in taken else "")
            )
        taken[attribute] = name
    return {name: attribute for attribute, name in taken.items()}


def remember(memory: dict[_Key, _Value], key: _Key, value: _Value) -> None:
    """Keep a value for the next time; clients choose keys, so a fresh start bounds the memory."""
    if len(memory) >= _MAX_REMEMBERED:
        memory.clear()
    memory[key] = value


def string(value: bytes) -> bytes:
    """Return bytes of a head as a JSON string."""
    return orjson.dumps(text_of(value))


def text_of(value: bytes) -> str:
    """Return bytes of a head as text: UTF-8 where they are that."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _without(head: bytes, key: bytes) -> bytes:
    """Return a head without the headers of that name."""
    lowered = head.lower()
    parts = []
    end = 0
    while (start := lowered.find(key, end)) >= 0:
        parts.append(head[end:start])
        end = lowered.find(b"\r\n", start + len(key))
        if end < 0:
            return b"".join(parts)
    parts.append(head[end:])
    return b"".join(parts)


def _request_id(head: bytes, lowered: bytes) -> bytes:
    given = id_in_head(head, lowered)
    return string(given) if given else b""


def _trace(head: bytes, lowered: bytes) -> bytes:
    trace = header(head, lowered, _TRACEPARENT)
    return b',"traceparent":' + string(trace) if trace else b""


def _claims(head: bytes, lowered: bytes) -> tuple[tuple[str, str], ...]:
    found = [(name, header(head, lowered, b"\r\nce-%b:" % name.encode())) for name in _CLAIMS]
    return tuple((name, text_of(value)) for name, value in found if value)
