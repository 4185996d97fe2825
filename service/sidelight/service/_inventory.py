"""What traffic tells of each deployment: versions, columns, how many rows, when."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sidelight.logger import Document, Documents
from sidelight.payloads import Batch, Schema, infer_schema
from sidelight.service._layouts import layouts_of, with_layout
from sidelight.service._understood import (
    opaque_sides,
    understood_sides,
    without_columns,
    without_sides,
)

_COLLECTION = "deployments"
_SIDES = ("request", "response")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(slots=True)
class _Entry:
    versions: list[str] = field(default_factory=list)
    schema: Schema | None = None
    layouts: list[dict[str, Any]] = field(default_factory=list)
    rows_seen: int = 0
    first_seen: str = ""
    last_seen: str = ""
    understood: frozenset[str] = frozenset()
    """Whose columns stand in the schema as somebody understood them: requests', responses'."""
    noted: pa.Schema | None = None
    """Of the last batch; of another one with the same there is nothing new to say."""

    def to_json(self) -> dict[str, Any]:
        return {
            "versions": self.versions,
            "schema": self.schema.to_json() if self.schema else {"columns": []},
            "layouts": self.layouts,
            "understood": sorted(self.understood),
            "rows_seen": self.rows_seen,
            "first_seen": self.first_seen or None,
            "last_seen": self.last_seen or None,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "_Entry":
        layouts = layouts_of(value)
        return cls(
            versions=list(value["versions"]),
            schema=Schema.from_json(value["schema"]),
            layouts=layouts,
            # Versions before did not tell; what they understood has a layout.
            understood=frozenset(value.get("understood", _SIDES if layouts else ())),
            rows_seen=value["rows_seen"],
            first_seen=value["first_seen"] or "",
            last_seen=value["last_seen"] or "",
        )


class Inventory:
    """Keeps one entry for each deployment up to date with what was decoded.

    Parameters
    ----------
    documents : Documents
        Has what was committed.

    """

    def __init__(self, documents: Documents) -> None:
        self._documents = documents
        self._entries: dict[str, _Entry] = {}

    def note(self, batches: Iterable[Batch]) -> list[Document]:
        """Take decoded rows into account; return the documents of what changed."""
        changed: dict[str, _Entry] = {}
        named = [
            (batch.deployment, batch) for batch in map(_without_synthetic, batches) if len(batch)
        ]
        # Asked again each time: people may have deleted a deployment meanwhile.
        present = self._documents.present(_COLLECTION, {name for name, _ in named})
        for name, batch in named:
            # Once for all batches of a step: a new deployment has no document in between.
            entry = changed.get(name) or self._entry(name, is_present=name in present)
            _note(entry, batch)
            changed[name] = entry
        return [
            Document(
                collection=_COLLECTION,
                key=name,
                deployment=name,
                order=entry.last_seen,
                value=entry.to_json(),
            )
            for name, entry in changed.items()
        ]

    def _entry(self, name: str, *, is_present: bool) -> _Entry:
        if is_present and name in self._entries:
            return self._entries[name]
        value = self._documents.get(_COLLECTION, name) if is_present else None
        entry = self._entries[name] = _Entry() if value is None else _Entry.from_json(value)
        return entry


def _without_synthetic(batch: Batch) -> Batch:
    synthetic = batch.records.column("synthetic")
    if not pc.any(synthetic).as_py():
        return batch
    return Batch(batch.records.filter(pc.invert(synthetic)))


def _note(entry: _Entry, batch: Batch) -> None:
    records = batch.records
    schema = records.schema
    if entry.noted is None or not schema.equals(entry.noted, check_metadata=True):
        entry.noted = schema
        entry.schema = _with_columns(entry, batch)
        if batch.feature_names and batch.layout:
            entry.layouts = with_layout(entry.layouts, batch.layout.get("request"))
    for version in pc.unique(records.column("version")).to_pylist():
        if version is not None and version not in entry.versions:
            entry.versions.append(version)
    entry.rows_seen += int(np.count_nonzero(records.column("revision").to_numpy() == 0))
    moments = records.column("time").cast(pa.int64()).to_numpy()
    first, last = _text(int(moments.min())), _text(int(moments.max()))
    entry.first_seen = min(entry.first_seen or first, first)
    entry.last_seen = max(entry.last_seen, last)


def _with_columns(entry: _Entry, batch: Batch) -> Schema:
    """Return the schema after a batch: what was understood says it, and a body only until then.

    A call without a body, or a broken one, must not leave its column among the model's.
    """
    understood = understood_sides(batch)
    known = entry.schema or Schema()
    if new := understood - entry.understood:
        known = without_columns(known, new)
        entry.understood |= new
    return infer_schema(without_sides(batch, opaque_sides(batch) & entry.understood), known)


def _text(microseconds: int) -> str:
    moment = _EPOCH + timedelta(microseconds=microseconds)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
