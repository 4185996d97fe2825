"""What becomes of one value: pseudonyms, buckets, rounded numbers, shortened texts."""

import base64
import binascii
import hmac
import math
import struct
from bisect import bisect_right
from collections.abc import Callable
from typing import Any, Final, Literal

from sidelight.logger._json_path import DROPPED
from sidelight.logger._json_values import write_json
from sidelight.logger._redaction_rule import RedactionRule

Spelling = Literal["hex", "base64url"]
Change = Callable[[Any], Any]

_B64: Final = frozenset({"b64"})
# Digits from which the shortest text of a float is looked for, up to those that always do.
_PRECISIONS: Final = {"FP32": ("<f", 6, 9), "FP16": ("<e", 3, 5), "BF16": ("", 2, 4)}
# Below these a float has fewer digits than otherwise.
_NORMAL: Final = {"FP32": 2.0**-126, "FP16": 2.0**-14, "BF16": 2.0**-126}
_EXACT: Final = 1 << 53
_SMALLEST_POWER: Final = 6
_LARGEST_POWER: Final = 21
_NOISE: Final = ".12g"


class Pseudonyms:
    """HMAC-SHA-256 of values, the same for equal values in whatever form they came.

    The bytes that are hashed: of a text its UTF-8; of bytes themselves; of a number its shortest
    decimal text as RFC 8785 writes it (whole numbers without a point, whatever their type; of
    floats of 32 bits the shortest text that gives the same float); ``true`` and ``false``; of an
    object its JSON with sorted keys, without blanks.

    Parameters
    ----------
    key : bytes
        Of the HMAC.
    spelling : {"hex", "base64url"}
        64 or 43 characters.

    Examples
    --------
    >>> pseudonyms = Pseudonyms(bytes(16))
    >>> pseudonyms.of(3) == pseudonyms.of(3.0) == pseudonyms.of("3") == pseudonyms.of(b"3")
    True

    """

    def __init__(self, key: bytes, spelling: Spelling = "hex") -> None:
        self._key = key
        self._is_hex = spelling == "hex"

    def of(self, value: Any, datatype: str = "") -> str:
        """Return the pseudonym of a value; ``datatype`` as in V2, where one is known."""
        return self.of_bytes(canonical(value, datatype))

    def of_bytes(self, value: bytes) -> str:
        """Return the pseudonym of bytes."""
        digest = hmac.digest(self._key, value, "sha256")
        if self._is_hex:
            return digest.hex()
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")


def canonical(value: Any, datatype: str = "") -> bytes:
    """Return the bytes that stand for a value; see ``Pseudonyms``."""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    if isinstance(value, bytes):
        return value
    if isinstance(value, (bool, type(None))):
        return b"null" if value is None else b"true" if value else b"false"
    if isinstance(value, (int, float)):
        return number_text(value, datatype).encode()
    if isinstance(value, dict) and value.keys() == _B64:
        try:
            return base64.b64decode(value["b64"], validate=True)
        except (ValueError, TypeError, binascii.Error):
            pass
    return write_json(_sorted(value), is_strict=False)


def number_text(value: float, datatype: str = "") -> str:
    """Return the shortest decimal text of a number (RFC 8785, section 3.2.2.3).

    Examples
    --------
    >>> number_text(1e21), number_text(1e-7), number_text(2.0), number_text(0.1)
    ('1e+21', '1e-7', '2', '0.1')

    """
    if isinstance(value, int):
        return str(value)
    if not math.isfinite(value):
        return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"  # noqa: PLR0124
    text = repr(_shortest(value, datatype) or 0.0)
    sign, text = ("-", text[1:]) if text.startswith("-") else ("", text)
    mantissa, e, exponent = text.partition("e")
    if not e:
        return sign + text.removesuffix(".0")
    power = int(exponent)
    digits = mantissa.replace(".", "")
    # Where ECMAScript begins to write exponents is not where Python does.
    if -_SMALLEST_POWER <= power < 0:
        return f"{sign}0.{'0' * (-power - 1)}{digits}"
    if 0 < power < _LARGEST_POWER:
        return sign + digits.ljust(power + 1, "0")
    return f"{sign}{mantissa}e{power:+d}"


