"""Settings of the places that events are sent to."""

import re
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, PositiveInt, field_validator, model_validator

from sidelight.service._proxy_address import HttpUrl
from sidelight.service._proxy_secrets import is_telling
from sidelight.service._quantities import Duration, Size
from sidelight.service._settings_s3 import S3Settings
from sidelight.service._settings_section import Section

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class TlsSettings(Section):
    """How the other side of a connection is known, and what it is shown."""

    ca: Path | None = None
    """File of the authorities, PEM; those of the system otherwise."""

    certificate: Path | None = None
    """Our own certificate, PEM, where the other side asks for one."""

    key: Path | None = None
    """Its key, PEM; in the file of the certificate otherwise."""

    server_name: str | None = None
    """Name that the other side's certificate is for, where it is not the host of the address."""

    verify: bool = True
    """Whether the other side's certificate is checked at all."""


class HttpSinkSettings(Section):
    """A receiver of CloudEvents over HTTP."""

    url: HttpUrl
    """Address, as ``http://collector:8090/``."""

    mode: Literal["batch", "binary"] = "batch"
    """``batch`` for ``sidelight serve``, ``binary`` for a Knative broker."""

    timeout: Duration = Field(default=10.0, gt=0)
    """For a connection and for each answer."""

    headers: dict[str, str] = Field(default={}, repr=False)
    """Headers of every request; secrets stand in ``headers_from``."""

    headers_from: dict[str, str] = Field(default={}, repr=False)
    """Headers whose value is in a file, or behind ``env:NAME`` in the environment."""

    tls: TlsSettings | None = None
    """For ``https``."""

    @field_validator("headers", "headers_from")
    @classmethod
    def _are_headers(cls, value: dict[str, str]) -> dict[str, str]:
        for name in value:
            if not _TOKEN.fullmatch(name):
                raise ValueError(f"expected names of headers, got {name!r}")
        return value

    @field_validator("headers")
    @classmethod
    def _are_no_secrets(cls, value: dict[str, str]) -> dict[str, str]:
        for name in filter(is_telling, value):
            raise ValueError(f"expected no secret here, got {name}; name its file in headers_from")
        return value


class KafkaSinkSettings(Section):
    """A topic of Kafka."""

    brokers: tuple[str, ...] = Field(min_length=1)
    """``HOST:PORT``, one or several."""

    topic: str = Field(default="sidelight.events", pattern=r"^[A-Za-z0-9._-]{1,249}$")
    """Where events go."""

    mode: Literal["binary", "structured"] = "binary"
    """Attributes as headers ``ce_*`` and the payload as the value, or everything in the value."""

    key: Literal["deployment", "request"] = "deployment"
    """What keeps its order: a whole deployment, or only the two halves of an inference."""

    timeout: Duration = Field(default=10.0, gt=0)
    """For the acknowledgement of what is sent at once."""

    config: dict[str, str | int | float | bool] = Field(default={}, repr=False)
    """Further settings of librdkafka by their own names; secrets stand in ``config_from``."""

    config_from: dict[str, str] = Field(default={}, repr=False)
    """Settings whose value is in a file, or behind ``env:NAME`` in the environment."""

    @field_validator("brokers", mode="before")
    @classmethod
    def _are_several(cls, value: object) -> object:
        return tuple(value.replace(",", " ").split()) if isinstance(value, str) else value

    @field_validator("config")
    @classmethod
    def _are_no_secrets(
        cls, value: dict[str, str | int | float | bool]
    ) -> dict[str, str | int | float | bool]:
        for name in filter(is_telling, value):
            raise ValueError(f"expected no secret here, got {name}; name its file in config_from")
        return value


class FileSinkSettings(Section):
    """Files in a folder or a bucket."""

    url: str = Field(min_length=1)
    """A folder, or ``s3://BUCKET/PREFIX``."""

    format: Literal["parquet", "jsonl", "jsonl.gz"] = "parquet"
    """Parquet, or events as lines of JSON."""

    timeout: Duration = Field(default=30.0, gt=0)
    """For one delivery."""

    s3: S3Settings | None = None
    """For a bucket."""

    @model_validator(mode="after")
    def _has_its_bucket(self) -> Self:
        if self.s3 is not None and not self.url.startswith("s3://"):
            raise ValueError("expected s3 beside a url s3://BUCKET/PREFIX, got another url")
        if "://" in self.url and not self.url.startswith("s3://"):
            raise ValueError("expected a folder or s3://BUCKET/PREFIX as url, got another scheme")
        return self


class BatchSettings(Section):
    """What is sent at once; what is absent is as the kind of sink needs it."""

    events: PositiveInt | None = None
    """A batch with so many is sent; by default 1024 for http, 2048 for kafka, 20000 for files."""

    bytes: Size | None = Field(default=None, gt=0)
    """A batch of that size is sent; by default 4MiB for http, 4MiB for kafka, 16MiB for files."""

    linger: Duration | None = Field(default=None, gt=0)
    """How long an incomplete one waits for company; by default 50ms, for files 30s."""


class SinkSettings(Section):
    """One place that events are sent to, with its own position, queue and spool."""

    name: str
    """Label of its metrics and folder of its spool: lower-case letters, digits, ``. - _``."""

    http: HttpSinkSettings | None = None
    """CloudEvents over HTTP; exactly one of ``http``, ``kafka`` and ``files``."""

    kafka: KafkaSinkSettings | None = None
    """A topic of Kafka."""

    files: FileSinkSettings | None = None
    """Files in a folder or a bucket."""

    overflow: Literal["spool", "drop_newest", "drop_oldest"] = "spool"
    """What becomes of events that cannot be sent now and have no room in memory."""

    spool_max: Size | None = Field(default=None, gt=0)
    """Bound of its spool; that of ``proxy.spool_max`` when absent."""

    memory: Size = Field(default=64 << 20, gt=0)
    """Bound of its events in memory."""

    batch: BatchSettings = BatchSettings()
    """What is sent at once."""

    @field_validator("name")
    @classmethod
    def _is_name(cls, value: str) -> str:
        if not _NAME.fullmatch(value):
            raise ValueError(
                f"expected up to 63 lower-case letters, digits, '.', '-' or '_', got {value!r}"
            )
        return value

    @model_validator(mode="after")
    def _has_one_kind(self) -> Self:
        kinds = [kind for kind in ("http", "kafka", "files") if getattr(self, kind) is not None]
        if len(kinds) != 1:
            raise ValueError(
                f"expected exactly one of http, kafka, files, got {' and '.join(kinds) or 'none'}"
            )
        return self
