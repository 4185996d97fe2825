"""Capture and collection: the proxy, the spool and the emitter; the door, the journals, pairing."""

from sidelight.logger._accounting import DROP_REASONS, Accounting, Accounts
from sidelight.logger._emitter import Emitter, EmitterLimits
from sidelight.logger._emitter_capture import Capture
from sidelight.logger._emitter_event import CapturedEvent
from sidelight.logger._envelope import parse
from sidelight.logger._envelope_feedback import feedback
from sidelight.logger._envelope_inflate import GZIP_MAGIC, InflateError, gunzip, inflate
from sidelight.logger._envelope_member import EventLimits, Rejected
from sidelight.logger._identity import (
    Identity,
    deployment_name,
    identity,
    identity_digest,
    inference_id,
    is_known_type,
    kind_of,
)
from sidelight.logger._pairing import WAITING_PREFIX, Outcome, Pair, Pairing
from sidelight.logger._pairing_reader import EventReader
from sidelight.logger._sink import Delivery, Sink
from sidelight.logger._sink_http import HttpSink, SinkMode
from sidelight.logger._spool import Spool

__all__ = [
    "DROP_REASONS",
    "GZIP_MAGIC",
    "WAITING_PREFIX",
    "Accounting",
    "Accounts",
    "Capture",
    "CapturedEvent",
    "Delivery",
    "Emitter",
    "EmitterLimits",
    "EventLimits",
    "EventReader",
    "HttpSink",
    "Identity",
    "InflateError",
    "Outcome",
    "Pair",
    "Pairing",
    "Rejected",
    "Sink",
    "SinkMode",
    "Spool",
    "deployment_name",
    "feedback",
    "gunzip",
    "identity",
    "identity_digest",
    "inference_id",
    "inflate",
    "is_known_type",
    "kind_of",
    "parse",
]
