"""What is published is built, installed with nothing but its dependencies, and used."""

import statistics
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.services.conftest import Service

_ROOT = Path(__file__).parents[2]
_PORTIONS = ("adapters", "detectors", "explainers", "logger", "payloads", "service")
# A limit that a slow machine does not reach, nor one that stands still for seconds.
_INSTALL_S = 900.0
_EVENT = {
    "ce-specversion": "1.0",
    "ce-id": "1",
    "ce-source": "/wheel",
    "ce-namespace": "prod",
    "ce-inferenceservicename": "sums",
    "content-type": "application/json",
}
_TYPE = "org.kubeflow.serving.inference."


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """What was built, and the folder of the programs of where it is installed."""

    wheel: Path
    sdist: Path
    programs: Path


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Build the sdist, from it the wheel, and install that; all away from the source tree."""
    folder = tmp_path_factory.mktemp("built")
    programs = folder / "venv" / "bin"
    _run(sys.executable, "-m", "venv", str(folder / "venv"))
    pip = (str(programs / "python"), "-m", "pip", "--disable-pip-version-check")
    _run(*pip, "install", "--quiet", "--target", str(folder / "tools"), "hatchling")
    build = "import sys; sys.path.insert(0, sys.argv.pop(1)); from hatchling.cli import hatchling; "
    _run(
        *(str(programs / "python"), "-c", f"{build}hatchling()", str(folder / "tools")),
        *("build", "--target", "sdist", "--directory", str(folder)),
    )
    (sdist,) = folder.glob("*.tar.gz")
    _run(*pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(sdist))
    (wheel,) = folder.glob("*.whl")
    _run(*pip, "install", "--quiet", str(wheel))
    return Built(wheel=wheel, sdist=sdist, programs=programs)


def _run(*command: str) -> str:
    done = subprocess.run(
        command, cwd=_ROOT, capture_output=True, text=True, timeout=_INSTALL_S, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_wheel_holds_every_portion_typed_and_nothing_else(built: Built) -> None:
    with zipfile.ZipFile(built.wheel) as wheel:
        names = set(wheel.namelist())

    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"sidelight"}
    assert {name.split("/")[1] for name in names if name.startswith("sidelight/")} == {*_PORTIONS}
    assert {f"sidelight/{portion}/py.typed" for portion in _PORTIONS} <= names
    assert "sidelight/__init__.py" not in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not [name for name in names if name.endswith((".pyc", ".ipynb"))]


def test_the_wheel_holds_every_file_of_the_source(built: Built) -> None:
    with zipfile.ZipFile(built.wheel) as wheel:
        names = set(wheel.namelist())

    expected = {
        str(path.relative_to(_ROOT / portion))
        for portion in _PORTIONS
        for path in (_ROOT / portion / "sidelight").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {name for name in names if name.startswith("sidelight/")} == expected


def test_the_sdist_holds_what_it_takes_to_build_and_to_test(built: Built) -> None:
    with tarfile.open(built.sdist) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}

    assert {"pyproject.toml", "README.md", "LICENSE", "tests/test_packaging.py"} <= names
    assert not [name for name in names if name.startswith((".venv", ".git/"))]


def test_the_command_helps_without_extras(built: Built) -> None:
    command = str(built.programs / "sidelight")
    times_s = []
    for _ in range(5):
        started = time.perf_counter()
        text = _run(command, "--help")
        times_s.append(time.perf_counter() - started)

    print(f"sidelight --help: median {statistics.median(times_s) * 1000:.0f} ms of {times_s}")
    for name in ("serve", "proxy", "query", "verify", "demo"):
        assert name in text


def test_the_demo_says_which_packages_it_needs(built: Built, tmp_path: Path) -> None:
    done = subprocess.run(
        [built.programs / "sidelight", "demo", "--once", "--data", str(tmp_path / "demo")],
        capture_output=True,
        text=True,
        timeout=_INSTALL_S,
        check=False,
    )

    assert done.returncode != 0
    assert "sidelight[demo]" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_installed_service_takes_an_event_in_any_folder(
    built: Built, start_service: "Callable[..., Service]", tmp_path: Path
) -> None:
    # The current folder is the user's: a file there must not be taken for a module.
    (tmp_path / "service").mkdir()
    for name in ("queue", "uvloop", "orjson"):
        (tmp_path / "service" / f"{name}.py").write_text("raise SystemExit('not this one')\n")

    service = start_service(program=(str(built.programs / "sidelight"),))

    for side, body in (
        ("response", b'{"predictions": [3]}'),
        ("request", b'{"instances": [[1, 2]]}'),
    ):
        assert service.post(body, {**_EVENT, "ce-type": _TYPE + side}).status_code == 200
    assert service.wait_stored(1)[0]["orphan"] is None
    assert service.stop() == 0
    data = str(service.data)
    assert _run(str(built.programs / "sidelight"), "verify", "--data", data).startswith("intact: 2")
