"""``sidelight hold``: what it prints, refuses and writes down."""

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from sidelight.adapters import EmbeddedDocuments
from sidelight.logger import Document
from sidelight.service._access_log_check import verify_access_log
from sidelight.service._cli import app
from sidelight.service._holds import Holds


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "format").write_text("3\n")
    return tmp_path


def _hold(data: Path, *arguments: str) -> Any:
    return CliRunner().invoke(app, ["hold", *arguments, "--data", str(data)])


def _lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_hold_is_added_listed_and_released(data: Path) -> None:
    span = ["--from", "2026-01-01", "--to", "2026-02-01T00:00:00Z"]
    added = _hold(data, "add", "--deployment", "prod/a b", "--reason", "case 17", *span)
    assert added.exit_code == 0, added.output
    (hold,) = _lines(added.stdout)
    assert (hold["deployment"], hold["reason"]) == ("prod/a%20b", "case 17")
    assert hold["from"] == "2026-01-01T00:00:00.000000Z"

    assert _lines(_hold(data, "list").stdout) == [hold]
    released = _hold(data, "release", hold["id"], "--reason", "closed")
    assert released.exit_code == 0, released.output
    assert _lines(_hold(data, "list").stdout) == []
    assert _lines(_hold(data, "list", "--released").stdout)[0]["release_reason"] == "closed"


def test_a_hold_of_a_name_that_nothing_is_stored_of_is_kept_and_doubted(data: Path) -> None:
    with closing(EmbeddedDocuments(data)) as documents:
        documents.put([Document(collection="deployments", key="prod/a", value={})])
    known, unknown = (
        _hold(data, "add", "--deployment", name, "--reason", "x") for name in ("prod/a", "prod/b")
    )

    assert (known.exit_code, known.stderr) == (0, "")
    assert (unknown.exit_code, len(_lines(unknown.stdout))) == (0, 1)
    assert unknown.stderr.startswith("sidelight: nothing of prod/b is stored here yet")
    (data / "state.db").write_bytes(b"no database")
    unreadable = _hold(data, "add", "--deployment", "prod/c", "--reason", "x")
    assert (unreadable.exit_code, unreadable.stderr) == (0, "")


def test_holds_are_written_down_in_the_access_log(data: Path) -> None:
    _hold(data, "add", "--deployment", "prod/a", "--reason", "case 17")
    _hold(data, "release", "hold-0", "--reason", "closed")

    (log,) = (data / "access").glob("log-*.jsonl")
    entries = _lines(log.read_text())
    assert [entry["command"] for entry in entries] == ["hold add", "hold release"]
    assert entries[0]["parameters"] == {"deployment": "prod/a"}
    assert [entry["reason"] for entry in entries] == ["case 17", "closed"]
    assert verify_access_log(data).findings == ()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["add", "--deployment", "prod", "--reason", "x"], "expected namespace/name"),
        (["add", "--deployment", "prod/*", "--reason", "x"], "the name of one deployment"),
        (["add", "--deployment", "a/b", "--reason", "x", "--from", "soon"], "--from"),
        (
            ["add", "--deployment", "a/b", "--reason", "x", "--from", "2026", "--to", "2025"],
            "--from",
        ),
        (
            [
                *("add", "--deployment", "a/b", "--reason", "x"),
                *("--from", "2026-01-02", "--to", "2026-01-02"),
            ],
            "later time",
        ),
        (["release", "hold-0", "--reason", "x"], "no active hold hold-0"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_held(
    data: Path, arguments: list[str], says: str
) -> None:
    done = _hold(data, *arguments)

    assert done.exit_code == 2
    assert says in done.stderr
    assert Holds(data).list() == ()


def test_a_folder_that_is_none_is_a_wrong_path(tmp_path: Path) -> None:
    done = _hold(tmp_path / "no", "add", "--deployment", "a/b", "--reason", "x")

    assert done.exit_code == 2
    assert "expected a data folder" in done.stderr
    assert not (tmp_path / "no").exists()
