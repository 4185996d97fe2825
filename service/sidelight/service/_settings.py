"""The configuration: one YAML file, environment variables over it, options over both."""

import difflib
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TypeVar

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from sidelight.service._quantities import Duration, Size
from sidelight.service._settings_elasticsearch import ElasticsearchSettings
from sidelight.service._settings_erasure import ErasureSettings
from sidelight.service._settings_s3 import LakePlace, S3Settings, with_bucket
from sidelight.service.errors import ConfigurationError

# Imported where a deployment is configured: everything waits for the supervisor's settings, and
# these bring Arrow with them.
if TYPE_CHECKING:
    from sidelight.payloads import Schema

_Settings = TypeVar("_Settings", bound="Settings")

# A path that was made of an address has lost one of its slashes, or both.
_ADDRESS: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:(/|$)")

# What stands under these may be a secret, there by mistake or not: it is never shown.
_CONFIDENTIAL: Final = frozenset(
    {
        *("headers", "headers_from", "config", "config_from", "key_file", "key_env"),
        *("access_key_from", "secret_key_from", "session_token_from", "admin_token_from"),
        *("password_from", "api_key_from"),
    }
)
_CREDENTIALS: Final = re.compile(r"//\S*@")

STRICT = ConfigDict(
    extra="forbid", frozen=True, use_attribute_docstrings=True, arbitrary_types_allowed=True
)


class ListenTlsSettings(BaseModel):
    """The certificate of ``serve``."""

    model_config = STRICT

    certificate: Path
    """PEM file with the certificate and what it is signed with."""

    key: Path
    """PEM file with its private key, without a passphrase."""

    clients: Path | None = None
    """PEM file with authorities; callers must then have a certificate that one of them signed."""


class ListenSettings(BaseModel):
    """Where ``serve`` answers."""

    model_config = STRICT

    host: str = "127.0.0.1"
    """Address; any other than loopback requires tokens."""

    port: int = Field(default=8090, ge=0, le=65535)
    """TCP port; 0 takes a free one."""

    tls: ListenTlsSettings | None = None
    """HTTPS instead of HTTP."""


class AuthSettings(BaseModel):
    """Who may do what; tokens are made with ``sidelight token create``."""

    model_config = STRICT

    required: bool = False
    """Whether tokens are required on a loopback address too; on any other they always are."""

    ingest: Literal["token", "none"] = "token"
    """Whether events are taken from everybody: the loggers of most platforms send no token."""

    metrics: Literal["token", "none"] = "token"
    """Whether everybody may read the metrics."""


class AuditSettings(BaseModel):
    """What makes the archive worth an auditor's trust."""

    model_config = STRICT

    signing_key: Path | None = None
    """PEM file with the Ed25519 key that signs checkpoints; one is made in the data folder else."""

    trusted_keys: tuple[str, ...] = ()
    """Public keys of former signers, in hexadecimal, after the key was changed."""

    raw_retention: Duration | None = Field(default=None, gt=0)
    """How long segments of the archive are kept at least; for ever when absent. They hold several
    deployments, and one goes when the retention of each of them is over as well."""


class QuotaSettings(BaseModel):
    """How much one namespace may send to the door; more is answered with 429."""

    model_config = STRICT

    events_per_second: float | None = Field(default=None, gt=0)
    """On average; as many may come at once as in ten seconds."""

    bytes_per_second: Size | None = Field(default=None, gt=0)
    """Of payloads and attributes together, counted as they come."""


class ModelSettings(BaseModel):
    """The live endpoint that explanations call."""

    model_config = STRICT

    url: str
    """Base address of the model server, as ``http://127.0.0.1:8080``."""

    name: str
    """Model name in the server's paths."""

    protocol: Literal["v1", "v2"] = "v2"
    """Inference protocol of the server."""

    versions: dict[str, str] = {}
    """Base address by model version, for versions that do not stand behind ``url``."""

    @field_validator("url")
    @classmethod
    def _is_http(cls, value: str) -> str:
        if not value.startswith(("http://", "https://")):
            raise ValueError("expected an address that begins with http:// or https://")
        return value.rstrip("/")


