"""Which dialect a body is written in: KServe tells no path, so the body itself must say."""

import json
from collections.abc import Sequence
from typing import Any, Final

import orjson

from sidelight.adapters.dialects._half import Dialect, Half, Side, Undecodable
from sidelight.adapters.dialects._opaque import opaque
from sidelight.logger import GZIP_MAGIC, InflateError, inflate

_JSON_STARTS: Final = (b"{", b"[")
_WHITE: Final = b" \t\r\n"


def read_payload(
    data: bytes,
    side: Side,
    dialects: Sequence[Dialect],
    *,
    coding: str = "",
    max_inflated_bytes: int = 64 << 20,
) -> Half:
    """Return what a body says; what cannot be read comes back opaque with a reason.

    Parameters
    ----------
    data : bytes
        The payload as it came; gzip is known by its magic bytes, whatever headers say.
    side : "request" or "response"
        Which half it is.
    dialects : sequence of Dialect
        Asked in order.
    coding : str, default ""
        Content-Encoding of the payload, where the sender says so; ``deflate`` has no magic bytes.
    max_inflated_bytes : int, default 64 MiB
        A compressed body that is larger inside stays as it came.

    """
    if not data:
        return opaque(b"")
    if data[:2] == GZIP_MAGIC:
        coding = "gzip"
    if coding and data[:1] not in _JSON_STARTS:
        try:
            data = inflate(data, coding, max_bytes=max_inflated_bytes)
        except InflateError as error:
            return opaque(data, f"encoding_{error.reason}")
    form = "text"
    try:
        body = _parsed(data)
        form = "json"
        return _decoded(body, side, dialects)
    except Undecodable as error:
        return opaque(data, error.reason, form=form)


def _decoded(body: Any, side: Side, dialects: Sequence[Dialect]) -> Half:
    if type(body) is dict:
        for dialect in dialects:
            if dialect.claims(body, side):
                return dialect.decode(body, side)
    raise Undecodable("unknown_json")


def _parsed(data: bytes) -> Any:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        pass
    if not data.lstrip(_WHITE).startswith(_JSON_STARTS):
        raise Undecodable("not_json")
    try:
        # NaN, Infinity and numbers beyond a double are legal for V1's servers.
        return json.loads(data)
    except RecursionError:
        raise Undecodable("too_deep") from None
    except ValueError:
        raise Undecodable("not_json") from None
