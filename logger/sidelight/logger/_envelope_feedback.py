"""Labels that arrive as events: what became true later, in the form of the API."""

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final

from sidelight.logger._envelope_member import Rejected
from sidelight.logger._identity import FEEDBACK_TYPE, identity
from sidelight.payloads import Event

MAX_ROW: Final = (1 << 31) - 1
"""No inference has a row beyond it."""

_NANOSECONDS: Final = 1_000_000_000


def feedback(event: Event) -> tuple[list[dict[str, Any]], list[Rejected]]:
    """Return the labels of a feedback event, and what of it is none.

    Each is ``{"deployment", "request_id", "row", "labels", "time"}``. What an item leaves out comes
    from the event: the deployment from its names, the request id from ``requestid``, the time
    from its ``time``, else its receive time; ``row`` is 0. Feedback of other types is not read.

    Examples
    --------
    >>> event = Event(
    ...     id="1", source="/s", type="io.sidelight.feedback",
    ...     data=b'{"deployment": "prod/m", "request_id": "r1", "labels": {"late": true}}',
    ... )
    >>> feedback(event)[0][0]["labels"]
    {'late': True}

    """
    if event.type != FEEDBACK_TYPE:
        return [], [_rejected(event, "type", FEEDBACK_TYPE, event.type[:80])]
    try:
        value = json.loads(event.data)
    except (ValueError, RecursionError):
        return [], [_rejected(event, "data", "JSON", f"{len(event.data)} other bytes")]
    items: Iterable[Any] = value if isinstance(value, list) else [value]
    labels: list[dict[str, Any]] = []
    rejected: list[Rejected] = []
    for item in items:
        read = _label(event, item)
        if isinstance(read, Rejected):
            rejected.append(read)
        else:
            labels.append(read)
    return labels, rejected


def _label(event: Event, item: object) -> dict[str, Any] | Rejected:
    if not isinstance(item, dict):
        return _rejected(event, "label", "an object", type(item).__name__)
    request_id = item.get("request_id", event.extensions.get("requestid"))
    if not isinstance(request_id, str) or not request_id:
        return _rejected(event, "request_id", "a string", type(request_id).__name__)
    labels = item.get("labels")
    if not isinstance(labels, dict) or not labels:
        return _rejected(event, "labels", "an object with a label", type(labels).__name__)
    row = item.get("row", 0)
    if not isinstance(row, int) or isinstance(row, bool) or not 0 <= row <= MAX_ROW:
        return _rejected(event, "row", f"a number from 0 to {MAX_ROW}", type(row).__name__)
    deployment = item.get("deployment") or identity(event).deployment
    if not isinstance(deployment, str):
        return _rejected(event, "deployment", "namespace/name", type(deployment).__name__)
    time = item.get("time") or event.time or _received(event)
    return {
        "deployment": deployment,
        "request_id": request_id,
        "row": row,
        "labels": labels,
        "time": str(time),
    }


def _received(event: Event) -> str:
    moment = datetime.fromtimestamp(event.received_ns / _NANOSECONDS, UTC)
    return moment.isoformat().replace("+00:00", "Z")


def _rejected(event: Event, reason: str, expected: str, got: str) -> Rejected:
    return Rejected(ref=event.ref, index=event.ref.index, reason=reason, expected=expected, got=got)