class ReferenceSettings(BaseModel):
    """The rows that a deployment's detectors and explainers are calibrated on."""

    model_config = STRICT

    first_rows: int = Field(default=1000, ge=50)
    """Rows of traffic that become the reference when no file is given, at least 50."""

    file: Path | None = None
    """Parquet file; columns ``features.<name>`` and ``outputs.<name>``, or bare feature names."""


class DetectionSettings(BaseModel):
    """How a deployment is watched."""

    model_config = STRICT

    enabled: bool = True
    """Whether detectors run at all."""

    false_alarm_probability: float = Field(default=0.01, gt=0, le=0.5)
    """Probability that a deployment without change ever raises an alarm on one reference."""

    # Looks are 250 rows apart, and a window holds whole ones: what detectors refuse is said here,
    # where the wrong key can be named, and not first in the consumer's log.
    window_rows: int = Field(default=1000, ge=250, multiple_of=250)
    """Rows over which effect sizes are measured, a multiple of 250."""

    drift_threshold: float = Field(default=0.1, gt=0, le=1)
    """Effect size from which a change is worth an alarm."""

    outlier_p_value: float = Field(default=0.01, gt=0, le=0.5)
    """Rows whose conformal p-value is at most this count as outliers."""


class DeploymentSettings(BaseModel):
    """One deployment; the same keys in the file and through the API."""

    model_config = STRICT

    name: str
    """``namespace/name``; the first segment is the namespace."""

    model: ModelSettings | None = None
    """Where explanations call the live model."""

    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    """Names, kinds and roles of the columns, or ``mlflow: PATH``; inferred from traffic else."""

    reference: ReferenceSettings = ReferenceSettings()
    """What counts as normal."""

    detection: DetectionSettings = DetectionSettings()
    """How changes are found."""

    retention: Duration | None = Field(default=None, gt=0)
    """How long inferences and what came of them are kept; as ``retention`` of all when absent."""

    @field_validator("name")
    @classmethod
    def _has_namespace(cls, value: str) -> str:
        namespace, slash, name = value.partition("/")
        if not (namespace and slash and name):
            raise ValueError("expected namespace/name")
        from sidelight.service._names import stored_name  # noqa: PLC0415 - see above

        return stored_name(value)

    @field_validator("schema_")
    @classmethod
    def _is_schema(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        if value is None:
            return None
        schema = _read_schema(value)
        # What an MLflow model says is kept, not where it stood: the file may change or go.
        return schema.to_json() if "mlflow" in value else value

    @property
    def schema(self) -> "Schema | None":  # type: ignore[override]  # hides BaseModel's deprecated method
        """The registered schema."""
        return None if self.schema_ is None else _read_schema(self.schema_)


def _read_schema(value: dict[str, Any]) -> "Schema":
    from sidelight.service._settings_schema import read_schema  # noqa: PLC0415 - see above

    return read_schema(value)


class PairingSettings(BaseModel):
    """How the halves of an inference meet."""

    model_config = STRICT

    orphan_after: Duration = 60.0
    """A half that stays alone this long is stored as an orphan."""


class StoreSettings(BaseModel):
    """Where inferences are kept for queries."""

    model_config = STRICT

    lake: LakePlace = True
    """Parquet files under the data folder, or in a bucket, ``s3://BUCKET[/PREFIX]``; without them a
    search server must have the rows."""

    s3: S3Settings | None = None
    """How the bucket of the lake is reached."""

    archive: bool = False
    """Whether sealed segments of the archive are copied into the bucket of the lake, too."""

    local_copies: Size = 10 << 30
    """Room for local copies of files of the lake that are in the bucket, in bytes."""

    elasticsearch: ElasticsearchSettings | None = None
    """A search server that gets every row as well; none when absent."""

    queries: Literal["lake", "elasticsearch"] | None = None
    """Which of the two answers the API; the lake when absent and there is one."""

    @property
    def answers(self) -> Literal["lake", "elasticsearch"]:
        """Which of the two answers."""
        return self.queries or ("lake" if self.lake else "elasticsearch")

    @model_validator(mode="after")
    def _is_somewhere(self) -> Self:
        if self.elasticsearch is None and self.answers == "elasticsearch":
            raise ValueError("expected elasticsearch beside this, got no search server")
        if self.answers == "lake" and not self.lake:
            raise ValueError("expected queries: elasticsearch where lake is false, got lake")
        if not isinstance(self.lake, str) and (self.s3 is not None or self.archive):
            raise ValueError("expected lake: s3://BUCKET/PREFIX beside s3 and archive, got none")
        return self


class LimitSettings(BaseModel):
    """Bounds on what is accepted."""

    model_config = STRICT

    body: Size = 16 << 20
    """Largest body of one request to the door, in bytes; larger ones are refused with 413."""

    bytes_in_flight: Size = 64 << 20
    """Bytes that wait for the disk at the door; above it the door answers 503."""

    decompressed: Size = 64 << 20
    """Largest payload after decompression, in bytes; larger ones are stored opaque."""

    disk_free: Size = 64 << 20
    """Free bytes under the data folder below which the door answers 503."""


class ExplanationSettings(BaseModel):
    """How much a live model may be asked for explanations, all of them together."""

    model_config = STRICT

    calls_in_flight: PositiveInt = 4
    """Requests to a model at one time."""

    rows_per_second: PositiveInt = 200_000
    """Rows sent to a model in a second."""

    call_bytes: Size = 1 << 20
    """Largest request to a model, in bytes."""

    background_rows: PositiveInt = 100
    """Rows of the reference that explanations compare with."""

    deadline: Duration = 30.0
    """Time an explanation has when the request names none."""


class Settings(BaseSettings):
    """Everything that ``sidelight serve`` reads, once, at start."""

    model_config = SettingsConfigDict(
        env_prefix="SIDELIGHT_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
    )

    data: Path = Path("./sidelight-data")
    """Folder of the embedded engine: journal, lake, state. With ``s3://BUCKET[/PREFIX]`` the lake
    and the sealed segments of the archive go there, and the folder is ``local_data``."""

    local_data: Path = Path("./sidelight-data")
    """Folder of journal and state where ``data`` is a bucket."""

    listen: ListenSettings = ListenSettings()
    """Where ``serve`` answers."""

    auth: AuthSettings = AuthSettings()
    """Who may do what."""

    audit: AuditSettings = AuditSettings()
    """How the archive is signed and kept."""

    erasure: ErasureSettings | None = None
    """Which events are stored so that they can be erased; none when absent."""

    quotas: dict[str, QuotaSettings] = {}
    """How much a namespace may send, by its name; ``*`` stands for each that is not named."""

    deployments: tuple[DeploymentSettings, ...] = ()
    """Deployments that need more than what traffic tells."""

    retention: Duration | None = Field(default=None, gt=0)
    """How long inferences are kept of deployments that say nothing else; for ever when absent."""

    pairing: PairingSettings = PairingSettings()
    """How the halves of an inference meet."""

    store: StoreSettings = StoreSettings()
    """Where inferences are kept for queries."""

    limits: LimitSettings = LimitSettings()
    """Bounds on what is accepted."""

    explanations: ExplanationSettings = ExplanationSettings()
    """Bounds on calls to live models."""

    proxy: object = None
    """The section of ``sidelight proxy``; ``serve`` checks it and uses nothing of it."""

    @field_validator("data", "local_data", mode="before")
    @classmethod
    def _is_a_folder(cls, value: Any) -> Any:
        """Refuse the address of anything but a bucket, which would be the name of a folder."""
        if _ADDRESS.match(str(value)):
            raise ValueError("expected a folder, or s3://BUCKET[/PREFIX]")
        return value

    @field_validator("deployments")
    @classmethod
    def _is_named_once(
        cls, value: tuple[DeploymentSettings, ...]
    ) -> tuple[DeploymentSettings, ...]:
        counts = Counter(item.name for item in value)
        if twice := sorted(name for name, count in counts.items() if count > 1):
            raise ValueError(f"expected each name once, got {', '.join(twice)} several times")
        return value

    @model_validator(mode="before")
    @classmethod
    def _split_bucket(cls, values: Any) -> Any:
        """Take ``data: s3://...`` apart into a folder and the bucket of the lake."""
        if isinstance(values, dict):
            return with_bucket(values)
        return values

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - not a source of ours
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - not a source of ours
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Options win over the environment, the environment over the file."""
        content = getattr(init_settings, "init_kwargs", {}).pop("_file", {})
        return init_settings, env_settings, _FileSource(settings_cls, content)


class _Loader(yaml.SafeLoader):
    """Reads true and false as YAML 1.2 does: ``on``, ``off``, ``yes`` and ``no`` are texts."""


# The key `on` of a rule, or a category `no`, would otherwise become a truth.
_BOOLEAN = "tag:yaml.org,2002:bool"
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != _BOOLEAN]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    _BOOLEAN, re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)


class _FileSource(PydanticBaseSettingsSource):
    def __init__(self, settings_cls: type[BaseSettings], content: dict[str, Any]) -> None:
        super().__init__(settings_cls)
        self._content = content

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002
        return self._content.get(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        return self._content


def load_settings(config: Path | None, options: Mapping[str, Any]) -> Settings:
    """Read the configuration.

    Parameters
    ----------
    config : Path or None
        YAML file; None for none.
    options : mapping
        What the command line says, nested as the file; it wins.

    Raises
    ------
    ConfigurationError
        With one line for each wrong key: its path, what was expected, what was got.

    """
    content = {} if config is None else read_file(config)
    if (proxy := content.pop("proxy", None)) is not None:
        # What only a sidecar reads takes no time from the start of those who have none.
        from sidelight.service._proxy_settings import ProxyFile  # noqa: PLC0415

        read_settings(ProxyFile, {"proxy": proxy}, {})
    return read_settings(Settings, content, options)


def read_settings(
    model: type[_Settings], content: Mapping[str, Any], options: Mapping[str, Any]
) -> _Settings:
    """Check what a file and the command line say, and the environment; see ``load_settings``."""
    try:
        # The file travels with the options and is taken out again where the sources are ordered.
        return model(**{"_file": content, **options})
    except ValidationError as error:
        raise ConfigurationError(explain(error, model)) from error
    except ValueError as error:  # of the sources; their own class is not public everywhere
        raise ConfigurationError(f"environment: {error}; expected JSON there") from error


def read_deployment(name: str, value: Mapping[str, Any]) -> DeploymentSettings:
    """Read one deployment as the API puts it; raise ``ConfigurationError`` with the paths."""
    try:
        return DeploymentSettings.model_validate({**value, "name": name})
    except ValidationError as error:
        raise ConfigurationError(explain(error, DeploymentSettings)) from error


def read_file(path: Path) -> dict[str, Any]:
    """Read a file of configuration; raise ``ConfigurationError`` when it is none."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506 - a safe one
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path}: is no text in UTF-8: {error.reason}") from error
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{path}: is no YAML: {error}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigurationError(f"{path}: expected keys and values, got {type(content).__name__}")
    return content


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """Put each wrong key on a line of its own: path, what was expected, what was got."""
    return "\n".join(_line(item, model) for item in error.errors(include_url=False))


