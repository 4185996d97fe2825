"""Reads what ``sidelight proxy`` is to do: options win over the environment, that over the file."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sidelight.service._proxy_settings import ProxyFile, ProxySettings
from sidelight.service._settings import read_settings
from sidelight.service._settings_file import read_file
from sidelight.service.errors import ConfigurationError

_OPTIONS: Final = {
    "upstream": "--upstream",
    "sink": "--sink",
    "sink_mode": "--sink-mode",
    "listen": "--listen",
    "admin": "--admin",
    "admin_token_from": "--admin-token",
    "deployment": "--deployment",
    "spool": "--spool",
    "request_ids": "--request-ids",
    "grpc.upstream": "--grpc-upstream",
    "grpc.listen": "--grpc-listen",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyConfiguration:
    """Where the settings of the proxy come from.

    Parameters
    ----------
    file : Path, optional
        YAML file with the section ``proxy``.
    options : mapping
        What the command line says, by the key of the file (``grpc.upstream`` for a key in a
        section); it wins. None is what was not said.

    """

    file: Path | None
    options: Mapping[str, str | None]

    def read(self) -> ProxySettings:
        """Read and check everything.

        Raises
        ------
        ConfigurationError
            With one line for each wrong option or key: its name, what was expected, what was got.

        """
        content = {} if self.file is None else read_file(self.file)
        if content.get("proxy", self) is None:  # the section is there, and empty
            del content["proxy"]
        given = {key: value for key, value in self.options.items() if value is not None}
        try:
            settings = read_settings(ProxyFile, content, {"proxy": _nested(given)}).proxy
        except ConfigurationError as error:
            raise ConfigurationError(_renamed(str(error), given)) from error
        if settings.upstream is None and settings.grpc is None:
            raise ConfigurationError(
                "--upstream: expected the model server, as http://127.0.0.1:8080, got none; give "
                "the option, --grpc-upstream, or proxy.upstream in the file"
            )
        if not settings.all_sinks:
            raise ConfigurationError(
                "--sink: expected where events go, as http://collector:8090/, got nothing; give "
                "the option, or proxy.sinks in the file"
            )
        return settings


def _nested(given: Mapping[str, str]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for key, value in given.items():
        section, _, name = key.rpartition(".")
        place = options.setdefault(section, {}) if section else options
        place[name] = value
    if "sink" in options:
        # The option takes the place of all sinks of the file.
        options["sinks"] = ()
    return options


def _renamed(text: str, given: Mapping[str, str]) -> str:
    """Name a wrong value as its giver knows it."""
    lines = text.splitlines()
    for key in given:
        prefix = f"proxy.{key}: "
        lines = [
            f"{_OPTIONS[key]}: {line.removeprefix(prefix)}" if line.startswith(prefix) else line
            for line in lines
        ]
    return "\n".join(lines)
