"""Documents of a search server as rows again: the values that the lake would give."""

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import unquote

from sidelight.adapters._elastic_columns import KnownColumns, Layout, label_kind
from sidelight.adapters._elastic_documents import JSON
from sidelight.adapters._query_columns import SCORE, kind_of, own_kind
from sidelight.adapters._query_time import format_time
from sidelight.adapters._where import ColumnName
from sidelight.adapters._where_rows import Cell
from sidelight.payloads import FEATURE_PREFIX, OUTPUT_PREFIX, Inference, InferenceRow

Source = Mapping[str, Any]

_PREFIXES: Final = {"features": FEATURE_PREFIX, "outputs": OUTPUT_PREFIX}
_OWN_FIELDS: Final = {"id": "inference_id", "time": "time_us"}


class StoredDocument:
    """One row as its document has it.

    Parameters
    ----------
    source : mapping
        The document.
    known : KnownColumns
        Layouts and labels of its deployment.

    """

    def __init__(self, source: Source, known: KnownColumns) -> None:
        self.source = source
        self._known = known
        self._kept = _kept(source)
        layout = known.layouts.get(source.get("layout", ""))
        self._layout = layout or _guessed(source, self._kept)

    @property
    def place(self) -> tuple[str, int]:
        """Inference and row."""
        return self.source["inference_id"], self.source["row"]

    def cell(self, column: ColumnName) -> Cell:
        """Return a value as ``where`` sees it."""
        if column.section == "labels":
            value = self.labels.get(column.name)
            return Cell(label_kind(value), value, is_integer=isinstance(value, int))
        if not column.section:
            return self._own(column.name)
        arrow_type = self._layout.types.get(str(column))
        if arrow_type is None:
            return Cell()
        kind = kind_of(arrow_type)
        value = self._values(column.section).get(column.name) if kind else None
        return Cell(kind, value, arrow_type.startswith(("int", "uint")), arrow_type == "float")

    def row(self) -> InferenceRow:
        """Return the row as the API shows it."""
        return InferenceRow(
            features=self._values("features"),
            outputs=self._values("outputs"),
            labels=self.labels,
            outlier_score=self.source.get("outlier_score"),
        )

    @property
    def labels(self) -> dict[str, Any]:
        """Labels by name."""
        found = self.source.get("labels") or {}
        kept = self._kept.get("labels") or {}
        names = self._known.label_fields
        labels: dict[str, Any] = {}
        for field in {**found, **kept}:
            value = found.get(field)
            # Both may be there when a label changed its kind: what is indexed came last.
            if value is None:
                value = kept.get(field)
            if isinstance(value, dict) and isinstance(value.get(JSON), str):
                value = json.loads(value[JSON])
            labels[names.get(field) or unquote(field)] = value
        return labels

    def tags(self) -> dict[str, Any]:
        """Return the tags of the inference."""
        return dict(self._kept.get("tags") or self.source.get("tags") or {})

    def _own(self, name: str) -> Cell:
        value = self.source.get(_OWN_FIELDS.get(name, name))
        is_float = name in {SCORE, "latency_ms"}
        if is_float and value is not None:
            value = float(value)
        return Cell(own_kind(name), value, not is_float)

    def _values(self, group: str) -> dict[str, Any]:
        found = self.source.get(group) or {}
        kept = self._kept.get(group) or {}
        return {
            name: found[field] if field in found else kept.get(field)
            for name, field in self._layout.named(_PREFIXES[group])
        }


def inference_of(documents: Iterable[StoredDocument]) -> Inference:
    """Return the inference that rows make, which must be all of one revision."""
    # A row may be in two indices, of its day and of other times: it is the same row.
    by_place = {document.place: document for document in documents}
    rows = [by_place[place] for place in sorted(by_place)]
    first = rows[0].source
    raw = first.get("raw") or {}
    return Inference(
        id=first["inference_id"],
        deployment=first["deployment"],
        version=first["version"],
        component=first["component"],
        request_id=first["request_id"],
        time=format_time(first["time_us"]),
        latency_ms=first["latency_ms"],
        status=first["status"],
        protocol=first["protocol"],
        rows=tuple(document.row() for document in rows),
        orphan=first["orphan"],
        synthetic=first["synthetic"],
        tags=rows[0].tags(),
        request_ref=raw.get("request_ref"),
        response_ref=raw.get("response_ref"),
    )


def winners(
    documents: Iterable[StoredDocument],
) -> dict[str, list[StoredDocument]]:
    """Return the rows of the highest revision of every inference, by its id."""
    found: dict[str, list[StoredDocument]] = {}
    for document in documents:
        name = document.source["inference_id"]
        rows = found.setdefault(name, [])
        if rows and rows[0].source["revision"] > document.source["revision"]:
            continue
        if rows and rows[0].source["revision"] < document.source["revision"]:
            rows.clear()
        rows.append(document)
    return found


def _kept(source: Source) -> dict[str, Any]:
    """Return what is not indexed, by group; a part that no JSON takes was kept as text."""
    kept: dict[str, Any] = dict(source.get("unindexed") or {})
    texts = kept.pop("text", None)
    if not isinstance(texts, dict):
        return kept
    for name, text in texts.items():
        try:
            value = json.loads(text)
        except ValueError:
            continue
        kept = kept | value if name == "unindexed" else {**kept, name: value}
    return kept


def _guessed(source: Source, kept: Mapping[str, Any]) -> Layout:
    """Return the layout of a document whose note is gone, as its values show it."""
    columns = []
    for group, prefix in _PREFIXES.items():
        values = {**(kept.get(group) or {}), **(source.get(group) or {})}
        columns += [(prefix + unquote(field), _type_of(value)) for field, value in values.items()]
    return Layout.of(json.dumps(columns))


_TYPES: Final[Mapping[type, str]] = {
    bool: "bool",
    int: "int64",
    float: "double",
    str: "string",
    type(None): "null",
}
_OTHER: Final = "list"


def _type_of(value: Any) -> str:
    return _TYPES.get(type(value), _OTHER)
