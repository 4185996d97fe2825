"""What an error of librdkafka means for the events."""

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from confluent_kafka import KafkaError

REFUSALS: Final = frozenset(("MSG_SIZE_TOO_LARGE", "RECORD_LIST_TOO_LARGE", "INVALID_RECORD"))
"""Codes that judge the records; all others pass, also wrong rights: those are set right."""

PURGED: Final = frozenset(("_PURGE_QUEUE", "_PURGE_INFLIGHT", "_FATAL"))
"""Codes of records that we took back; the reason is elsewhere."""

SPENT: Final = frozenset(("_FATAL", "_UNKNOWN_TOPIC", "UNKNOWN_TOPIC_OR_PART"))
"""Codes after which this producer fails everything at once, whatever changes at the broker."""

_REASONS: Final = {
    "_ALL_BROKERS_DOWN": "unreachable",
    "_AUTHENTICATION": "denied",
    "_MSG_TIMED_OUT": "timeout",
    "_RESOLVE": "unreachable",
    "_SSL": "tls",
    "_TIMED_OUT": "timeout",
    "_TIMED_OUT_QUEUE": "timeout",
    "_UNKNOWN_PARTITION": "unknown_topic",
    "_UNKNOWN_TOPIC": "unknown_topic",
    "CLUSTER_AUTHORIZATION_FAILED": "denied",
    "INVALID_RECORD": "invalid_record",
    "MSG_SIZE_TOO_LARGE": "too_large",
    "RECORD_LIST_TOO_LARGE": "too_large",
    "REQUEST_TIMED_OUT": "timeout",
    "SASL_AUTHENTICATION_FAILED": "denied",
    "TOPIC_AUTHORIZATION_FAILED": "denied",
    "UNKNOWN_TOPIC_OR_PART": "unknown_topic",
}


def reason_of(error: "KafkaError") -> str:
    """Return the failure as metrics name it: few words, of a bounded set."""
    name = error.name()
    if name in {"_TRANSPORT", "_FAIL"}:
        return "refused" if "refused" in error.str().lower() else "reset"
    # Codes of the broker and of the library: their names are a bounded set as well.
    return _REASONS.get(name) or name.strip("_").lower()
