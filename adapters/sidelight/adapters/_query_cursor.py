"""Cursors: where a page ended, for the same question only."""

import base64
import binascii
import hashlib
import json
from dataclasses import dataclass
from typing import Literal

from sidelight.adapters.errors import QueryError

Order = Literal["time", "-time"]

_EXPECTED = "the `next` of an answer to the same filters and order"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cursor:
    """The last inference of a page, in the order of the list.

    Parameters
    ----------
    time_us : int
        Its time, microseconds since 1970 UTC.
    id : str
        Its id, which decides between equal times.

    """

    time_us: int
    id: str

    def encode(self, question: str) -> str:
        """Return the opaque URL-safe text."""
        payload = json.dumps([self.time_us, self.id, question], separators=(",", ":"))
        return base64.urlsafe_b64encode(payload.encode()).decode().rstrip("=")

    @classmethod
    def decode(cls, text: str, question: str) -> "Cursor":
        """Read the text; raise ``QueryError`` for another question's or for none at all."""
        try:
            padded = text.encode("ascii") + b"=" * (-len(text) % 4)
            value = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
            # An id that is no Unicode text is none of ours, and no parameter of a query.
            json.dumps(value, ensure_ascii=False).encode()
        except (ValueError, binascii.Error, RecursionError):
            raise QueryError("cursor", expected=_EXPECTED, got=ascii(text[:40])) from None
        match value:
            case [int() as time_us, str() as last, str() as asked]:
                if asked == question:
                    return cls(time_us=time_us, id=last)
                raise QueryError("cursor", expected=_EXPECTED, got="one of other filters or order")
        raise QueryError("cursor", expected=_EXPECTED, got=ascii(text[:40]))


def digest(*filters: object) -> str:
    """Return what identifies a question."""
    return hashlib.sha256(json.dumps(filters).encode()).hexdigest()[:16]
