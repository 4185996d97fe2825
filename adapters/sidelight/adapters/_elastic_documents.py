"""Rows of inferences as documents: one for each row, named by inference and row."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson
import pyarrow as pa

from sidelight.adapters._elastic_bulk import Operation
from sidelight.adapters._elastic_columns import layout_id
from sidelight.adapters._elastic_names import field_name, index_stem
from sidelight.adapters._elastic_templates import MAX_TERM
from sidelight.adapters._query_rows import plain_value, plain_values, tags_of
from sidelight.adapters._query_time import format_time
from sidelight.payloads import FEATURE_PREFIX, OUTPUT_PREFIX, ROW_SCHEMA, Batch

_FIXED: Final = tuple(ROW_SCHEMA.names)
_PREFIXES: Final = {"features": FEATURE_PREFIX, "outputs": OUTPUT_PREFIX}
# Room for the updates of one revision: each raises the version of its document by one.
_UPDATES: Final = 1 << 32
_INT64: Final = 1 << 63
# A list or a text of this many characters is named and counted, not copied: the archive has it.
_MAX_KEPT: Final = 65_536
# Texts are counted in halves of UTF-16 by the servers: up to this length they are indexed.
_SURELY_FOUND: Final = MAX_TERM // 2
_SURELY_FOUND_REQUEST: Final = 4_095
_OWN_TEXTS: Final = ("version", "component", "endpoint", "protocol", "orphan", "request_id")
_MOST_UNFOUND: Final = 100

ANY_COLUMN: Final = "*"
"""In ``unfound`` when there are many."""

JSON: Final = "%json"
"""Key of a label as text: a structure, or a whole number of more than 64 bits.

As an object an update would be merged into what it replaces.
"""

_Groups = dict[str, list[tuple[str, list[Any], pa.DataType]]]

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
    batch: Batch,
    joined: Joined,
    *,
    prefix: str,
    max_fields: int,
    keeps_long: bool = False,
    index_of: Callable[[str, str], str] = "{}-{}".format,
) -> Iterator[Operation]:
    """Yield what stores each row of a batch, in their order.

    Parameters
    ----------
    max_fields : int
        Columns that are indexed.
    keeps_long : bool, default False
        Whether long lists and texts that are not indexed are copied; they are counted otherwise.
    index_of : callable
        From the stem of an index and a date to its name.

    """
    records = batch.records
    columns = {name: plain_values(records.column(name)) for name in _FIXED}
    counts = Counter(columns["id"])
    stem = index_stem(prefix, "inferences", batch.deployment)
    namespace, _, name = batch.deployment.partition("/")
    groups, rest = _groups(records, max_fields)
    layout = layout_id(records.schema)
    unfound = _unfound(columns, groups, rest)
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
            "layout": layout,
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
            document[group] = {key: column[number] for key, column, _ in named}
        if any(rest.values()):
            document["unindexed"] = {
                group: {
                    key: column[number] if keeps_long else _kept(column[number])
                    for key, column, _ in named
                }
                for group, named in rest.items()
            }
        if number in unfound:
            document["unfound"] = unfound[number]
        if labels := joined.labels.get((own["request_id"], own["row"])):
            found = label_fields(labels)
            document["unindexed"] = {
                **document.get("unindexed", {}),
                **found.pop("unindexed", {}),
            }
            document |= found
        if joined.alarms:
            alarms = [item.id for item in joined.alarms if item.covers(time_us, own["version"])]
            document["alarms"] = alarms
        head = {
            "_index": index_of(stem, time[:10]),
            "_id": f"{own['id']}-{own['row']}",
            "version": (own["revision"] + 1) * _UPDATES,
            "version_type": "external",
        }
        yield Operation("index", head, written(document))


def label_fields(labels: Mapping[str, Any]) -> dict[str, Any]:
    """Return labels as parts of a document: what is no single value is kept, not indexed."""
    plain: dict[str, Any] = {}
    rest: dict[str, Any] = {}
    unfound: list[str] = []
    for label, value in labels.items():
        name = field_name(label)
        text = _label_text(value)
        plain[name] = plain_value(value) if text is None else None
        if plain[name] is None:
            # Null as well: it replaces a structure.
            rest[name] = None if text is None else {JSON: text}
        if text is not None or _is_long(value, _SURELY_FOUND):
            unfound.append(name)
    fields: dict[str, Any] = {"labels": plain, "unfound_labels": unfound}
    return fields | ({"unindexed": {"labels": rest}} if rest else {})


def written(document: dict[str, Any]) -> bytes:
    """Return a document as JSON, whatever labels and tags from outside hold.

    Half surrogate pairs and a thousand levels are things that a server would refuse as well; what
    has them becomes one text that is not indexed.
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
        document["reduced"] = "no_json"
        return orjson.dumps(document)


def _text(value: Any) -> str:
    try:
        return json.dumps(plain_value(value))
    except RecursionError:
        return '"nested too deeply"'


def _groups(records: pa.RecordBatch, max_fields: int) -> tuple[_Groups, _Groups]:
    """Return the columns that are indexed and the others, by group and by name of the field."""
    indexed: _Groups = {group: [] for group in _PREFIXES}
    rest: _Groups = {group: [] for group in _PREFIXES}
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
            name = field_name(field.name[len(prefix) :])
            values = plain_values(records.column(place))
            (indexed if is_indexed else rest)[group].append((name, values, field.type))
    return indexed, rest


def _is_single(kind: pa.DataType) -> bool:
    is_long = pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
    return not is_long and not pa.types.is_fixed_size_binary(kind)


def _kept(value: Any) -> Any:
    if isinstance(value, list | str) and len(value) > _MAX_KEPT:
        return {"omitted": len(value)}
    return value


def _label_text(value: Any) -> str | None:
    """Return a label that is kept as text; None of one that is indexed. They come as they like."""
    match value:
        case int() if not -_INT64 <= value < _INT64:
            return str(value)
        case dict() | list():
            return _text(value)
        case _:
            return None


def _is_long(value: Any, length: int) -> bool:
    return isinstance(value, str) and len(value) > length


def _unfound(own: Mapping[str, list[Any]], indexed: _Groups, rest: _Groups) -> dict[int, list[str]]:
    """Return the columns that the index does not find, by number of the row."""
    found: dict[int, list[str]] = {}
    for name in _OWN_TEXTS:
        length = _SURELY_FOUND_REQUEST if name == "request_id" else _SURELY_FOUND
        _note(found, name, [_is_long(value, length) for value in own[name]])
    for group, named in indexed.items():
        for name, column, kind in named:
            if pa.types.is_string(kind) or pa.types.is_large_string(kind):
                _note(
                    found, f"{group}.{name}", [_is_long(value, _SURELY_FOUND) for value in column]
                )
    for group, named in rest.items():
        for name, column, _ in named:
            _note(found, f"{group}.{name}", [value is not None for value in column])
    return {
        number: names if len(names) <= _MOST_UNFOUND else [ANY_COLUMN]
        for number, names in found.items()
    }


def _note(found: dict[int, list[str]], name: str, marks: list[bool]) -> None:
    if any(marks):
        for number, mark in enumerate(marks):
            if mark:
                found.setdefault(number, []).append(name)
