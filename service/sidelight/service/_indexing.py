"""The indexing stage as it is configured."""

import math
from pathlib import Path
from typing import Any

import orjson

from sidelight.adapters import (
    ElasticConnection,
    ElasticExpiry,
    ElasticSearch,
    ElasticStore,
    IndexOptions,
    PredictionSchema,
    ScoreReader,
    SeldonOptions,
    connect_elastic,
)
from sidelight.logger import Documents, Journals
from sidelight.service._indexing_work import Troubles
from sidelight.service._proxy_secrets import read_secret
from sidelight.service._search_upkeep import SearchRetention
from sidelight.service._settings import Settings
from sidelight.service._settings_elasticsearch import (
    ElasticsearchSettings,
    SeldonLayoutSettings,
)
from sidelight.service._stage_indexing import IndexingStage
from sidelight.service.errors import ConfigurationError


def open_indexing(
    settings: ElasticsearchSettings, service: Settings, journals: Journals, documents: Documents
) -> IndexingStage:
    """Return the stage; nothing is asked of the server yet.

    Parameters
    ----------
    settings : ElasticsearchSettings
        Of the server.
    service : Settings
        The data folder, the retention, and which store answers.

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
        max_days=settings.max_days,
        keeps_long=service.store.answers == "elasticsearch",
    )
    troubles = Troubles()
    store = ElasticStore(
        connect_elastic(connection),
        flavour=settings.flavour,
        options=options,
        on_trouble=troubles.add,
        connections=settings.connections,
        seldon=None if settings.seldon is None else _seldon(settings.seldon),
    )
    # A client of its own: the stage's gives up with the stage, and this one asks once.
    expiry = ElasticExpiry(ElasticSearch(connect_elastic(connection), settings.index_prefix))
    return IndexingStage(
        journals,
        documents,
        ScoreReader(service.data, documents),
        store,
        troubles,
        SearchRetention(documents, service, expiry),
    )


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


def _seldon(settings: SeldonLayoutSettings) -> SeldonOptions:
    schemas = {name: _schema(path) for name, path in settings.prediction_schemas.items()}
    return SeldonOptions(environment=settings.environment, schemas=schemas)


def _schema(path: Path) -> PredictionSchema:
    try:
        value: Any = orjson.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path}: expected a prediction schema, got {error}") from error
    sides = [value.get(side) for side in ("requests", "responses")] if type(value) is dict else []
    if not sides or not all(
        isinstance(side, list) and all(isinstance(column, dict) for column in side)
        for side in sides
    ):
        raise ConfigurationError(f"{path}: expected lists requests and responses of objects")
    schema: PredictionSchema = value
    return schema


def _secret(key: str, place: str | None) -> str | None:
    return None if place is None else read_secret(f"store.elasticsearch.{key}", place)
