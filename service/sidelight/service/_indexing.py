"""The indexing stage as it is configured."""

import math
from pathlib import Path

from sidelight.adapters import (
    ElasticConnection,
    ElasticStore,
    IndexOptions,
    ScoreReader,
    connect_elastic,
)
from sidelight.logger import Documents, Journals
from sidelight.service._proxy_secrets import read_secret
from sidelight.service._settings_elasticsearch import ElasticsearchSettings
from sidelight.service._stage_indexing import IndexingStage, Troubles


def open_indexing(
    settings: ElasticsearchSettings,
    data: Path,
    journals: Journals,
    documents: Documents,
    *,
    answers: bool = False,
) -> IndexingStage:
    """Return the stage; nothing is asked of the server yet.

    Parameters
    ----------
    answers : bool, default False
        Whether the server answers the API, so that it needs all of every row.

    Raises
    ------
    MissingExtraError
        When the package of the client is not installed.
    ConfigurationError
        When a secret is not where it should be.

    """
    connection = connection_of(settings)
    days = None if settings.delete_after is None else math.ceil(settings.delete_after / 86_400)
    options = IndexOptions(
        prefix=settings.index_prefix,
        shards=settings.shards,
        replicas=settings.replicas,
        refresh=f"{round(settings.refresh * 1000)}ms",
        max_fields=settings.max_fields,
        delete_after=None if days is None else f"{days}d",
        keeps_long=answers,
    )
    troubles = Troubles()
    store = ElasticStore(
        connect_elastic(connection),
        flavour=settings.flavour,
        options=options,
        on_trouble=troubles.add,
        connections=settings.connections,
    )
    return IndexingStage(journals, documents, ScoreReader(data, documents), store, troubles)


def connection_of(settings: ElasticsearchSettings) -> ElasticConnection:
    """Return where the server is and how it knows us."""
    return ElasticConnection(
        url=settings.url,
        flavour=settings.flavour,
        username=settings.username,
        password=_secret("password_from", settings.password_from),
        api_key=_secret("api_key_from", settings.api_key_from),
        ca=settings.tls.ca,
        verify=settings.tls.verify,
        timeout_s=settings.timeout,
        connections=settings.connections,
    )


def _secret(key: str, place: str | None) -> str | None:
    return None if place is None else read_secret(f"store.elasticsearch.{key}", place)
