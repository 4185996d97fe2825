"""An inference whose payloads were read."""

from collections.abc import Sequence
from typing import Final, NamedTuple

from sidelight.adapters._decoding_columns import Values
from sidelight.adapters.dialects import FAILURE, Half, Layout
from sidelight.logger import Pair

Layouts = tuple[Layout | None, Layout | None]
"""Of the request and of the response; None for a half that is missing."""

_ROWLESS: Final = frozenset({"opaque", FAILURE})


class Decoded(NamedTuple):
    """An inference whose payloads were read; at least one half is there."""

    pair: Pair
    request: Half | None
    response: Half | None

    @property
    def deployment(self) -> str:
        """``namespace/name``."""
        return self.pair.key.deployment

    @property
    def layouts(self) -> Layouts:
        """How its payloads are laid out."""
        request, response = self.request, self.response
        return request and request.layout, response and response.layout

    @property
    def rows(self) -> int:
        """Rows of the request; of the response where only that one knows of rows."""
        request, response = self.request, self.response
        if request is None or (request.layout.protocol == "opaque" and response is not None):
            return response.rows if response else 1
        return request.rows

    @property
    def row_counts(self) -> tuple[int, int]:
        """Rows of the request and of the response, 0 for one that is missing."""
        request, response = self.request, self.response
        return request.rows if request else 0, response.rows if response else 0

    @property
    def values(self) -> tuple[Sequence[Values], Sequence[Values]]:
        """Of the request and of the response, for each tensor."""
        request, response = self.request, self.response
        return request.values if request else (), response.values if response else ()

    @property
    def protocol(self) -> str:
        """Of the request; of the response where it is alone."""
        half = self.request or self.response
        return half.layout.protocol if half else "opaque"

    @property
    def is_mismatched(self) -> bool:
        """Whether both halves know of rows and disagree."""
        request, response = self.request, self.response
        if request is None or response is None or request.rows == response.rows:
            return False
        return _ROWLESS.isdisjoint((request.layout.protocol, response.layout.protocol))
