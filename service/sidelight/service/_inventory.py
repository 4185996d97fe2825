"""What traffic tells of each deployment: versions, columns, how many rows, when."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pyarrow.compute as pc

from sidelight.logger import Document
from sidelight.payloads import Batch, Schema, infer_schema
from sidelight.service._layouts import layouts_of, with_layout

_COLLECTION = "deployments"


@dataclass(slots=True)
class _Entry:
    versions: list[str] = field(default_factory=list)
    schema: Schema | None = None
    layouts: list[dict[str, Any]] = field(default_factory=list)
    rows_seen: int = 0
    first_seen: str = ""
    last_seen: str = ""

    def to_json(self) -> dict[str, Any]:
        return {
            "versions": self.versions,
            "schema": self.schema.to_json() if self.schema else {"columns": []},
            "layouts": self.layouts,
            "rows_seen": self.rows_seen,
            "first_seen": self.first_seen or None,
            "last_seen": self.last_seen or None,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "_Entry":
        return cls(
            versions=list(value["versions"]),
            schema=Schema.from_json(value["schema"]),
            layouts=layouts_of(value),
            rows_seen=value["rows_seen"],
            first_seen=value["first_seen"] or "",
            last_seen=value["last_seen"] or "",
        )


class Inventory:
    """Keeps one entry for each deployment up to date with what was decoded.

    Parameters
    ----------
    read : callable of name to dict or None
        Returns the committed document of a deployment.

    """

    def __init__(self, read: Callable[[str], dict[str, Any] | None]) -> None:
        self._read = read
        self._entries: dict[str, _Entry] = {}

    def note(self, batches: Iterable[Batch]) -> list[Document]:
        """Take decoded rows into account; return the documents of what changed."""
        changed: dict[str, _Entry] = {}
        for batch in map(_without_synthetic, batches):
            if len(batch):
                name = batch.deployment
                # Once for all batches of a step: a new deployment has no document in between.
                entry = changed.get(name) or self._entry(name)
                _note(entry, batch)
                changed[batch.deployment] = entry
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

    def _entry(self, name: str) -> _Entry:
        # Read again each time: people may have deleted the deployment meanwhile.
        value = self._read(name)
        if value is None:
            self._entries[name] = _Entry()
        elif name not in self._entries:
            self._entries[name] = _Entry.from_json(value)
        return self._entries[name]


def _without_synthetic(batch: Batch) -> Batch:
    synthetic = batch.records.column("synthetic")
    if not pc.any(synthetic).as_py():
        return batch
    return Batch(batch.records.filter(pc.invert(synthetic)))


def _note(entry: _Entry, batch: Batch) -> None:
    records = batch.records
    entry.schema = infer_schema(batch, entry.schema)
    if batch.feature_names and batch.layout:
        entry.layouts = with_layout(entry.layouts, batch.layout.get("request"))
    for version in pc.unique(records.column("version")).to_pylist():
        if version is not None and version not in entry.versions:
            entry.versions.append(version)
    entry.rows_seen += pc.sum(pc.equal(records.column("revision"), 0)).as_py()
    bounds = pc.min_max(records.column("time")).as_py()
    first, last = _text(bounds["min"]), _text(bounds["max"])
    entry.first_seen = min(entry.first_seen or first, first)
    entry.last_seen = max(entry.last_seen, last)


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
