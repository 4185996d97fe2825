"""Documents as the request logger of Seldon Core 1 writes them, for dashboards that exist.

One document for each row, named by the request, merged from what comes in any order. Departures:
the payload is not repeated in every row (the archive has it), and the source of the events and the
time of the answer are not known here. Reference: seldon-core v1.13.1, ``seldon-request-logger``.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Final

import orjson

from sidelight.adapters._elastic_bulk import Operation
from sidelight.adapters._elastic_client import Flavour
from sidelight.adapters._elastic_documents import Joined
from sidelight.adapters._elastic_templates import MAX_TERM, IndexOptions, index_settings
from sidelight.adapters._query_rows import plain_values
from sidelight.adapters._query_time import format_time
from sidelight.payloads import FEATURE_PREFIX, OUTPUT_PREFIX, Batch

_UNSAFE: Final = re.compile(r'[!@#$"<>/?]')
_NO_INDEX: Final = re.compile(r"[\\/*?\"<>| ,#:]")
_DETECTORS: Final = ("io.seldon.serving.", "org.kubeflow.serving.")
_IMAGE_RANK: Final = 3
_FLOAT: Final[Mapping[str, Any]] = {"type": "float"}
_OWN: Final = (
    *("id", "row", "revision", "request_id", "time", "component", "endpoint", "orphan", "protocol"),
)
_SIDES: Final = (("request", "features", FEATURE_PREFIX), ("response", "outputs", OUTPUT_PREFIX))

ID_FIELD: Final = "Sidelight-Inference"
"""The id of the inference that a document is of."""

REPLY_FIELD: Final = "Sidelight-Reply"
"""``reply_key`` of what another detector answered, whose inference may never have come."""

LOGGED: Final = "inference-log-*,drift-log-*"
"""Every index of this layout."""

PredictionSchema = Mapping[str, Sequence[Mapping[str, Any]]]
"""``requests`` and ``responses``: each a list of columns, as Seldon's metadata has them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeldonOptions:
    """How documents are written.

    Parameters
    ----------
    environment : str, default ""
        ``SELDON_ENVIRONMENT`` of the logger: a part of each index.
    schemas : mapping of deployment to prediction schema
        Names, categories and groups of columns that replace what payloads say.

    """

    environment: str = ""
    schemas: Mapping[str, PredictionSchema] = field(default_factory=dict)


def seldon_template(options: IndexOptions, flavour: Flavour) -> Mapping[str, Any]:
    """Return the index template of these documents."""
    settings = index_settings(options, flavour, lifecycle=False)
    kept: Mapping[str, Any] = {"type": "object", "enabled": False}
    part = {"properties": {"instance": kept, "payload": kept}}
    return {
        "index_patterns": ["inference-log-*", "drift-log-*"],
        "template": {
            "settings": settings,
            "mappings": {
                "date_detection": False,
                "dynamic_templates": [
                    {
                        "terms": {
                            "match_mapping_type": "string",
                            "mapping": {"type": "keyword", "ignore_above": MAX_TERM},
                        }
                    },
                    *(
                        {f"numbers_{kind}": {"match_mapping_type": kind, "mapping": _FLOAT}}
                        for kind in ("long", "double")
                    ),
                ],
                "properties": {
                    "@timestamp": {"type": "date"},
                    "request": part,
                    "response": part,
                },
            },
        },
        "priority": 100,
    }


def clean_header(value: str) -> str:
    """Return the value of a header without what the logger takes out of it.

    Examples
    --------
    >>> clean_header("http://:8000/")
    'http::8000'

    """
    return _UNSAFE.sub("", value)


def index_name(kind: str, engine: str, *parts: str, environment: str = "") -> str:
    """Return ``inference-log-seldon-<namespace>-<name>-<endpoint>``, or of another kind."""
    named = [kind, environment, engine, *parts]
    return _NO_INDEX.sub("_", "-".join(part for part in named if part).lower())


def of_deployment(deployment: str) -> list[dict[str, Any]]:
    """Return the conditions on documents of a deployment."""
    namespace, _, name = deployment.partition("/")
    return [
        {"term": {"Ce-Namespace": clean_header(namespace)}},
        {"term": {"Ce-Inferenceservicename": clean_header(name)}},
    ]


