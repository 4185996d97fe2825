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

Claims = tuple[tuple[str, str], ...]
"""Names and values of attributes."""

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


class Facts(NamedTuple):
    """What one head says, but for the id and the trace, which differ from request to request.

    ``claims`` are the platform's own attributes, by which another than the path names the
    deployment; ``headers`` those of the allow-list; ``tail`` the attributes of the body, as JSON,
    and ``media_tail`` only that of its media type.
    """

    claims: Claims
    headers: tuple[tuple[str, str], ...]
    tail: bytes
    media_tail: bytes
    media: bytes
    coding: bytes
    head_bytes: int | None
    is_json: bool


class Heads:
    """Read heads, or remember them: the usual peer repeats itself.

    Parameters
    ----------
    allowed : iterable of str
        Names of headers that travel in events.

    Attributes
    ----------
    known : dict of bytes to Facts
        Heads without an id and a trace that were read before.

    """

    def __init__(self, allowed: Iterable[str] = ()) -> None:
        self._allowed = [(name, b"\r\n%b:" % name.lower().encode()) for name in allowed]
        names = {key for _, key in self._allowed}
        own = (*ID_HEADERS, _TRACEPARENT)
        self._varying = [key for key in own if key not in names]
        # Those on the allow-list are read like all others.
        self._has_ids = len(self._varying) < len(own)
        self.known: dict[bytes, Facts] = {}

    def read(self, head: bytes) -> tuple[Facts, bytes, bytes]:
        """Return what a raw head says; the caller's id, raw, and the trace.

        The trace is an attribute, as JSON; empty like the id when there is none.
        """
        rest, lowered = head, head.lower()
        request_id = trace = b""
        for key in self._varying:
            start = lowered.find(key)
            if start >= 0:
                # A head without an end, which nobody should make, ends here.
                end = lowered.find(b"\r\n", start + 2) % (len(lowered) + 1)
                value = rest[start + len(key) : end].strip(b" \t")
                if key is _TRACEPARENT:
                    trace = value
                elif not request_id:
                    request_id = value
                rest = rest[:start] + rest[end:]
                lowered = lowered[:start] + lowered[end:]
        if self._has_ids:
            lowered_head = head.lower()
            request_id = id_in_head(head, lowered_head)
            trace = header(head, lowered_head, _TRACEPARENT)
        facts = self.known.get(rest) or self._learn(rest, lowered)
        return facts, request_id, b',"traceparent":' + string(trace) if trace else b""

    def _learn(self, head: bytes, lowered: bytes) -> Facts:
        media = header(head, lowered, _CONTENT_TYPE)
        essence = media.partition(b";")[0].strip().lower()
        coding = header(head, lowered, _CONTENT_ENCODING)
        if coding.lower() == _IDENTITY:
            coding = b""
        digits = header(head, lowered, _HEAD_BYTES)
        is_number = digits.isdigit() and len(digits) <= _MAX_DIGITS
        found = [(name, header(head, lowered, key)) for name, key in self._allowed]
        tail = media_tail = b',"datacontenttype":' + string(media) if media else b""
        if coding:
            tail += b',"contentencoding":' + string(coding)
        if is_number:
            tail += b',"inferenceheadercontentlength":"%b"' % digits
        facts = Facts(
            claims=_claims(head, lowered) if _CLAIM in lowered else (),
            headers=tuple((name, text_of(value)) for name, value in found if value),
            tail=tail,
            media_tail=media_tail,
            media=media,
            coding=coding,
            head_bytes=int(digits) if is_number else None,
            # Without a media type, CloudEvents data is JSON (JSON format, section 3.1).
            is_json=essence in (b"", b"application/json", b"text/json")
            or essence.endswith(b"+json"),
        )
        # A head that is known is not looked through for an id again.
        has_own = any(key in lowered for key in (*ID_HEADERS, _TRACEPARENT))
        if not has_own and len(head) <= _MAX_REMEMBERED_HEAD_BYTES:
            remember(self.known, head, facts)
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
    try:
        return orjson.dumps(value.decode())
    except UnicodeDecodeError:
        return orjson.dumps(value.decode("latin-1"))


def text_of(value: bytes) -> str:
    """Return bytes of a head as text: UTF-8 where they are that."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _claims(head: bytes, lowered: bytes) -> Claims:
    found = [(name, header(head, lowered, b"\r\nce-%b:" % name.encode())) for name in _CLAIMS]
    return tuple((name, text_of(value)) for name, value in found if value)
