"""The store that answers queries, as it is configured."""

from collections.abc import Mapping
from typing import Any, Final

from sidelight.adapters import (
    ElasticInferences,
    EmbeddedDocuments,
    Inferences,
    QueryStore,
    connect_elastic,
)
from sidelight.logger import Document, Documents
from sidelight.service._settings import Settings
from sidelight.service.errors import ConfigurationError

_COLLECTION: Final = "store"
_KEY: Final = "answers"


def open_query_store(settings: Settings, documents: EmbeddedDocuments) -> QueryStore:
    """Return the store; of a search server nothing is asked yet.

    Raises
    ------
    MissingExtraError
        When the package of the client is not installed.
    ConfigurationError
        When a secret is not where it should be.

    """
    chosen = settings.store.elasticsearch
    if settings.store.answers == "lake" or chosen is None:
        return Inferences(settings.data, documents)
    # Who has no search server does not wait for what it needs.
    from sidelight.service._indexing import connection_of  # noqa: PLC0415

    return ElasticInferences(connect_elastic(connection_of(chosen)), prefix=chosen.index_prefix)


def note_store(settings: Settings, documents: Documents) -> None:
    """Write down where the rows of a data folder are, for who has the folder and no settings."""
    value = {
        "lake": bool(settings.store.lake),
        "search": settings.store.elasticsearch is not None,
    }
    if documents.get(_COLLECTION, _KEY) != value:
        documents.put([Document(collection=_COLLECTION, key=_KEY, value=value)])


def refuse_without_search(settings: Settings, documents: Documents) -> None:
    """Raise ``ConfigurationError`` when a search server has rows too, and is not configured."""
    value: Mapping[str, Any] = documents.get(_COLLECTION, _KEY) or {}
    has_search = value.get("search", not value.get("lake", True))
    if has_search and settings.store.elasticsearch is None:
        raise ConfigurationError(
            "a search server has rows of this folder, too, and nobody says which",
            hint="give the service's own configuration with --config",
        )


def refuse_without_lake(documents: Documents) -> None:
    """Raise ``ConfigurationError`` when the folder's rows are in a search server alone."""
    value: Mapping[str, Any] = documents.get(_COLLECTION, _KEY) or {}
    if not value.get("lake", True):
        raise ConfigurationError(
            "the rows of this folder are in a search server, not in its lake",
            hint="say which with --config, or ask the service with --url",
        )
