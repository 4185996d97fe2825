"""Gauges of the consumers, kept as one document for each deployment and each consumer."""

from collections.abc import Mapping
from typing import Any

from sidelight.logger import Document, Documents
from sidelight.service._metrics import Labels

COLLECTION = "gauges"


def gauges_document(key: str, values: Mapping[tuple[str, Labels], float]) -> Document:
    """Return the document that replaces the gauges of one writer."""
    items: list[Any] = [[name, list(labels), value] for (name, labels), value in values.items()]
    return Document(collection=COLLECTION, key=key, value={"values": items})


def read_gauges(documents: Documents) -> dict[tuple[str, Labels], float]:
    """Return the gauges of all writers."""
    values: dict[tuple[str, Labels], float] = {}
    for _, _, document in documents.find(COLLECTION, limit=100_000):
        for name, labels, value in document["values"]:
            values[name, tuple((key, item) for key, item in labels)] = value
    return values
