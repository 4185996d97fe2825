"""Options that several commands have, and how each of them refuses."""

import sys
from pathlib import Path
from typing import Annotated, Final, NoReturn

import typer

DATA: Final = Path("./sidelight-data")
"""The data folder where nothing else is said."""

Data = Annotated[Path, typer.Option(help="Data folder.", envvar="SIDELIGHT_DATA")]
DataOrConfigured = Annotated[
    Path | None,
    typer.Option(
        help="Data folder; else that of --config.",
        envvar="SIDELIGHT_DATA",
        show_default=str(DATA),
    ),
]
Config = Annotated[Path | None, typer.Option(help="YAML file; see docs/configuration.md.")]
Url = Annotated[
    str | None, typer.Option(help="Ask a running service instead, as http://HOST:8090.")
]

_USAGE: Final = 2


def existing(data: Path, *, sign: str = "format") -> Path:
    """Return a data folder; end with 2 where there is none, told by something in it."""
    if not (data / sign).exists():
        from sidelight.service.errors import NoDataFolder

        missing = NoDataFolder(data)
        fail(str(missing), missing.hint)
    return data


def fail(message: str, hint: str = "") -> NoReturn:
    """Say what is wrong, and end with 2."""
    sys.stderr.write(f"sidelight: {message}\n" + (f"  {hint}\n" if hint else ""))
    raise typer.Exit(_USAGE)