def reply_key(deployment: str, request_id: str) -> str:
    """Return what the documents of replies to a request are found by: long ids are no terms."""
    return blake2b(f"{deployment}|{request_id}".encode(), digest_size=16).hexdigest()


def inference_documents(
    batch: Batch, joined: Joined, options: SeldonOptions
) -> Iterator[Operation]:
    """Yield what merges each row of a batch into its document."""
    records = batch.records
    own = {name: plain_values(records.column(name)) for name in _OWN}
    counts = Counter(own["id"])
    sides = [_Side(batch, *side, options) for side in _SIDES]
    for number in range(len(batch)):
        facts = {name: column[number] for name, column in own.items()}
        engine = "seldon" if facts["protocol"].startswith("seldon") else "inferenceservice"
        document = _common(batch.deployment, facts, engine, format_time(facts["time"]))
        # Ours, and no field of the logger: what is erased is found by it.
        document[ID_FIELD] = facts["id"]
        for side in sides:
            if facts["orphan"] in {None, side.name} and side.columns:
                document[side.name] = side.of(number)
        if "request" in document:
            document["request"]["ce-time"] = format_time(facts["time"])
        score, _, outlier = joined.scores.get(
            (facts["id"], facts["row"], facts["revision"]), (None, None, None)
        )
        if outlier is not None:
            document["outlier"] = {"data": {"is_outlier": int(outlier), "instance_score": score}}
        name = _row_name(facts["request_id"], facts["row"], counts[facts["id"]])
        endpoint = facts["endpoint"] or "unknown-endpoint"
        index = index_name(
            "inference-log",
            engine,
            *batch.deployment.split("/", 1),
            endpoint,
            environment=options.environment,
        )
        yield _upsert(index, name, document)


def reply_documents(reply: Mapping[str, Any], options: SeldonOptions) -> Iterator[Operation]:
    """Yield what stores the answer of another detector: outliers with their rows, drift apart."""
    engine = "seldon" if reply["source"].startswith(_DETECTORS[0]) else "inferenceservice"
    data, meta = reply.get("data"), reply.get("meta")
    if not isinstance(data, dict):
        return
    time = reply["time"] or ""
    part = {"ce-time": time, "ce-source": clean_header(reply["source"]), "meta": meta}
    parts = reply["deployment"].split("/", 1)
    if reply["kind"] == "drift":
        names = [
            str(item.get("name")) for item in _columns(options, reply["deployment"], "requests")
        ]
        document = _reply(reply, engine, time)
        document["drift"] = {**part, "data": _drift(data, names)}
        detector = reply["source"]
        for prefix in _DETECTORS:
            detector = detector.removeprefix(prefix)
        index = index_name(
            "drift-log", engine, parts[0], clean_header(detector), environment=options.environment
        )
        yield _upsert(index, reply["request_id"], document)
        return
    flags = data.get("is_outlier")
    if not isinstance(flags, list):
        return
    endpoint = reply["endpoint"] or "unknown-endpoint"
    index = index_name("inference-log", engine, *parts, endpoint, environment=options.environment)
    for number in range(len(flags)):
        document = _reply(reply, engine, time)
        row = {name: _item(values, number) for name, values in data.items()}
        document["outlier"] = {**part, "data": row}
        yield _upsert(index, _row_name(reply["request_id"], number, len(flags)), document)


