"""Halves of which the sender says that they are not all that was asked or answered."""

from typing import Final

from sidelight.adapters.dialects import Half, Side, failed, opaque
from sidelight.logger._identity import CORE2_PREFIX
from sidelight.payloads import Event

_ERROR_TYPE: Final = CORE2_PREFIX + "error"
_WITHHELD: Final = "withheld"
_FALSE: Final = ("", "false", "0")


def incomplete(event: Event, side: Side) -> Half | None:
    """Return what stands for a half that must not be decoded; None when it may be.

    A beginning is opaque even where it could be read: CSV that was cut has fewer rows, and no
    detector may see them as all there were. What a caller asked is whole, whoever hung up later.
    """
    extensions = event.extensions
    if "truncated" in extensions and extensions["truncated"].lower() not in _FALSE:
        return opaque(event.data, "truncated")
    if "redacted" in extensions and extensions["redacted"] == _WITHHELD:
        return opaque(event.data, _WITHHELD)
    if side == "response":
        if extensions.get("abortedby"):
            return opaque(event.data, "aborted")
        if event.type == _ERROR_TYPE:
            return failed(event.data.decode(errors="replace"))
    return None
