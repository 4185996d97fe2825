"""Which batches have the same columns."""

import hashlib
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

# Deployments rarely have so many; what comes later begins anew.
_MOST = 4096


@dataclass(frozen=True, slots=True, eq=False)
class Kind:
    """Columns that several batches have.

    Parameters
    ----------
    schema : pyarrow.Schema
        Without metadata, each name once.
    columns : tuple of (name, type)
        Arrow types as text.
    digest : str
        Of the columns.

    """

    schema: pa.Schema
    columns: tuple[tuple[str, str], ...]
    digest: str

    def renamed(self, records: pa.RecordBatch) -> pa.RecordBatch:
        """Return a batch of this kind under the kind's own names."""
        return pa.RecordBatch.from_arrays(records.columns, schema=self.schema)


class Kinds:
    """Finds the kind of a schema; to spell all types out takes longer than to write a few rows."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, str], list[tuple[pa.Schema, Kind]]] = {}
        self._n = 0

    def of(self, schema: pa.Schema) -> Kind:
        """Return the one kind of all schemas with these names and types."""
        place = len(schema), schema.field(len(schema) - 1).name
        for known, kind in self._known.get(place, ()):
            if known.equals(schema):
                return kind
        return self._learn(place, schema)

    def _learn(self, place: tuple[int, str], schema: pa.Schema) -> Kind:
        if self._n >= _MOST:
            self._known, self._n = {}, 0
        distinct = _distinct(schema.remove_metadata())
        columns = tuple((field.name, str(field.type)) for field in distinct)
        # Schemas that differ in what is no column, as nullability, are one kind.
        same = self._known.setdefault(place, [])
        kind = next((kind for _, kind in same if kind.columns == columns), None)
        if kind is None:
            kind = Kind(distinct, columns, digest(columns))
        same.append((schema, kind))
        self._n += 1
        return kind


def digest(*parts: object) -> str:
    """Return a short name for anything that has a ``repr``."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def _distinct(schema: pa.Schema) -> Any:
    """Return a schema with each name once: later columns of one name are numbered."""
    if len(set(schema.names)) == len(schema.names):
        return schema
    taken = set(schema.names)
    seen: set[str] = set()
    fields = []
    for field in schema:
        name, number = field.name, 2
        while name in seen or (name != field.name and name in taken):
            name, number = f"{field.name} ({number})", number + 1
        seen.add(name)
        fields.append(field.with_name(name))
    return pa.schema(fields, metadata=schema.metadata)
