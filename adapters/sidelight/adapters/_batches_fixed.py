"""The columns that every batch has: who was asked, when, and what became of it."""

from collections.abc import Sequence
from functools import lru_cache
from itertools import chain
from typing import Any, Final

import numpy as np
import pyarrow as pa

from sidelight.adapters._decoded import Decoded
from sidelight.adapters._decoding_facts import facts_of, times
from sidelight.adapters._decoding_tags import written
from sidelight.adapters._known_inferences import Known
from sidelight.adapters._known_plan import Place, Plan
from sidelight.logger import Arrival
from sidelight.payloads import ROW_SCHEMA

Columns = dict[str, pa.Array]

_TYPES: Final = {field.name: field.type for field in ROW_SCHEMA if field.name != "row"}
_ID_CHARS: Final = 32
_SHARED: Final = 256


def fixed_columns(items: Sequence[Decoded | Known]) -> Columns:
    """Return one value for each inference; those of known senders are made together."""
    decoded: list[Decoded] = []
    known: dict[Plan, list[Known]] = {}
    places: dict[Plan | None, list[int]] = {None: []}
    for place, item in enumerate(items):
        if isinstance(item, Known):
            known.setdefault(item.plan, []).append(item)
            places.setdefault(item.plan, []).append(place)
        else:
            decoded.append(item)
            places[None].append(place)
    parts = [_of_decoded(decoded)] if decoded else []
    parts += [_of_known(plan, of_plan) for plan, of_plan in known.items()]
    if len(parts) == 1:
        return parts[0]
    order = np.empty(len(items), dtype=np.int64)
    order[list(chain.from_iterable(places.values()))] = np.arange(len(items))
    indices = pa.array(order)
    return {name: pa.concat_arrays([part[name] for part in parts]).take(indices) for name in _TYPES}


def _of_decoded(items: Sequence[Decoded]) -> Columns:
    facts = [facts_of(item.pair, item.request, item.response) for item in items]
    for item, fact in zip(items, facts, strict=True):
        if item.is_mismatched:
            fact.tags["rows_mismatch"] = [half.rows for half in item[1:] if half]
    pairs = [item.pair for item in items]
    is_answered = any(fact.answered for fact in facts)
    time, spent = times(
        [fact.time for fact in facts],
        # Without the one time the other tells nothing.
        [fact.time and fact.answered for fact in facts] if is_answered else None,
        [fact.received_ns for fact in facts],
    )
    columns: dict[str, Any] = {
        "id": [pair.id for pair in pairs],
        "revision": [pair.revision for pair in pairs],
        "request_id": [pair.key.request_id for pair in pairs],
        "time": time,
        "version": [fact.version for fact in facts],
        "component": [pair.key.component or None for pair in pairs],
        "endpoint": [pair.key.endpoint or None for pair in pairs],
        "latency_ms": [fact.latency_ms for fact in facts],
        "status": [fact.status for fact in facts],
        "protocol": [item.protocol for item in items],
        "orphan": [pair.orphan for pair in pairs],
        "synthetic": [fact.is_synthetic for fact in facts],
        "tags": [written(fact.tags) if fact.tags else None for fact in facts],
        "request_ref": [fact.request_ref for fact in facts],
        "response_ref": [fact.response_ref for fact in facts],
    }
    if spent is not None:
        stated = columns["latency_ms"]
        for place in np.flatnonzero(np.isfinite(spent)):
            stated[place] = float(spent[place])
    return {name: pa.array(columns[name], type=kind) for name, kind in _TYPES.items()}


def _of_known(plan: Plan, items: Sequence[Known]) -> Columns:
    n = len(items)
    asked = [item.meeting.asked for item in items]
    answered = [item.meeting.answered for item in items]
    time, spent = times(
        [None] * n if plan.time is None else _values(items, plan.time),
        None if plan.answered is None else _values(items, plan.answered),
        [arrival.received_ns for arrival in asked],
    )
    columns: dict[str, Any] = {
        "id": _ids(asked),
        "revision": 0,
        "request_id": [arrival.request_id for arrival in asked],
        "time": time,
        "version": plan.version,
        "component": plan.key.component or None,
        "endpoint": plan.key.endpoint or None,
        "latency_ms": [item.latency_ms for item in items] if plan.latency else _or_null(spent),
        "status": plan.status,
        "protocol": plan.layouts[0].protocol,
        "orphan": None,
        "synthetic": plan.is_synthetic,
        "tags": _tags(plan, items),
        "request_ref": _refs(asked),
        "response_ref": _refs(answered),
    }
    return {name: _array(columns[name], kind, n) for name, kind in _TYPES.items()}


def constant(value: str | int | None, kind: pa.DataType, n: int) -> pa.Array:
    """Return the same value so many times; most batches are short, and share it."""
    if n > _SHARED:
        return pa.nulls(n, kind) if value is None else pa.repeat(pa.scalar(value, kind), n)
    return _shared(type(value).__name__, value, kind).slice(0, n)


@lru_cache(maxsize=4096)
def _shared(
    _: str,  # 0 and False are one key, but not one value
    value: str | int | None,
    kind: pa.DataType,
) -> pa.Array:
    return pa.nulls(_SHARED, kind) if value is None else pa.repeat(pa.scalar(value, kind), _SHARED)


def _array(values: Any, kind: pa.DataType, n: int) -> pa.Array:
    if values is None or isinstance(values, str | int):
        return constant(values, kind, n)
    return values if isinstance(values, pa.Array) else pa.array(values, type=kind)


def _values(items: Sequence[Known], place: Place) -> list[bytes]:
    side, number = place
    if number < 0:
        return [item.cuts[side].body_id for item in items]
    if side:
        return [item.meeting.answered.values[number] for item in items]
    return [item.meeting.asked.values[number] for item in items]


def _ids(arrivals: Sequence[Arrival]) -> pa.Array:
    text = b"".join([arrival.digest for arrival in arrivals]).hex().encode()
    offsets = np.arange(len(arrivals) + 1, dtype=np.int32) * _ID_CHARS
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(text)]
    return pa.Array.from_buffers(pa.string(), len(arrivals), buffers)


def _refs(arrivals: Sequence[Arrival]) -> list[str]:
    return [f"{of.partition}-{of.position}-{of.index}" for of in arrivals]


def _tags(plan: Plan, items: Sequence[Known]) -> Any:
    if plan.tags is None or not plan.tag_places:
        return plan.tags and plan.tags.replace(b"%%", b"%").decode()
    pattern = plan.tags
    columns = [_values(items, place) for place in plan.tag_places]
    return [pattern % values for values in zip(*columns, strict=True)]


def _or_null(spent: Any) -> Any:
    return None if spent is None else pa.array(spent, mask=np.isnan(spent))
