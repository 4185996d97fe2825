"""Material for the tests of the lake: documents in memory, batches from plain rows."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from sidelight.adapters import Inferences, Lake
from sidelight.logger._journal import Document
from sidelight.payloads import ROW_SCHEMA, Batch

EPOCH = datetime(2013, 1, 1, tzinfo=UTC)


class MemoryDocuments:
    """The interface of published results, in a dict."""

    def __init__(self) -> None:
        self.stored: dict[tuple[str, str], Document] = {}

    def get(self, collection: str, key: str) -> dict[str, Any] | None:
        found = self.stored.get((collection, key))
        return dict(found.value) if found is not None and found.value is not None else None

    def present(self, collection: str, keys: Collection[str]) -> set[str]:
        return {key for key in keys if self.get(collection, key) is not None}

    def find(
        self,
        collection: str,
        *,
        deployment: str | None = None,
        descending: bool = True,
        after: tuple[str, str] | None = None,
        limit: int = 100,
    ) -> list[tuple[str, str, dict[str, Any]]]:
        found = sorted(
            (
                (document.order, document.key, dict(document.value or {}))
                for document in self.stored.values()
                if document.collection == collection and deployment in {None, document.deployment}
            ),
            key=lambda item: item[:2],
            reverse=descending,
        )
        if after is not None:
            found = [
                item for item in found if (item[:2] < after if descending else item[:2] > after)
            ]
        return found[:limit]

    def put(self, documents: Sequence[Document]) -> None:
        for document in documents:
            key = (document.collection, document.key)
            if document.value is None:
                self.stored.pop(key, None)
            else:
                self.stored[key] = document

    def counters(self) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        return {}


def row(inference: str, minutes: float = 0, **values: Any) -> dict[str, Any]:
    """Return one row; keys are columns of a batch, the rest has defaults."""
    return {
        "id": inference,
        "row": 0,
        "revision": 0,
        "request_id": f"request-{inference}",
        "time": EPOCH + timedelta(minutes=minutes),
        "protocol": "v2",
        "synthetic": False,
        **values,
    }


def batch(
    rows: Sequence[Mapping[str, Any]],
    *,
    deployment: str = "prod/flights",
    layout: dict[str, Any] | None = None,
    types: Mapping[str, pa.DataType] | None = None,
) -> Batch:
    """Return a batch; the first row names the feature and output columns."""
    extra = [name for name in rows[0] if name.startswith(("features.", "outputs."))]
    fields = list(ROW_SCHEMA)
    arrays = [pa.array([item.get(field.name) for item in rows], field.type) for field in fields]
    for name in extra:
        values = pa.array([item.get(name) for item in rows], (types or {}).get(name))
        fields.append(pa.field(name, values.type))
        arrays.append(values)
    records = pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))
    return Batch.build(records, deployment=deployment, layout=layout or {"protocol": "v2"})


def labelled(deployment: str, request_id: str, number: int, labels: Mapping[str, Any]) -> Document:
    return Document(
        collection="labels",
        key=f"{deployment}|{request_id}|{number}",
        deployment=deployment,
        order="2013-01-01T00:00:00.000000Z",
        value={
            "deployment": deployment,
            "request_id": request_id,
            "row": number,
            "labels": dict(labels),
            "time": "2013-01-01T00:00:00.000000Z",
        },
    )


class Store:
    """A lake with its documents and its queries."""

    def __init__(self, folder: Path, documents: Any = None) -> None:
        self.folder = folder
        self.documents = documents or MemoryDocuments()
        self.lake = Lake(folder)
        self.queries = Inferences(folder, self.documents, memory_bytes=256_000_000)
        self._position = 0

    def add(self, *batches: Batch) -> list[Document]:
        """Stage and commit at the next journal position."""
        position, self._position = self._position, self._position + 1
        documents = self.lake.stage(batches, first=position, last=position)
        self.documents.put(documents)
        return documents

    def ids(self, **filters: Any) -> list[str]:
        return [item.id for item in self.queries.find(**filters)[0]]

    def all_ids(self, **filters: Any) -> list[str]:
        """Return the ids of every page."""
        found: list[str] = []
        cursor: str | None = None
        while True:
            items, cursor = self.queries.find(**filters, cursor=cursor)
            found += [item.id for item in items]
            if cursor is None:
                return found

    def close(self) -> None:
        self.queries.close()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def samples() -> SimpleNamespace:
    """Builders of material, for tests that cannot import from their own folder."""
    return SimpleNamespace(
        row=row, batch=batch, labelled=labelled, Store=Store, MemoryDocuments=MemoryDocuments
    )
