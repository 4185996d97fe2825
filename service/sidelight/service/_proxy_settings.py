"""Settings of ``sidelight proxy``: the section ``proxy:`` of the one configuration file."""

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from sidelight.service._proxy_address import Address, HttpUrl, ListenAddress, UpstreamAddress
from sidelight.service._proxy_settings_redaction import RedactionSettings
from sidelight.service._proxy_settings_sinks import (
    HttpSinkSettings,
    SinkSettings,
    TlsSettings,
)
from sidelight.service._quantities import Duration, Size
from sidelight.service._settings import Settings
from sidelight.service._settings_section import Section

_DEPLOYMENT = re.compile(r"[^/\x00-\x20\x7f]+/[^/\x00-\x20\x7f]+")
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_Pattern = Annotated[str, Field(min_length=1)]
_STATUS = re.compile(r"[1-5]xx|[1-5][0-9][0-9]")
ONLY_SINK = "sink"
"""Name of the sink that the command line gives; its spool is the spool folder itself."""


class GrpcSettings(Section):
    """The model's door for gRPC, beside the one for HTTP."""

    upstream: ListenAddress
    """``HOST:PORT`` or ``unix:PATH`` of the model server."""

    listen: ListenAddress = "0.0.0.0:9083"
    """``HOST:PORT`` or ``unix:PATH`` of the model's door."""

    tls: TlsSettings | None = None
    """For an upstream that speaks TLS."""


class SkipSettings(Section):
    """What is not captured, beside reads, probes and what is marked ``Sidelight-Skip``."""

    paths: tuple[_Pattern, ...] = ()
    """Patterns of paths, as ``/internal/*``."""


class OnlySettings(Section):
    """What is captured at all."""

    paths: tuple[_Pattern, ...] = Field(default=("*",), min_length=1)
    """Patterns of paths, as ``/v2/*``."""


class SamplingRuleSettings(Section):
    """A rate of its own for a part of the traffic; the first rule that fits decides."""

    deployment: _Pattern = "*"
    """``namespace/name``, or a pattern."""

    path: _Pattern = "*"
    """Path, or a pattern."""

    status: tuple[str, ...] = ()
    """Statuses as ``404``, or classes as ``5xx``; any when absent."""

    rate: float = Field(ge=0, le=1)
    """Share that is captured."""

    @field_validator("status", mode="before")
    @classmethod
    def _are_statuses(cls, value: object) -> object:
        texts = [str(item) for item in (value if isinstance(value, list | tuple) else [value])]
        for text in texts:
            if not _STATUS.fullmatch(text):
                raise ValueError(f"expected statuses as 404 or classes as 5xx, got {text!r}")
        return texts


class SamplingKeepSettings(Section):
    """What is captured whatever the rate."""

    errors: bool = False
    """Status 400 or more, and what was ended in its middle."""

    slower_than: Duration | None = Field(default=None, gt=0)
    """Answers that took longer."""

    header: str | None = None
    """Requests that have this header, ``NAME``, or have it with this value, ``NAME: VALUE``."""


class SamplingSettings(Section):
    """Which share of the traffic is captured."""

    rate: float = Field(default=1.0, ge=0, le=1)
    """Share that is captured where no rule fits."""

    key: str = "request_id"
    """What decides: equal keys, equal decisions. ``request_id``, or ``header:NAME``."""

    rules: tuple[SamplingRuleSettings, ...] = ()
    """Rates of their own."""

    keep: SamplingKeepSettings = SamplingKeepSettings()
    """What is captured whatever the rate."""

    @field_validator("key")
    @classmethod
    def _is_key(cls, value: str) -> str:
        kind, _, name = value.partition(":")
        if value != "request_id" and not (kind == "header" and _HEADER.fullmatch(name)):
            raise ValueError(f"expected request_id or header:NAME, got {value!r}")
        return value

    @field_validator("keep", mode="after")
    @classmethod
    def _has_header(cls, value: SamplingKeepSettings) -> SamplingKeepSettings:
        if value.header is not None and not _HEADER.fullmatch(value.header.partition(":")[0]):
            raise ValueError(f"expected header: NAME or NAME: VALUE, got {value.header!r}")
        return value