def _line(item: Any, model: type[BaseModel]) -> str:
    path = "".join(map(_step, item["loc"])).removeprefix(".")
    if item["type"] == "extra_forbidden":
        keys = _keys(model, item["loc"][:-1])
        near = difflib.get_close_matches(str(item["loc"][-1]), keys, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known keys: {', '.join(keys)}"
        return f"{path}: unknown key; {hint}"
    message = item["msg"].removeprefix("Value error, ")
    got = "" if item["type"] == "missing" or "got" in message else _got(item)
    return f"{path}: {_CREDENTIALS.sub('//...@', message)}{got}"


def _step(part: str | int) -> str:
    if isinstance(part, int):
        return f"[{part}]"
    return f".{part}" if part.isprintable() else f".{part!r}"


def _got(item: Any) -> str:
    value = item["input"]
    if not _CONFIDENTIAL.isdisjoint(item["loc"]):
        return ""
    if not isinstance(value, str | int | float):
        # A whole section may hold something that is not to be shown.
        return f", got {type(value).__name__}"
    return f", got {_CREDENTIALS.sub('//...@', repr(value))}"


def _keys(model: type[BaseModel], location: tuple[str | int, ...]) -> list[str]:
    for part in location:
        # A number counts a list, and the key of a mapping is a name that somebody chose.
        if isinstance(part, str) and part in model.model_fields:
            model = _inner(model.model_fields[part].annotation)
    return sorted(field.alias or name for name, field in model.model_fields.items())


def _inner(annotation: Any) -> type[BaseModel]:
    for candidate in (annotation, *getattr(annotation, "__args__", ())):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return BaseModel
