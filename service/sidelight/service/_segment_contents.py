"""Whose events a sealed segment holds."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentContents:
    """Whose events a segment holds.

    Parameters
    ----------
    spans : mapping of str to (int, int)
        By deployment the first and the last time that its events name or were received at,
        microseconds since 1970 UTC, both included.
    is_sound : bool
        Whether its bytes are what the checkpoint says.
    has_unknown : bool
        Whether there is something in it that cannot be told whose it is.

    """

    spans: Mapping[str, tuple[int, int]]
    is_sound: bool
    has_unknown: bool

    def to_json(self) -> dict[str, Any]:
        """Return its form as a document."""
        spans = {name: list(span) for name, span in self.spans.items()}
        return {"spans": spans, "is_sound": self.is_sound, "has_unknown": self.has_unknown}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "SegmentContents":
        """Read what ``to_json`` returned."""
        spans = {name: (first, last) for name, (first, last) in value["spans"].items()}
        return cls(spans=spans, is_sound=value["is_sound"], has_unknown=value["has_unknown"])
