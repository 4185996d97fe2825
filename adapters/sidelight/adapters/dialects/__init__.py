"""Dialects: how payloads are written. A new one is a module and a line in ``DIALECTS``."""

from typing import Final

from sidelight.adapters.dialects._classification import read_payload
from sidelight.adapters.dialects._failures import FAILURE, Failures, failed
from sidelight.adapters.dialects._half import Dialect, Half, Layout, Side, Tensor, Undecodable
from sidelight.adapters.dialects._mlflow import DataFrames
from sidelight.adapters.dialects._opaque import opaque
from sidelight.adapters.dialects._seldon import SeldonCore
from sidelight.adapters.dialects._tf_examples import Examples
from sidelight.adapters.dialects._v1 import Version1
from sidelight.adapters.dialects._v2 import OpenInference

DIALECTS: Final[tuple[Dialect, ...]] = (
    OpenInference(),
    Version1(),
    SeldonCore(),
    DataFrames(),
    Examples(),
    Failures(),
)
"""Of JSON objects, in the order in which they are asked; the first that claims one decodes it."""

__all__ = [
    "DIALECTS",
    "FAILURE",
    "Dialect",
    "Half",
    "Layout",
    "Side",
    "Tensor",
    "Undecodable",
    "failed",
    "opaque",
    "read_payload",
]
