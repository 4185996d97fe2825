"""Which columns the documents of a deployment have: an index of its own beside them.

A mapping says neither the type that a column had nor what was never indexed. So the writer notes
each layout of columns, and each kind of each label, before the first document that has it.
"""

import hashlib
import json
import math
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import orjson
import pyarrow as pa

from sidelight.adapters._elastic_bulk import Operation
from sidelight.adapters._elastic_names import field_name, index_stem
from sidelight.adapters._where_sql import Kind
from sidelight.payloads import ROW_SCHEMA

Columns = tuple[tuple[str, str], ...]
"""Names and Arrow types, in the order of the payload."""

MAPPING: Final[Mapping[str, Any]] = {
    "dynamic": False,
    "properties": {
        "deployment": {"type": "keyword", "ignore_above": 8191},
        "stem": {"type": "keyword", "ignore_above": 8191},
        "key": {"type": "keyword"},
    },
}

_FIXED: Final[Columns] = tuple((item.name, str(item.type)) for item in ROW_SCHEMA)


def columns_index(prefix: str) -> str:
    """Return the name of the index of columns."""
    return f"{prefix}-columns"


def layout_id(schema: pa.Schema) -> str:
    """Return what documents are marked with that have the columns of a batch."""
    return _digest("layout", *(f"{name}\0{kind}" for name, kind in _payload(schema)))[:16]


def _payload(schema: pa.Schema) -> Columns:
    return tuple((item.name, str(item.type)) for item in list(schema)[len(ROW_SCHEMA) :])


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0\0".join(parts).encode(errors="surrogatepass")).hexdigest()


def label_kind(value: object) -> Kind | None:
    """Return the kind of a label; None when it is null, or not finite."""
    match value:
        case None:
            return None
        case bool():
            return "boolean"
        case int():
            # Of hundreds of digits, too: no function of floats takes it.
            return "number"
        case float():
            return "number" if math.isfinite(value) else None
        case str():
            return "text"
        case _:
            return "other"


class ColumnNotes:
    """What the writer has noted already; from one thread.

    Parameters
    ----------
    prefix : str
        Of every index.

    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._noted: set[str] = set()
        self._waiting: set[str] = set()

    def layout(self, deployment: str, schema: pa.Schema) -> Iterator[Operation]:
        """Yield the note of a layout that is new."""
        name = _digest(deployment, layout_id(schema))
        # Names of columns may hold what no JSON has; ASCII takes all of it.
        columns = json.dumps(_payload(schema))
        body = {"layout": layout_id(schema), "columns": columns}
        return self._note(name, deployment, body)

    def labels(self, deployment: str, labels: Mapping[str, Any]) -> Iterator[Operation]:
        """Yield the notes of kinds of labels that are new."""
        for label, value in labels.items():
            kind = label_kind(value) or ""
            body = {"label": json.dumps(label), "kind": kind}
            yield from self._note(_digest(deployment, "label", label, kind), deployment, body)

    def done(self) -> None:
        """Remember what was yielded: it is acknowledged."""
        self._noted |= self._waiting
        self._waiting.clear()

    def forget(self) -> None:
        """Yield again what was yielded since: it may not be there."""
        self._waiting.clear()

    def _note(self, name: str, deployment: str, body: Mapping[str, Any]) -> Iterator[Operation]:
        if name in self._noted or name in self._waiting:
            return
        self._waiting.add(name)
        stem = index_stem(self._prefix, "inferences", deployment)
        head = {"_index": columns_index(self._prefix), "_id": name}
        document = {"key": name, "deployment": deployment, "stem": stem, **body}
        yield Operation("index", head, orjson.dumps(document))


@dataclass(frozen=True, eq=False)
class Layout:
    """The columns of some documents, by field and by name."""

    columns: Columns

    @classmethod
    def of(cls, text: str) -> "Layout":
        """Return the layout that a note holds."""
        return cls(_FIXED + tuple((name, kind) for name, kind in json.loads(text)))

    @cached_property
    def types(self) -> Mapping[str, str]:
        """Arrow types by column."""
        return dict(self.columns)

    def named(self, prefix: str) -> list[tuple[str, str]]:
        """Return (name without the prefix, name of the field) of features or of outputs."""
        known = self._named.get(prefix)
        if known is None:
            known = self._named[prefix] = [
                (name[len(prefix) :], field_name(name[len(prefix) :]))
                for name, _ in self.columns[len(_FIXED) :]
                if name.startswith(prefix)
            ]
        return known

    @cached_property
    def _named(self) -> dict[str, list[tuple[str, str]]]:
        return {}


@dataclass(frozen=True, kw_only=True)
class KnownColumns:
    """Every layout and label of some deployments.

    Parameters
    ----------
    layouts : mapping of id to Layout
    known : mapping of label to its kinds

    """

    layouts: Mapping[str, Layout] = field(default_factory=dict)
    labels: Mapping[str, frozenset[Kind]] = field(default_factory=dict)

    @property
    def known(self) -> set[str]:
        """Names of labels."""
        return set(self.labels)

    def kinds(self, name: str) -> frozenset[Kind] | None:
        """Return the kinds of a label; None when there are labels but not this one."""
        return self.labels.get(name, None if self.labels else frozenset())

    def types(self, column: str) -> frozenset[str]:
        """Return the Arrow types that a column has anywhere."""
        found = (layout.types.get(column) for layout in self.layouts.values())
        return frozenset(kind for kind in found if kind is not None)

    @classmethod
    def joined(cls, several: Iterable["KnownColumns"]) -> "KnownColumns":
        """Return what is known of several deployments together."""
        layouts: dict[str, Layout] = {}
        labels: dict[str, frozenset[Kind]] = {}
        for each in several:
            layouts |= each.layouts
            for name, kinds in each.labels.items():
                labels[name] = labels.get(name, frozenset()) | kinds
        return cls(layouts=layouts, labels=labels)

    @cached_property
    def label_fields(self) -> Mapping[str, str]:
        """Names of labels by field."""
        return {field_name(name): name for name in self.labels}

    @classmethod
    def of(cls, notes: Iterable[Mapping[str, Any]]) -> "KnownColumns":
        """Gather notes."""
        layouts: dict[str, Layout] = {}
        labels: dict[str, frozenset[Kind]] = {}
        for note in notes:
            if "layout" in note:
                layouts[note["layout"]] = Layout.of(note["columns"])
            else:
                name = json.loads(note["label"])
                kinds = {note["kind"]} if note["kind"] else set()
                labels[name] = labels.get(name, frozenset()) | kinds
        return cls(layouts=layouts, labels=labels)


class NoteCache:
    """Notes as they were read last, for any number of threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._notes: dict[str | None, list[dict[str, Any]]] = {}

    def get(self, stem: str | None, count: int) -> list[dict[str, Any]] | None:
        """Return the notes if there are still as many: none is ever changed."""
        with self._lock:
            notes = self._notes.get(stem)
        return notes if notes is not None and len(notes) == count else None

    def put(self, stem: str | None, notes: list[dict[str, Any]]) -> None:
        """Keep notes; those of the least used go when there are many."""
        with self._lock:
            self._notes.pop(stem, None)
            self._notes[stem] = notes
            while len(self._notes) > _CACHED:
                self._notes.pop(next(iter(self._notes)))


_CACHED: Final = 256
