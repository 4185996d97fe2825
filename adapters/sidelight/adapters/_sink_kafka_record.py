"""A captured event as a Kafka record (CloudEvents Kafka protocol binding 1.0.2)."""

from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple

import orjson

from sidelight.logger import CapturedEvent, deployment_name

KafkaMode = Literal["binary", "structured"]
KafkaKey = Literal["deployment", "request"]

_ENVELOPE: Final = "application/cloudevents"
_STRUCTURED: Final[list[tuple[str, str | bytes | None]]] = [
    ("content-type", "application/cloudevents+json; charset=UTF-8")
]


class KafkaRecord(NamedTuple):
    """What is produced for one event.

    Parameters
    ----------
    key, value : bytes
        The value is never null: compaction and several connectors take null for a deletion.
    headers : list of (name, value)
        Values are encoded as UTF-8.

    """

    key: bytes
    value: bytes
    headers: list[tuple[str, str | bytes | None]]


def record_of(event: CapturedEvent, *, mode: KafkaMode, key: KafkaKey) -> KafkaRecord:
    """Return the record of an event.

    Examples
    --------
    >>> event = CapturedEvent(b'{"id":"1","namespace":"prod","inferenceservicename":"f"', b"[1]")
    >>> record = record_of(event, mode="binary", key="deployment")
    >>> record.key, record.value, record.headers[0]
    (b'prod/f', b'[1]', ('ce_id', '1'))

    """
    attributes = orjson.loads(event.attributes + b"}")
    chosen = _KEYS[key](attributes).encode()
    media = attributes.get("datacontenttype", "")
    # 3: by this media type receivers know the structured mode, whatever the headers are.
    if mode == "structured" or media.lower().startswith(_ENVELOPE):
        return KafkaRecord(key=chosen, value=event.member(), headers=_STRUCTURED)
    # 3.2.3: the data content type has the header of its own name, every other attribute its
    # prefix; values are UTF-8 as they are, without the percent-encoding of HTTP.
    headers: list[tuple[str, str | bytes | None]] = [
        ("content-type" if name == "datacontenttype" else "ce_" + name, value)
        for name, value in attributes.items()
    ]
    return KafkaRecord(key=chosen, value=event.data, headers=headers)


def _deployment(attributes: Mapping[str, Any]) -> str:
    name = attributes.get("inferenceservicename") or attributes.get("modelname") or "unknown"
    return deployment_name(attributes.get("namespace") or "default", name)


def _request(attributes: Mapping[str, Any]) -> str:
    return str(attributes.get("id", ""))


_KEYS: Final = {"deployment": _deployment, "request": _request}
