"""Rows of inferences as documents: one for each row, named by inference and row."""

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson
import pyarrow as pa

from sidelight.adapters._elastic_bulk import Operation
from sidelight.adapters._elastic_names import field_name, index_stem
from sidelight.adapters._query_rows import plain_values, tags_of
from sidelight.adapters._query_time import format_time
from sidelight.payloads import FEATURE_PREFIX, OUTPUT_PREFIX, ROW_SCHEMA, Batch

_FIXED: Final = tuple(ROW_SCHEMA.names)
_PREFIXES: Final = {"features": FEATURE_PREFIX, "outputs": OUTPUT_PREFIX}
# Room for the updates of one revision: each raises the version of its document by one.
_UPDATES: Final = 1 << 32
_INT64: Final = 1 << 63
# A list or a text of this many characters is named and counted, not copied: the archive has it.
_MAX_KEPT: Final = 65_536

Labels = Mapping[tuple[str, int], Mapping[str, Any]]
Score = tuple[float | None, float | None, bool | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class AlarmSpan:
    """Where an alarm stands: rows of these times get its id.

    Parameters
    ----------
    version : str or None
        Rows of one version only; None for all.
    start_us, end_us : int, int or None
        Microseconds since 1970 UTC, the end excluded; None while it is open.

    """

    id: str
    version: str | None
    start_us: int
    end_us: int | None

    def covers(self, time_us: int, version: str | None) -> bool:
        """Whether a row of that time and version is in it."""
        return (
            self.start_us <= time_us
            and (self.end_us is None or time_us < self.end_us)
            and self.version in {None, version}
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """What is known of the rows of one deployment beside the rows themselves.

    Parameters
    ----------
    labels : mapping of (request id, row) to labels
    scores : mapping of (inference id, row, revision) to score, p-value and whether it is an outlier
    alarms : sequence of AlarmSpan

    """

    labels: Labels
    scores: Mapping[tuple[str, int, int], Score]
    alarms: Sequence[AlarmSpan] = ()


NOTHING: Final = Joined(labels={}, scores={})


def row_operations(
    batch: Batch, joined: Joined, *, prefix: str, max_fields: int
) -> Iterator[Operation]:
    """Yield what stores each row of a batch, in their order."""
    records = batch.records
    columns = {name: plain_values(records.column(name)) for name in _FIXED}
    counts = Counter(columns["id"])
    stem = index_stem(prefix, "inferences", batch.deployment)
    namespace, _, name = batch.deployment.partition("/")
    groups, rest = _groups(records, max_fields)
    for number in range(len(batch)):
        own = {name: column[number] for name, column in columns.items()}
        time_us = own["time"]
        time = format_time(time_us)
        place = own["id"], own["row"], own["revision"]
        score, p_value, outlier = joined.scores.get(place, (None, None, None))
        document = {
            "@timestamp": time,
            "time_us": time_us,
            "inference_id": own["id"],
            "row": own["row"],
            "rows": counts[own["id"]],
            "revision": own["revision"],
            "request_id": own["request_id"],
            "deployment": batch.deployment,
            "namespace": namespace,
            "name": name,
            "version": own["version"],
            "component": own["component"],
            "endpoint": own["endpoint"],
            "latency_ms": own["latency_ms"],
            "status": own["status"],
            "protocol": own["protocol"],
            "orphan": own["orphan"],
            "synthetic": own["synthetic"],
            "outlier_score": score,
            "outlier_p_value": p_value,
            "outlier": outlier,
            "tags": tags_of(own["tags"]),
            "raw": {"request_ref": own["request_ref"], "response_ref": own["response_ref"]},
        }
        for group, named in groups.items():
            document[group] = {key: column[number] for key, column in named}
        if any(rest.values()):
            document["unindexed"] = {
                group: {key: _kept(column[number]) for key, column in named}
                for group, named in rest.items()
            }
        if labels := joined.labels.get((own["request_id"], own["row"])):
            found = label_fields(labels)
            document["labels"] = found.get("labels")
            document["unindexed"] = {**document.get("unindexed", {}), **found.get("unindexed", {})}
        if joined.alarms:
            alarms = [item.id for item in joined.alarms if item.covers(time_us, own["version"])]
            document["alarms"] = alarms
        head = {
            "_index": f"{stem}-{time[:10]}",
            "_id": f"{own['id']}-{own['row']}",
            "version": (own["revision"] + 1) * _UPDATES,
            "version_type": "external",
        }
        yield Operation("index", head, written(document))


def label_fields(labels: Mapping[str, Any]) -> dict[str, Any]:
    """Return labels as parts of a document: what is no single value is kept, not indexed."""
    plain: dict[str, Any] = {}
    rest: dict[str, Any] = {}
    for name, value in labels.items():
        target = rest if isinstance(value, dict | list) else plain
        target[field_name(name)] = _number(value)
    fields: dict[str, Any] = {"labels": plain} if plain else {}
    return fields | ({"unindexed": {"labels": rest}} if rest else {})


def written(document: dict[str, Any]) -> bytes:
    """Return a document as JSON, whatever labels and tags from outside hold.

    Whole numbers of more than 64 bits, half surrogate pairs and a thousand levels are things that
    a server would refuse as well; what has them becomes one text that is not indexed.
    """
    try:
        return orjson.dumps(document)
    except TypeError:
        texts = {
            name: _text(value)
            for name in ("tags", "labels", "unindexed")
            if (value := document.pop(name, None))
        }
        document["unindexed"] = {"text": texts}
        return orjson.dumps(document)


def _text(value: Any) -> str:
    try:
        return json.dumps(value)
    except RecursionError:
        return "nested too deeply"


def _groups(
    records: pa.RecordBatch, max_fields: int
) -> tuple[dict[str, list[tuple[str, list[Any]]]], dict[str, list[tuple[str, list[Any]]]]]:
    """Return the columns that are indexed and the others, by group and by name of the field."""
    indexed: dict[str, list[tuple[str, list[Any]]]] = {group: [] for group in _PREFIXES}
    rest: dict[str, list[tuple[str, list[Any]]]] = {group: [] for group in _PREFIXES}
    left = max_fields
    # Outputs are few and always asked for: a thousand features must not leave them out.
    for group in ("outputs", "features"):
        prefix = _PREFIXES[group]
        for place in range(len(_FIXED), records.num_columns):
            field = records.schema.field(place)
            if not field.name.startswith(prefix):
                continue
            is_indexed = left > 0 and _is_single(field.type)
            left -= is_indexed
            column = field_name(field.name[len(prefix) :]), plain_values(records.column(place))
            (indexed if is_indexed else rest)[group].append(column)
    return indexed, rest


def _is_single(kind: pa.DataType) -> bool:
    is_long = pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
    return not is_long and not pa.types.is_fixed_size_binary(kind)


def _kept(value: Any) -> Any:
    if isinstance(value, list | str) and len(value) > _MAX_KEPT:
        return {"omitted": len(value)}
    return value


def _number(value: Any) -> Any:
    """Return a number that an index can hold; labels come from outside as they like."""
    match value:
        case float() if not math.isfinite(value):
            return None
        case int() if not -_INT64 <= value < _INT64:
            return str(value)
        case _:
            return value
