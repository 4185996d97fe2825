"""What librdkafka is told: the user's settings, and those that the sink's promise stands on."""

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from sidelight.adapters.errors import MissingExtraError, SinkError

if TYPE_CHECKING:
    from confluent_kafka import KafkaError, Producer

log = logging.getLogger(__name__)

# Acknowledged by every replica in sync, in order, and once as long as this process lives. The
# sink has its own timeout and takes back everything at once when it is over: a timeout of
# single records would let later ones of the same partition overtake them.
_FIXED: Final[Mapping[str, Any]] = {
    "enable.idempotence": True,
    "acks": "all",
    "message.timeout.ms": 0,
}
# Two names for one setting, what has a parameter of its own, and what would break the promise.
_NOT_TAKEN: Final = frozenset(
    (
        "bootstrap.servers",
        "metadata.broker.list",
        "request.required.acks",
        "delivery.timeout.ms",
        "enable.gapless.guarantee",
        "transactional.id",
        "default.topic.config",
        "error_cb",
        "logger",
        "on_delivery",
        "dr_cb",
    )
)
_DEFAULTS: Final[Mapping[str, Any]] = {
    "client.id": "sidelight",
    "compression.type": "lz4",
    # The partition of a key as every Java client computes it.
    "partitioner": "murmur2_random",
    # A broker that is back is found within the emitter's longest back-off.
    "reconnect.backoff.max.ms": 2000,
    "topic.metadata.propagation.max.ms": 5000,
    "socket.keepalive.enable": True,
    # Each attempt to connect would be an error in the log; the sink says what changes.
    "log_level": 2,
}
_SECRETS: Final = ("password", "secret", "oauthbearer", "key.pem", "jaas", "token", "username")


def connect(
    servers: str, settings: Mapping[str, Any], on_error: Callable[["KafkaError"], None]
) -> "Producer":
    """Return a producer; connections are made by its own threads, later.

    Raises
    ------
    MissingExtraError
        When ``confluent-kafka`` is not installed.
    SinkError
        When a setting cannot be used; says which, never the value of a secret one.

    """
    try:
        from confluent_kafka import KafkaException, Producer  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise MissingExtraError("the Kafka sink", package="confluent-kafka", extra="kafka") from (
            error
        )
    for name, value in settings.items():
        if name in _NOT_TAKEN or _FIXED.get(name, value) != value:
            raise SinkError(
                f"kafka setting {name}: expected one that the sink does not make itself, got "
                f"{name}; leave it away"
            )
    told = {**_DEFAULTS, **settings, **_FIXED, "bootstrap.servers": servers}
    try:
        return Producer({**told, "error_cb": on_error, "logger": log})
    except (KafkaException, TypeError, ValueError) as error:
        raise SinkError(
            "kafka settings: expected what librdkafka documents in CONFIGURATION.md, got "
            f"{_without_secrets(str(error), settings)}"
        ) from None


def _without_secrets(text: str, settings: Mapping[str, Any]) -> str:
    """Return an error's text, unless it may quote the value of a secret setting."""
    secret = [name for name in settings if any(word in name for word in _SECRETS)]
    if any(name in text for name in secret) or any(str(settings[name]) in text for name in secret):
        return f"an error at {', '.join(sorted(secret))}"
    return text
