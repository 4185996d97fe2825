"""Capture and collection: the proxy, the spool and the emitter; the door, the journals, pairing."""

from typing import TYPE_CHECKING, Any

from sidelight.logger._accounting import DROP_REASONS, Accounting, Accounts, AddedTime
from sidelight.logger._accounting_text import capture_metrics
from sidelight.logger._arrival import Arrival, Sender
from sidelight.logger._asgi import CaptureMiddleware
from sidelight.logger._checkpoint import LogHead
from sidelight.logger._connection import Connection
from sidelight.logger._connections import Connections, Limits
from sidelight.logger._door import DoorLimits
from sidelight.logger._door_gate import Gate
from sidelight.logger._door_server import DoorServer, serve_door
from sidelight.logger._emitter import Emitter
from sidelight.logger._emitter_capture import Capture
from sidelight.logger._emitter_event import CapturedEvent
from sidelight.logger._emitter_thread import ThreadedEmitter
from sidelight.logger._envelope import parse, scan
from sidelight.logger._envelope_feedback import feedback
from sidelight.logger._envelope_inflate import GZIP_MAGIC, InflateError, gunzip, inflate
from sidelight.logger._envelope_kafka import ConsumedRecord, record_request
from sidelight.logger._envelope_member import EventLimits, Rejected
from sidelight.logger._exchange import Exchange, Tap
from sidelight.logger._http import Request, Respond, Service, problem, response
from sidelight.logger._identity import (
    Identity,
    deployment_name,
    identity,
    identity_digest,
    inference_id,
    is_known_type,
    kind_of,
)
from sidelight.logger._journal import (
    BatchRecord,
    Commit,
    Document,
    Documents,
    EventRecord,
    JournalName,
    Journals,
    Slice,
)
from sidelight.logger._outlet import EmitterLimits, Outlet, Overflow, SpoolFolder
from sidelight.logger._pairing import WAITING_PREFIX, Pairing
from sidelight.logger._pairing_outcome import Meeting, Outcome, Pair
from sidelight.logger._pairing_reader import EventReader
from sidelight.logger._pairing_upgrade import move_old_identities
from sidelight.logger._redaction import Redaction
from sidelight.logger._redaction_rule import RedactionRule
from sidelight.logger._sampling import KeptHeader, Sampling, SamplingRule
from sidelight.logger._segments_signature import Signer, read_public_key
from sidelight.logger._selection import Selection
from sidelight.logger._sink import Delivery, Sink
from sidelight.logger._sink_http import HttpSink, SinkMode
from sidelight.logger._spool import Spool
from sidelight.logger._step_memory import StepTooLarge, spend, step_memory
from sidelight.logger._upstream import Upstream
from sidelight.logger._verify import VerifyReport, verify
from sidelight.logger._wsgi import CaptureWsgiMiddleware

if TYPE_CHECKING:
    from sidelight.logger._decorator import captured

__all__ = [
    "DROP_REASONS",
    "GZIP_MAGIC",
    "WAITING_PREFIX",
    "Accounting",
    "Accounts",
    "AddedTime",
    "Arrival",
    "BatchRecord",
    "Capture",
    "CaptureMiddleware",
    "CaptureWsgiMiddleware",
    "CapturedEvent",
    "Commit",
    "Connection",
    "Connections",
    "ConsumedRecord",
    "Delivery",
    "Document",
    "Documents",
    "DoorLimits",
    "DoorServer",
    "Emitter",
    "EmitterLimits",
    "EventLimits",
    "EventReader",
    "EventRecord",
    "Exchange",
    "Gate",
    "HttpSink",
    "Identity",
    "InflateError",
    "JournalName",
    "Journals",
    "KeptHeader",
    "Limits",
    "LogHead",
    "Meeting",
    "Outcome",
    "Outlet",
    "Overflow",
    "Pair",
    "Pairing",
    "Redaction",
    "RedactionRule",
    "Rejected",
    "Request",
    "Respond",
    "Sampling",
    "SamplingRule",
    "Selection",
    "Sender",
    "Service",
    "Signer",
    "Sink",
    "SinkMode",
    "Slice",
    "Spool",
    "SpoolFolder",
    "StepTooLarge",
    "Tap",
    "ThreadedEmitter",
    "Upstream",
    "VerifyReport",
    "capture_metrics",
    "captured",
    "deployment_name",
    "feedback",
    "gunzip",
    "identity",
    "identity_digest",
    "inference_id",
    "inflate",
    "is_known_type",
    "kind_of",
    "move_old_identities",
    "parse",
    "problem",
    "read_public_key",
    "record_request",
    "response",
    "scan",
    "serve_door",
    "spend",
    "step_memory",
    "verify",
]


def __getattr__(name: str) -> Any:
    # It needs NumPy, which the proxy beside each model has no use for.
    if name != "captured":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from sidelight.logger._decorator import captured  # noqa: PLC0415 - that is the point

    globals()[name] = captured
    return captured
