"""Answers of other detectors, as alibi-detect's server sends them: kept as they are."""

import re
from typing import Any, Final

import orjson

from sidelight.logger import identity
from sidelight.payloads import Event

_TYPE: Final = re.compile(r"(?:io\.seldon|org\.kubeflow)\.serving\.inference\.(outlier|drift)")


def detector_reply(event: Event) -> dict[str, Any] | None:
    """Return what another detector said of an inference; None when the event is no such.

    Returns
    -------
    dict or None
        ``kind`` ("outlier" or "drift"), ``deployment``, ``component``, ``endpoint``,
        ``request_id``, ``time``, ``source``, ``rows`` (as far as it speaks of rows), and ``data``
        and ``meta`` of its body; ``data`` is None when the body is no JSON object.

    """
    found = _TYPE.fullmatch(event.type)
    if found is None:
        return None
    key = identity(event)
    body = _object(event.data)
    data = body.get("data")
    flags = data.get("is_outlier") if isinstance(data, dict) else None
    return {
        "kind": found[1],
        "deployment": key.deployment,
        "component": key.component,
        "endpoint": key.endpoint,
        "request_id": key.request_id,
        "time": event.time,
        "source": event.source,
        "rows": len(flags) if isinstance(flags, list) else None,
        "data": data,
        "meta": body.get("meta"),
    }


def _object(data: bytes) -> dict[str, Any]:
    try:
        body = orjson.loads(data)
    except orjson.JSONDecodeError:
        return {}
    return body if isinstance(body, dict) else {}
