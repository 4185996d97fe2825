"""The YAML file of the configuration, and its place among the other sources."""

import re
from pathlib import Path
from typing import Any

import yaml
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from sidelight.service.errors import ConfigurationError


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


class FileSource(PydanticBaseSettingsSource):
    """What a file says, for pydantic-settings to order among the other sources."""

    def __init__(self, settings_cls: type[BaseSettings], content: dict[str, Any]) -> None:
        super().__init__(settings_cls)
        self._content = content

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002
        return self._content.get(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        return self._content


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
