"""Labels that arrive as feedback: in the form of the API, or as Seldon's."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, Final

from sidelight.adapters._decoding_columns import CONVERSION_ERRORS, arrays, column_names
from sidelight.adapters.dialects import Half, Undecodable
from sidelight.adapters.dialects._encodings import coding_of, inflated
from sidelight.adapters.dialects._lenient_json import lenient_json
from sidelight.adapters.dialects._seldon import seldon_message
from sidelight.adapters.dialects._seldon_grpc import feedback_body
from sidelight.logger import Rejected, feedback, identity
from sidelight.payloads import Event, Schema

_SELDON_TYPE: Final = "io.seldon.serving.feedback"
_REWARD: Final = "reward"
_JSON_STARTS: Final = (b"{", b"[")
_NANOSECONDS: Final = 1_000_000_000

Labels = list[dict[str, Any]]


def labels(
    event: Event,
    schema: Callable[[str], Schema | None] | None = None,
    *,
    max_inflated_bytes: int = 64 << 20,
) -> tuple[Labels, list[Rejected]]:
    """Return the labels of a feedback event, and what of it is none.

    Each is ``{"deployment", "request_id", "row", "labels", "time"}``. Seldon's ``truth`` has a row
    for each of its request, named by itself, else by the label columns of the schema, else as
    outputs are: ``y``, or ``y0, y1, ...``; its ``reward`` is a label of row 0.

    Parameters
    ----------
    event : Event
        Of our own feedback type or of Seldon's.
    schema : callable of str to Schema or None, optional
        Returns what is registered for a deployment.
    max_inflated_bytes : int, default 64 MiB
        Bound of a compressed body.

    """
    if event.type != _SELDON_TYPE:
        return feedback(event)
    key = identity(event)
    registered = schema(key.deployment) if schema else None
    try:
        body = _body(event.data, max_inflated_bytes)
        rows = list(_truth(body.get("truth"), registered))
    except (Undecodable, *CONVERSION_ERRORS, RecursionError):
        return [], [_rejected(event, "a Feedback with truth or reward", "something else")]
    reward = body.get(_REWARD)
    if isinstance(reward, int | float) and not isinstance(reward, bool):
        rows = rows or [{}]
        rows[0] = {_REWARD: reward, **rows[0]}
    time = event.time or datetime.fromtimestamp(event.received_ns / _NANOSECONDS, UTC).isoformat()
    found = [
        {
            "deployment": key.deployment,
            "request_id": key.request_id,
            "row": number,
            "labels": row,
            "time": time.replace("+00:00", "Z"),
        }
        for number, row in enumerate(rows)
        if row
    ]
    if not found:
        return [], [_rejected(event, "truth or reward", "neither")]
    return found, []


def _body(data: bytes, max_bytes: int) -> dict[str, Any]:
    if data[:1] not in _JSON_STARTS and (coding := coding_of(data, "")):
        data = inflated(data, coding, max_bytes=max_bytes)
    if data[:1] not in _JSON_STARTS:
        return feedback_body(data)
    body = lenient_json(data)
    if type(body) is not dict:
        raise Undecodable("shape")
    return body


def _truth(truth: Any, schema: Schema | None) -> Iterator[dict[str, Any]]:
    if not truth:
        return
    if type(truth) is not dict:
        raise Undecodable("shape")
    half = seldon_message(truth)
    names = column_names(half.layout, "y", _label_names(schema))
    columns = [column.to_pylist() for column in _columns(half)]
    for row in zip(*columns, strict=True):
        yield {name: value for name, value in zip(names, row, strict=True) if value is not None}


def _columns(half: Half) -> Iterator[Any]:
    for tensor, values in zip(half.layout.tensors, half.values, strict=True):
        yield from arrays(tensor, [values])


def _label_names(schema: Schema | None) -> tuple[str, ...]:
    if schema is None:
        return ()
    return tuple(column.name for column in schema.columns if column.role == "label")


def _rejected(event: Event, expected: str, got: str) -> Rejected:
    return Rejected(
        ref=event.ref, index=event.ref.index, reason="feedback", expected=expected, got=got
    )
