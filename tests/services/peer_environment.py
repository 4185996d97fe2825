"""Clients and servers of others, each in an environment of its own that is made once.

Their versions exclude ours and each other's. The files in ``peers`` pin everything, so that no
resolver runs; made with Python 3.11, which all of them support.
"""

import hashlib
import sys
import time
from pathlib import Path

from tests.services.server_process import cached, needed, run

_REQUIREMENTS = Path(__file__).with_name("peers")
_VERSION = (3, 11)

COMPILING = {"PYTHONDONTWRITEBYTECODE": ""}
"""For what runs there: a tenth of the modules is ever imported, and those are compiled once."""


def python_of(peer: str) -> Path:
    """Return the interpreter of ``mlserver`` (with tritonclient), ``mlflow`` or ``kserve``."""
    requirements = _REQUIREMENTS / f"{peer}.txt"
    digest = hashlib.sha256(requirements.read_bytes()).hexdigest()[:12]

    def prepare(folder: Path) -> None:
        started = time.monotonic()
        python = folder / "bin" / "python"
        run(_base(), "-m", "venv", "--without-pip", folder)
        run(
            *(sys.executable, "-m", "pip", "--python", python, "install", "--quiet"),
            *("--disable-pip-version-check", "--no-deps", "--no-compile"),
            *("--requirement", requirements),
        )
        _move_scripts(folder, to=folder.parents[1] / folder.name)
        print(f"the environment of {peer} was made in {time.monotonic() - started:.0f} s")

    return cached(f"peer-{peer}-{digest}", prepare) / "bin" / "python"


def _base() -> str:
    if sys.version_info[:2] == _VERSION:
        return sys.executable
    return needed(f"python{_VERSION[0]}.{_VERSION[1]}")


def _move_scripts(folder: Path, *, to: Path) -> None:
    """Name the interpreter by the path that it gets when the folder is whole."""
    for script in (folder / "bin").iterdir():
        text = script.read_bytes()
        if not script.is_symlink() and str(folder).encode() in text:
            script.write_bytes(text.replace(str(folder).encode(), str(to).encode()))
