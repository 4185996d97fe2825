"""What flows between the parts: pure values, Arrow and NumPy only."""

from sidelight.payloads._batch import FEATURE_PREFIX, OUTPUT_PREFIX, ROW_SCHEMA, Batch
from sidelight.payloads._event import Event, EventKind, RawRef
from sidelight.payloads._explanation import Attribution, Cost, ExplainedRow, Explanation, Quality
from sidelight.payloads._inference import Inference, InferenceRow
from sidelight.payloads._inferring import infer_schema
from sidelight.payloads._schema import KINDS, ROLES, Column, Kind, Role, Schema
from sidelight.payloads._verdict import Alarm, FeatureShare, Verdict
from sidelight.payloads.errors import BatchError, PayloadError, SchemaError

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
