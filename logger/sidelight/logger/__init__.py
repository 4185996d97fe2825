"""Capture and collection: the proxy, the spool and the emitter; the door, the journals, pairing."""

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

__all__ = [
    "GZIP_MAGIC",
    "WAITING_PREFIX",
    "EventLimits",
    "EventReader",
    "Identity",
    "InflateError",
    "Outcome",
    "Pair",
    "Pairing",
    "Rejected",
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
