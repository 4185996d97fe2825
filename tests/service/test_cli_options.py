"""Which data folder a command works on."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from sidelight.logger._segments import SegmentWriter
from sidelight.service._cli import app


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(("token", "create", "--role", "read"), id="token"),
        pytest.param(("hold", "add", "--deployment", "a/b", "--reason", "r"), id="hold"),
        pytest.param(("verify",), id="verify"),
        pytest.param(("query",), id="query"),
    ],
)
def test_the_environment_names_the_data_folder_of_every_command(
    folder: Any, command: tuple[str, ...]
) -> None:
    done = CliRunner().invoke(app, [*command], env={"SIDELIGHT_DATA": str(folder.data)})

    assert done.exit_code == 0, done.output


def test_an_erasure_is_done_on_the_folder_of_the_configuration(tmp_path: Path) -> None:
    SegmentWriter(tmp_path / "data").close()
    config = tmp_path / "sidelight.yaml"
    config.write_text(json.dumps({"data": str(tmp_path / "data")}))
    command = ["erase", "--deployment", "a/b", "--reason", "r", "--id", "x", "--dry-run"]

    found = CliRunner().invoke(app, [*command, "--config", str(config)])
    nowhere = CliRunner().invoke(app, [*command, "--data", str(tmp_path / "none")])

    assert found.exit_code == 0, found.output
    assert json.loads(found.stdout)["state"] == "found"
    assert nowhere.exit_code == 2
    assert "none" in nowhere.stderr


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(("token", "list"), id="token-list"),
        pytest.param(("token", "revoke", "x"), id="token-revoke"),
        pytest.param(("hold", "list"), id="hold-list"),
        pytest.param(("query",), id="query"),
        pytest.param(("export",), id="export"),
        pytest.param(("erase", "--deployment", "a/b", "--reason", "r", "--id", "x"), id="erase"),
    ],
)
def test_a_place_without_a_data_folder_is_refused_and_left_as_it_is(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    done = CliRunner().invoke(app, [*command, "--data", str(tmp_path / "none")])

    assert done.exit_code == 2
    assert "expected a data folder" in done.stderr
    assert "SIDELIGHT_DATA" in done.stderr
    assert not (tmp_path / "none").exists()
