"""One deployment, as the file and the API configure it with the same keys."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, ValidationError, field_validator

from sidelight.service._quantities import Duration
from sidelight.service._settings_errors import explain
from sidelight.service._settings_section import Section
from sidelight.service.errors import ConfigurationError

# Imported where a deployment is configured: everything waits for the supervisor's settings, and
# these bring Arrow with them.
if TYPE_CHECKING:
    from sidelight.payloads import Schema


class ModelSettings(Section):
    """The live endpoint that explanations call."""

    url: str
    """Base address of the model server, as ``http://127.0.0.1:8080``."""

    name: str
    """Model name in the server's paths."""

    protocol: Literal["v1", "v2"] = "v2"
    """Inference protocol of the server."""

    versions: dict[str, str] = Field(default={})
    """Base address by model version, for versions that do not stand behind ``url``."""

    @field_validator("url")
    @classmethod
    def _is_http(cls, value: str) -> str:
        if not value.startswith(("http://", "https://")):
            raise ValueError("expected an address that begins with http:// or https://")
        return value.rstrip("/")


class ReferenceSettings(Section):
    """The rows that a deployment's detectors and explainers are calibrated on."""

    first_rows: int = Field(default=1000, ge=50)
    """Rows of traffic that become the reference when no file is given, at least 50."""

    file: Path | None = None
    """Parquet file; columns ``features.<name>`` and ``outputs.<name>``, or bare feature names."""


class DetectionSettings(Section):
    """How a deployment is watched."""

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


class DeploymentSettings(Section):
    """One deployment; the same keys in the file and through the API."""

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


def read_deployment(name: str, value: Mapping[str, Any]) -> DeploymentSettings:
    """Read one deployment as the API puts it; raise ``ConfigurationError`` with the paths."""
    try:
        return DeploymentSettings.model_validate({**value, "name": name})
    except ValidationError as error:
        raise ConfigurationError(explain(error, DeploymentSettings)) from error
