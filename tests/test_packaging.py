"""The folders are portions of one namespace, and pyproject names each of them everywhere."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PORTIONS = ["payloads", "detectors", "explainers", "logger", "adapters", "service"]


@pytest.fixture(scope="module")
def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.mark.parametrize("folder", PORTIONS)
def test_namespace_root_has_no_init(folder: str) -> None:
    assert not (ROOT / folder / "sidelight" / "__init__.py").exists()


@pytest.mark.parametrize("folder", PORTIONS)
def test_portion_ships_the_typing_marker(folder: str) -> None:
    assert (ROOT / folder / "sidelight" / folder / "py.typed").exists()


def test_every_folder_with_a_portion_is_known() -> None:
    found = {path.parent.name for path in ROOT.glob("*/sidelight") if path.is_dir()}

    assert found - {".venv", "build"} == set(PORTIONS)


def test_pyproject_names_every_portion_wherever_it_names_one(pyproject: dict[str, Any]) -> None:
    tool = pyproject["tool"]
    modules = [f"sidelight.{folder}" for folder in PORTIONS]

    assert tool["hatch"]["build"]["dev-mode-dirs"] == PORTIONS
    assert tool["hatch"]["build"]["targets"]["wheel"]["packages"] == [
        f"{folder}/sidelight" for folder in PORTIONS
    ]
    assert tool["pytest"]["ini_options"]["testpaths"] == ["tests", *PORTIONS]
    assert tool["coverage"]["run"]["source"] == PORTIONS
    assert tool["mypy"]["mypy_path"].split(":") == PORTIONS
    assert tool["mypy"]["files"] == [*PORTIONS, "tests"]
    assert tool["ruff"]["src"] == PORTIONS
    assert list(tool["ruff"]["lint"]["flake8-tidy-imports"]["banned-api"]) == PORTIONS
    assert tool["importlinter"]["root_packages"] == modules


def test_default_install_has_nothing_under_a_business_source_licence(
    pyproject: dict[str, Any],
) -> None:
    project = pyproject["project"]
    default = [*project["dependencies"], *project["optional-dependencies"]["all"]]

    assert not [name for name in default if name.startswith("alibi")]