class _Side:
    """One half of the rows of a batch: its columns, and how the logger names and groups them."""

    def __init__(
        self, batch: Batch, name: str, group: str, prefix: str, options: SeldonOptions
    ) -> None:
        names = batch.feature_names if group == "features" else batch.output_names
        self.name = name
        self._names = names
        self.columns = [plain_values(batch.records.column(prefix + item)) for item in names]
        layout = batch.layout.get(name) or {}
        tensors = layout.get("tensors") or []
        self._datatype = _data_type(layout, tensors, len(names))
        self._is_named = any(item.get("name") for item in tensors)
        self._schema = list(_columns(options, batch.deployment, f"{name}s"))

    def of(self, number: int) -> dict[str, Any]:
        """Return the part of one row."""
        values = [column[number] for column in self.columns]
        part: dict[str, Any] = {
            "dataType": self._datatype,
            "instance": values if len(values) != 1 else values[0],
        }
        if self._is_named:
            part["names"] = self._names
        if self._is_named or self._schema:
            part["elements"] = self._elements(values)
        return part

    def _elements(self, values: list[Any]) -> dict[str, Any]:
        elements: dict[str, Any] = {}
        rest = list(zip(self._names, values, strict=True))
        for column in self._schema:
            grouped = [str(item.get("name")) for item in column.get("schema") or ()]
            if column.get("type") in {"PROBA", "ONE_HOT"} and grouped:
                taken, rest = rest[: len(grouped)], rest[len(grouped) :]
                found = [value for _, value in taken]
                elements[str(column["name"])] = dict(zip(grouped, found, strict=False))
            elif rest:
                (_, value), *rest = rest
                elements[str(column["name"])] = _labelled(value, column)
        # What a schema does not speak of keeps the name of the payload.
        return elements | dict(rest)


def _columns(options: SeldonOptions, deployment: str, side: str) -> Sequence[Mapping[str, Any]]:
    return options.schemas.get(deployment, {}).get(side, ())


def _labelled(value: Any, column: Mapping[str, Any]) -> Any:
    labels = column.get("category_map")
    if column.get("type") != "CATEGORICAL" or not isinstance(labels, dict):
        return value
    if not isinstance(value, int | float):
        return value
    return labels.get(str(int(value)), value)


def _data_type(layout: Mapping[str, Any], tensors: Sequence[Mapping[str, Any]], width: int) -> str:
    form = {"jsonData": "json", "binData": "image"}.get(str(layout.get("form")))
    if form is not None:
        return form
    rank = max((len(item.get("shape") or ()) for item in tensors), default=0)
    if rank >= _IMAGE_RANK:
        return "image"
    if rank > 1 or width > 1:
        return "tabular"
    is_number = all(item.get("datatype") not in {"TEXT", "BYTES", "B64"} for item in tensors)
    return "number" if is_number else "text"


def _drift(data: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Return drift as the logger has it: lists by the names of features, or lost without."""
    kept = {name: value for name, value in data.items() if name not in {"distance", "p_val"}}
    kept["is_drift"] = bool(data.get("is_drift"))
    by_feature = any(isinstance(data.get(name), list) for name in ("distance", "p_val"))
    kept["drift_type"] = "feature" if by_feature else "batch"
    for name in ("distance", "p_val"):
        value = data.get(name)
        if isinstance(value, list):
            named = dict(zip(names, value, strict=False)) if names else None
            kept[f"feature_{name}"] = named
        elif value is not None:
            kept[name] = value
    return kept


def _common(deployment: str, facts: Mapping[str, Any], engine: str, time: str) -> dict[str, Any]:
    namespace, _, name = deployment.partition("/")
    named = {
        "@timestamp": time,
        "RequestId": facts["request_id"],
        "ServingEngine": engine,
        "Ce-Inferenceservicename": clean_header(name),
        "Ce-Endpoint": clean_header(facts["endpoint"] or ""),
        "Ce-Namespace": clean_header(namespace),
        "Ce-Modelid": clean_header(facts["component"] or ""),
    }
    return {name: value for name, value in named.items() if value}


def _reply(reply: Mapping[str, Any], engine: str, time: str) -> dict[str, Any]:
    key = reply_key(reply["deployment"], reply["request_id"])
    return _common(reply["deployment"], reply, engine, time) | {REPLY_FIELD: key}


def _row_name(request_id: str, row: int, rows: int) -> str:
    return request_id if rows == 1 else f"{request_id}-item-{row}"


def _item(values: Any, number: int) -> Any:
    return values[number] if isinstance(values, list) and number < len(values) else values


def _upsert(index: str, name: str, document: Mapping[str, Any]) -> Operation:
    body = b'{"doc":%b,"doc_as_upsert":true}' % orjson.dumps(document)
    return Operation("update", {"_index": index, "_id": name, "retry_on_conflict": 3}, body)