class ProxySettings(Section):
    """What ``sidelight proxy`` reads."""

    upstream: UpstreamAddress | None = None
    """The model server, ``http(s)://HOST:PORT`` or ``unix:PATH``."""

    tls: TlsSettings | None = None
    """For an upstream that speaks TLS."""

    listen: ListenAddress = "0.0.0.0:9081"
    """``HOST:PORT`` or ``unix:PATH`` of the model's door."""

    # Before the address: that looks at it.
    admin_token_from: str | None = None
    """File with the token that ``/metrics`` asks for, or ``env:NAME``; health never asks."""

    admin: ListenAddress = "127.0.0.1:9082"
    """Address of health and metrics; any other than loopback takes ``admin_token_from``."""

    deployment: str | None = None
    """``namespace/name`` of the events; the model's name in the path when absent."""

    grpc: GrpcSettings | None = None
    """The model's door for gRPC."""

    sink: HttpUrl | None = None
    """Short for one sink: its address of HTTP."""

    sink_mode: Literal["batch", "binary"] = "batch"
    """``batch``, or ``binary`` for a Knative broker; of the short form."""

    sinks: tuple[SinkSettings, ...] = ()
    """Where events go: every event to each."""

    spool: Path = Path("./sidelight-spool")
    """Folder for events that cannot be sent now; each of ``sinks`` has its own in it."""

    spool_max: Size = Field(default=1 << 30, gt=0)
    """Bound of the spool of one sink."""

    grace: Duration = Field(default=10.0, gt=0)
    """Time from SIGTERM to the end."""

    answer_within: Duration | None = Field(default=None, gt=0)
    """How long the model may take to begin its answer before 504; for ever when absent."""

    request_id: bool = True
    """Whether answers to callers that gave no request id tell it in ``X-Request-Id``."""

    request_ids: Literal["trust", "generate"] = "trust"
    """Whether callers' ids are taken, or each call gets a new one, whatever its caller says."""

    only: OnlySettings = OnlySettings()
    """What is captured at all."""

    skip: SkipSettings = SkipSettings()
    """What is not captured."""

    body_limit: Size = Field(default=11 << 20, gt=0)
    """Bytes of one body that are captured; of the rest its length and digest."""

    memory: Size = Field(default=64 << 20, gt=0)
    """Bytes of bodies that are captured of all requests in work together."""

    headers: tuple[str, ...] = ()
    """Request headers that travel in events, as ``headerxtenant``; no others do."""

    response_headers: tuple[str, ...] = ()
    """Headers of answers that travel in events, as ``responseheader...``; no others do."""

    sampling: SamplingSettings = SamplingSettings()
    """Which share of the traffic is captured."""

    redaction: RedactionSettings = RedactionSettings()
    """What is taken out of events."""

    @field_validator("deployment")
    @classmethod
    def _has_namespace(cls, value: str | None) -> str | None:
        if value is not None and not _DEPLOYMENT.fullmatch(value):
            raise ValueError(f"expected NS/NAME, got {value!r}")
        return value

    @field_validator("admin")
    @classmethod
    def _is_guarded(cls, value: str, info: ValidationInfo) -> str:
        if info.data.get("admin_token_from") is None and not Address.read(value).is_loopback:
            raise ValueError(f"expected a loopback address, or admin_token_from, got {value}")
        return value

    @field_validator("headers", "response_headers")
    @classmethod
    def _are_headers(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if not _HEADER.fullmatch(name):
                raise ValueError(f"expected names of headers, got {name!r}")
        return value

    @field_validator("sinks")
    @classmethod
    def _have_names(cls, value: tuple[SinkSettings, ...]) -> tuple[SinkSettings, ...]:
        names = [sink.name for sink in value]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"expected a name of its own for each sink, got {twice[0]} twice")
        return value

    @model_validator(mode="after")
    def _has_one_form(self) -> Self:
        if self.sink is not None and self.sinks:
            raise ValueError("expected one of sink and sinks, got both")
        if self.sinks and "sink_mode" in self.model_fields_set:
            raise ValueError("expected sink_mode beside sink, got it beside sinks")
        if self.tls is not None and not (self.upstream or "").startswith("https:"):
            raise ValueError("expected tls beside an upstream with https, got another one")
        return self

    @property
    def all_sinks(self) -> tuple[SinkSettings, ...]:
        """The sinks, whichever way they are given."""
        if self.sink is None:
            return self.sinks
        http = HttpSinkSettings(url=self.sink, mode=self.sink_mode)
        return (SinkSettings(name=ONLY_SINK, http=http),)

    def spool_of(self, sink: SinkSettings) -> Path:
        """Return the folder of a sink's spool."""
        return self.spool if self.sink is not None else self.spool / sink.name


class ProxyFile(Settings):
    """The whole file as ``sidelight proxy`` reads it."""

    proxy: ProxySettings = ProxySettings()
    """The proxy."""
