"""Dialects: how payloads are written. A new one is a module and a line in ``DIALECTS``."""

from typing import Final

from sidelight.adapters.dialects._classification import read_payload
from sidelight.adapters.dialects._half import Dialect, Half, Layout, Side, Tensor, Undecodable
from sidelight.adapters.dialects._opaque import opaque
from sidelight.adapters.dialects._v1 import Version1
from sidelight.adapters.dialects._v2 import OpenInference

DIALECTS: Final[tuple[Dialect, ...]] = (
    OpenInference(),
    Version1(),
)
"""In the order in which they are asked; the first that claims a body decodes it."""

__all__ = [
    "DIALECTS",
    "Dialect",
    "Half",
    "Layout",
    "Side",
    "Tensor",
    "Undecodable",
    "opaque",
    "read_payload",
]
