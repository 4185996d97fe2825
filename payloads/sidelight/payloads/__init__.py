"""What flows between the parts: pure values, Arrow and NumPy only."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sidelight.payloads._event import Event, EventKind, RawRef
from sidelight.payloads._explanation import Attribution, Cost, ExplainedRow, Explanation, Quality
from sidelight.payloads._inference import Inference, InferenceRow
from sidelight.payloads._schema import KINDS, ROLES, Column, Kind, Role, Schema
from sidelight.payloads._verdict import Alarm, FeatureShare, Verdict
from sidelight.payloads.errors import BatchError, PayloadError, SchemaError

if TYPE_CHECKING:
    from sidelight.payloads._batch import FEATURE_PREFIX, OUTPUT_PREFIX, ROW_SCHEMA, Batch
    from sidelight.payloads._inferring import infer_schema

__all__ = [
    "FEATURE_PREFIX",
    "KINDS",
    "OUTPUT_PREFIX",
    "ROLES",
    "ROW_SCHEMA",
    "Alarm",
    "Attribution",
    "Batch",
    "BatchError",
    "Column",
    "Cost",
    "Event",
    "EventKind",
    "ExplainedRow",
    "Explanation",
    "FeatureShare",
    "Inference",
    "InferenceRow",
    "Kind",
    "PayloadError",
    "Quality",
    "RawRef",
    "Role",
    "Schema",
    "SchemaError",
    "Verdict",
    "infer_schema",
]

# Arrow takes 40 MiB, which the proxy beside each model has no use for.
_WITH_ARROW = {
    "FEATURE_PREFIX": "_batch",
    "OUTPUT_PREFIX": "_batch",
    "ROW_SCHEMA": "_batch",
    "Batch": "_batch",
    "infer_schema": "_inferring",
}


def __getattr__(name: str) -> Any:
    if name not in _WITH_ARROW:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_WITH_ARROW[name]}"), name)
    globals()[name] = value
    return value