def change_of(rule: RedactionRule, pseudonyms: Pseudonyms | None, datatype: str = "") -> Change:
    """Return what a rule makes of a value; lists keep their form, and objects are one value."""
    match rule.action:
        case "drop":
            return lambda _: DROPPED
        case "mask":
            text = rule.text
            change: Change = lambda _: text  # noqa: E731 - one of six
        case "hmac":
            if pseudonyms is None:
                raise ValueError("hmac: expected a key, got none")
            one = pseudonyms.of
            change = lambda value: None if value is None else one(value, datatype)  # noqa: E731
        case "bucket":
            change = _bucket(rule.edges)
        case "round":
            change = _rounding(rule)
        case "truncate":
            length = rule.length or 0
            change = lambda value: _truncated(value, length)  # noqa: E731
    return lambda value: each(value, change)


def as_text(value: Any, datatype: str = "") -> Any:
    """Return a number or a boolean as the text by which it is hashed, anything else as it is."""
    return canonical(value, datatype).decode() if isinstance(value, (bool, int, float)) else value


def each(value: Any, change: Change) -> Any:
    """Apply a change to the values of nested lists."""
    if isinstance(value, list):
        return [each(item, change) for item in value]
    return change(value)


def _bucket(edges: tuple[float, ...]) -> Change:
    def change(value: Any) -> Any:
        if not _is_number(value):
            return None
        edge = edges[max(bisect_right(edges, value) - 1, 0)]
        return int(edge) if edge == int(edge) else edge

    return change


def _rounding(rule: RedactionRule) -> Change:
    step, digits = rule.step, rule.digits

    def change(value: Any) -> Any:
        if not _is_number(value):
            return None
        try:
            return round(value, digits) if step is None else _multiple(value, step)
        except OverflowError:
            return None  # so large against the step that there is no such multiple

    return change


def _multiple(value: Any, step: float) -> float:
    rounded = round(value / step) * step
    if not isinstance(rounded, int):
        # 3 * 0.1 is not 0.3: what the multiplication leaves behind is no part of the answer.
        rounded = float(format(rounded, _NOISE))
    if abs(rounded) < _EXACT and rounded == int(rounded):
        return int(rounded)
    # What was a float stays one: no strict parser reads three hundred digits.
    return float(rounded) if isinstance(value, float) else rounded


def _truncated(value: Any, length: int) -> str | None:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return value[:length] if isinstance(value, str) else None


def _is_number(value: Any) -> bool:
    return type(value) is int or (type(value) is float and math.isfinite(value))


def _shortest(value: float, datatype: str) -> float:
    if datatype not in _PRECISIONS:
        return value
    form, first, last = _PRECISIONS[datatype]
    if datatype == "FP32" and len(repr(value)) <= first + 1 and abs(value) >= _NORMAL[datatype]:
        return value  # so few digits that there is no shorter text
    first = first if abs(value) >= _NORMAL[datatype] else 1
    for digits in range(first, last):
        shorter = float(f"{value:.{digits}g}")
        if _as_stored(shorter, form) == _as_stored(value, form):
            return shorter
    return float(f"{value:.{last}g}")


def _as_stored(value: float, form: str) -> bytes:
    try:
        # The upper half of 32 bits is what BF16 keeps of them; rounding is the same there.
        return struct.pack(form or "<f", value) if form else _brain(value)
    except OverflowError:
        return b""


def _brain(value: float) -> bytes:
    (word,) = struct.unpack("<I", struct.pack("<f", value))
    return struct.pack("<I", (word + 0x7FFF + ((word >> 16) & 1)) & 0xFFFF0000)


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    if isinstance(value, list):
        return [_sorted(item) for item in value]
    return value
