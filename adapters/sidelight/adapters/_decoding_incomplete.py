"""Halves of which the sender says that they are not all that was asked, or no answer."""

from typing import Final

from sidelight.adapters.dialects import Half, Side, failed, opaque
from sidelight.logger._identity import CORE2_PREFIX
from sidelight.payloads import Event

_ERROR_TYPE: Final = CORE2_PREFIX + "error"
_WITHHELD: Final = "withheld"
_FIRST_ERROR: Final = 400
_FALSE: Final = ("", "false", "0")


def incomplete(event: Event, side: Side) -> Half | None:
    """Return what stands for a half that must not be decoded; None when it may be.

    A beginning is opaque even where it could be read: CSV that was cut has fewer rows, and no
    detector may see them as all there were. What a caller asked is whole, whoever hung up later.
    """
    extensions = event.extensions
    if "redacted" in extensions and extensions["redacted"] == _WITHHELD:
        return opaque(event.data, _WITHHELD)
    if "truncated" in extensions and extensions["truncated"].lower() not in _FALSE:
        return opaque(event.data, "truncated")
    if side == "response":
        if extensions.get("abortedby"):
            return opaque(event.data, "aborted")
        if event.type == _ERROR_TYPE:
            return failed(event.data.decode(errors="replace"))
    return None


def refused(event: Event, half: Half) -> Half:
    """Return an answer that nobody could read and whose status is an error as a failure.

    The page of a gateway is no prediction; where the model says in its own protocol what went
    wrong, that stays.
    """
    status = event.extensions.get("statuscode", "")
    if half.layout.protocol != "opaque" or not (status.isascii() and status.isdigit()):
        return half
    if int(status[:9]) < _FIRST_ERROR:
        return half
    said = half.values[0][0] if half.values else None
    return failed(said or f"status {status}")
