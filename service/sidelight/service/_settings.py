"""The configuration: one YAML file, environment variables over it, options over both."""

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import Field, PositiveInt, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from sidelight.service._quantities import Duration, Size
from sidelight.service._settings_access import (
    AuditSettings,
    AuthSettings,
    ListenSettings,
    QuotaSettings,
)
from sidelight.service._settings_deployment import DeploymentSettings
from sidelight.service._settings_erasure import ErasureSettings
from sidelight.service._settings_errors import explain
from sidelight.service._settings_file import FileSource, read_file
from sidelight.service._settings_s3 import with_bucket
from sidelight.service._settings_section import Section
from sidelight.service._settings_store import StoreSettings
from sidelight.service.errors import ConfigurationError

_Settings = TypeVar("_Settings", bound="Settings")

# A path that was made of an address has lost one of its slashes, or both.
_ADDRESS: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:(/|$)")


class PairingSettings(Section):
    """How the halves of an inference meet."""

    orphan_after: Duration = 60.0
    """A half that stays alone this long is stored as an orphan."""


class LimitSettings(Section):
    """Bounds on what is accepted."""

    body: Size = 16 << 20
    """Largest body of one request to the door, in bytes; larger ones are refused with 413."""

    bytes_in_flight: Size = 64 << 20
    """Bytes that wait for the disk at the door; above it the door answers 503."""

    decompressed: Size = 64 << 20
    """Largest payload after decompression, in bytes; larger ones are stored opaque."""

    disk_free: Size = 64 << 20
    """Free bytes under the data folder below which the door answers 503."""


class ExplanationSettings(Section):
    """How much a live model may be asked for explanations, all of them together."""

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
        return init_settings, env_settings, FileSource(settings_cls, content)


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
