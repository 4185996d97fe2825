"""Settings of a search server beside the lake."""

import re
from pathlib import Path
from typing import Final, Literal, Self

from pydantic import Field, PositiveInt, field_validator, model_validator

from sidelight.service._quantities import Duration
from sidelight.service._settings_section import Section

_PREFIX: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,49}")


class ElasticsearchTlsSettings(Section):
    """How the server is known."""

    ca: Path | None = None
    """File of the authorities, PEM; those that the client brings otherwise."""

    verify: bool = True
    """Whether the server's certificate is checked at all."""


class SeldonLayoutSettings(Section):
    """Documents as Seldon's request logger writes them, beside ours."""

    environment: str = Field(default="", pattern=r"[a-z0-9_-]{0,50}")
    """What the logger's ``SELDON_ENVIRONMENT`` was: a part of each index."""

    prediction_schemas: dict[str, Path] = Field(default={})
    """By deployment, a JSON file with ``requests`` and ``responses`` as Seldon's metadata says."""


class ElasticsearchSettings(Section):
    """Elasticsearch or OpenSearch: where it is, how it knows us, how indices are made."""

    url: str
    """Address, as ``https://search:9200``."""

    flavour: Literal["elasticsearch", "opensearch"] = "elasticsearch"
    """Which of the two it is: each refuses the other's client."""

    username: str | None = None
    """Name of a user; the password stands elsewhere."""

    password_from: str | None = Field(default=None, repr=False)
    """File with the password, or ``env:NAME`` for the environment."""

    api_key_from: str | None = Field(default=None, repr=False)
    """File with an encoded API key, or ``env:NAME``; instead of a user."""

    tls: ElasticsearchTlsSettings = ElasticsearchTlsSettings()
    """For ``https``."""

    timeout: Duration = Field(default=30.0, gt=0)
    """For each answer."""

    connections: PositiveInt = Field(default=2, le=32)
    """Bulk requests at one time."""

    index_prefix: str = "sidelight"
    """What the name of every index and template begins with."""

    shards: PositiveInt = 1
    """Primary shards of each index."""

    replicas: int = Field(default=1, ge=0)
    """Replicas of each shard."""

    refresh: Duration = Field(default=0.5, gt=0)
    """When what was written can be found."""

    max_fields: PositiveInt = Field(default=500, le=10_000)
    """Columns of one document that can be searched; the others are kept with it."""

    max_days: PositiveInt = Field(default=400, le=10_000)
    """Daily indices of one deployment; rows of further days share one, those around today not."""

    delete_after: Duration | None = Field(default=None, gt=0)
    """Age at which the lifecycle policy deletes an index; never when absent."""

    seldon: SeldonLayoutSettings | None = None
    """Write the documents of Seldon's request logger, too; none when absent."""

    @field_validator("url")
    @classmethod
    def _is_address(cls, value: str) -> str:
        if not value.startswith(("http://", "https://")):
            raise ValueError("expected an address that begins with http:// or https://")
        if "@" in value:
            raise ValueError("expected no credentials in the address: use username, password_from")
        return value.rstrip("/")

    @field_validator("index_prefix")
    @classmethod
    def _is_prefix(cls, value: str) -> str:
        if not _PREFIX.fullmatch(value):
            raise ValueError("expected small letters, digits, - and _, at most 50, a letter first")
        return value

    @model_validator(mode="after")
    def _is_one_identity(self) -> Self:
        if (self.username is None) != (self.password_from is None):
            raise ValueError("expected username and password_from together, got one of them")
        if self.api_key_from is not None and self.username is not None:
            raise ValueError("expected username or api_key_from, got both")
        if self.api_key_from is not None and self.flavour == "opensearch":
            raise ValueError("expected username and password_from for opensearch, got api_key_from")
        return self
