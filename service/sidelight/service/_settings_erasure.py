"""Which deployments may be asked to forget a person, and what their events are sealed with."""

from pathlib import Path
from typing import Self

from pydantic import Field, field_validator, model_validator

from sidelight.service._settings_section import Section


class ErasureSettings(Section):
    """Events that are stored encrypted, each with a key of its own that can be destroyed."""

    deployments: tuple[str, ...] = Field(min_length=1)
    """``namespace/name`` of the deployments, ``namespace/*``, or ``*`` for all."""

    key_file: Path | None = None
    """File with the key that wraps all others, 64 hexadecimal digits; made in the data folder when
    neither it nor ``key_env`` is named."""

    key_env: str | None = Field(default=None, repr=False)
    """Environment variable that holds that key instead of a file."""

    headers: tuple[str, ...] | None = None
    """Headers that stay readable: type, time, names and version of the model when absent."""

    @field_validator("deployments")
    @classmethod
    def _are_names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        from sidelight.service._names import stored_name  # noqa: PLC0415 - needs Arrow

        for name in value:
            namespace, slash, rest = name.partition("/")
            if name != "*" and not (namespace and slash and rest):
                raise ValueError(f"expected namespace/name, namespace/* or *, got {name!r}")
        return tuple(name if name.endswith("*") else stored_name(name) for name in value)

    @field_validator("headers")
    @classmethod
    def _are_lower(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return None if value is None else tuple(name.strip().lower() for name in value)

    @model_validator(mode="after")
    def _one_key(self) -> Self:
        if self.key_file is not None and self.key_env is not None:
            raise ValueError("expected one of key_file and key_env, got both")
        return self
