"""`sidelight query` and `sidelight export`: what they print, where they look, how they end."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

from sidelight.adapters import LakeError
from sidelight.service import _query_remote
from sidelight.service._cli import app
from sidelight.service._query_output import write_stream
from sidelight.service._query_remote import RemoteSource
from sidelight.service.errors import BadRequest, ConfigurationError, NotFound, ServiceError


@pytest.fixture(autouse=True)
def _asked(folder: Any) -> None:
    for number in range(5):
        folder.ask([[number, "f"], [number + 0.5, "\x1b[2J"]], minutes=number, version="v1")
    folder.work()


def run(*arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(app, arguments, env=environment)


def lines(result: Result) -> list[dict[str, Any]]:
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_a_query_prints_json_lines_and_the_next_cursor(folder: Any, api: Any) -> None:
    result = run("query", "--data", str(folder.data), "--limit", "2", "--order", "time")

    assert lines(result) == api.items("/v1/inferences", order="time")[:2]
    cursor = result.stderr.split()[-1]
    again = run("query", "--data", str(folder.data), "--order", "time", "--cursor", cursor)
    assert lines(again) == api.items("/v1/inferences", order="time")[2:]
    assert again.stderr == ""


def test_every_filter_is_passed_on(folder: Any) -> None:
    found = lines(
        run(
            *("query", "--data", str(folder.data), "--deployment", "prod/flights"),
            *("--version", "v1", "--from", "2013-01-01T00:01:00Z", "--to", "2013-01-01T00:04:00Z"),
            *("--where", "features.age >= 2", "--order", "-time"),
        )
    )

    assert [item["rows"][0]["features"]["age"] for item in found] == [3, 2]
    assert lines(run("query", "--data", str(folder.data), "--version", "v2")) == []


def test_one_inference_with_its_archived_bytes(folder: Any, api: Any) -> None:
    name = api.items("/v1/inferences")[0]["id"]

    (plain,) = lines(run("query", "--data", str(folder.data), "--id", name))
    (whole,) = lines(run("query", "--data", str(folder.data), "--id", name, "--raw"))
    missing = run("query", "--data", str(folder.data), "--id", "0" * 32)

    assert plain == api.get(f"/v1/inferences/{name}").json()
    assert whole == api.get(f"/v1/inferences/{name}", raw="true").json()
    assert b"inputs" in base64.b64decode(whole["raw"]["request"]["payload"])
    assert (missing.exit_code, missing.stdout) == (1, "")


def test_a_table_has_a_line_a_row_and_obeys_nothing(folder: Any) -> None:
    result = run("query", "--data", str(folder.data), "--format", "table", "--limit", "2")

    header, *rows = result.stdout.splitlines()
    assert header.split() == [
        *("time", "id", "deployment", "version", "status", "latency_ms", "rows"),
        *("features", "outputs", "labels", "outlier_score"),
    ]
    assert len(rows) == 4
    assert "age=4.0 sex=f" in rows[0]
    assert rows[1].startswith(" ")
    assert "\x1b" not in result.stdout


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_an_export_is_a_file_named_by_its_suffix(
    folder: Any, api: Any, tmp_path: Path, suffix: str
) -> None:
    target = tmp_path / f"found.{suffix}"

    result = run("export", "--data", str(folder.data), "--output", str(target), "--limit", "3")

    assert (result.exit_code, result.stdout) == (0, "")
    assert target.read_bytes() == api.get("/v1/inferences/export", format=suffix, limit=3).content
    assert list(tmp_path.glob(".*.part")) == []
    if suffix == "parquet":
        assert pq.read_table(target).num_rows == 6


def test_an_export_goes_to_stdout_too(folder: Any, api: Any) -> None:
    result = run("export", "--data", str(folder.data), "--format", "csv")
    asked = run("query", "--data", str(folder.data), "--format", "csv", "--order", "time")

    assert result.stdout_bytes == api.get("/v1/inferences/export", format="csv").content
    assert asked.stdout_bytes == result.stdout_bytes


def test_a_cut_export_leaves_no_file(tmp_path: Path) -> None:
    def cut() -> Iterator[bytes]:
        yield b"a"
        raise LakeError("gone")

    target = tmp_path / "found.csv"
    with pytest.raises(LakeError):
        write_stream(cut(), target)

    assert list(tmp_path.iterdir()) == [] or not target.exists()
    assert list(tmp_path.glob(".*.part")) == []


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("query", "--where", "features.height > 1"), 2, "features.height"),
        (("query", "--where", "features.age >"), 2, "^"),
        (("query", "--from", "yesterday"), 2, "from"),
        (("query", "--cursor", "x"), 2, "cursor"),
        (("query", "--deployment", "flights"), 2, "expected namespace/name, got 'flights'"),
        (("export", "--deployment", "flights"), 2, "expected namespace/name, got 'flights'"),
        (("query", "--raw"), 2, "--id"),
        (("query", "--format", "csv", "--cursor", "x"), 2, "--cursor"),
        (("query", "--limit", "1001"), 2, "1000"),
        (("query", "--order", "age"), 2, "-time"),
        (("query", "--token-file", "x"), 2, "--url"),
        (("query", "--url", "ftp://x"), 2, "http"),
        (("query", "--url", "http://127.0.0.1:1"), 1, "does not answer"),
        (("export", "--where", "nonsense"), 2, "where"),
        (("export", "--limit", "0"), 2, "limit"),
        (("export", "--format", "xml"), 2, "xml"),
        (("export", "--backup", "x", "--format", "csv"), 2, "--backup"),
        (("export", "--output", "/nowhere/at/all.csv"), 1, "No such file"),
    ],
)
def test_a_wrong_question_says_so_and_ends_with_its_code(
    folder: Any, arguments: tuple[str, ...], code: int, said: str
) -> None:
    result = run(*arguments, SIDELIGHT_DATA=str(folder.data), COLUMNS="200")

    assert (result.exit_code, result.stdout) == (code, "")
    assert said in result.stderr


def test_a_folder_that_is_none_is_a_wrong_question(tmp_path: Path) -> None:
    result = run("query", "--data", str(tmp_path / "nothing"))

    assert result.exit_code == 2
    assert "expected a data folder" in result.stderr
    assert not (tmp_path / "nothing").exists()


def test_questions_are_in_the_access_log_with_their_reason(folder: Any) -> None:
    run("query", "--data", str(folder.data), "--where", "features.age > 1", "--reason", "audit 7")
    run("export", "--data", str(folder.data), SIDELIGHT_REASON="audit 8")

    (path,) = (folder.data / "access").glob("log-*.jsonl")
    first, second = (json.loads(line) for line in path.read_text().splitlines())
    assert (first["command"], first["reason"]) == ("query", "audit 7")
    assert first["parameters"]["where"] == "features.age > 1"
    assert (second["command"], second["reason"]) == ("export", "audit 8")


def test_a_service_answers_as_its_folder_does(
    folder: Any, api: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        found = api.request("GET", str(request.url), headers=dict(request.headers))
        return httpx.Response(found.status_code, headers=found.headers, content=found.content)

    def remote(url: str, **options: Any) -> RemoteSource:
        return RemoteSource(url, **options, transport=httpx.MockTransport(answer))

    monkeypatch.setattr(_query_remote, "RemoteSource", remote)
    token = tmp_path / "token"
    token.write_text("secret\n")
    here = ("--url", "http://api", "--token-file", str(token), "--reason", "audit")
    there = ("--data", str(folder.data))
    name = api.items("/v1/inferences")[0]["id"]
    for command in (
        ("query", "--where", "features.age >= 2", "--limit", "2"),
        ("query", "--id", name, "--raw"),
        ("query", "--id", "../deployments"),
        ("query", "--where", "features.age >"),
        ("export", "--format", "parquet", "--from", "2013-01-01T00:02:00+00:00"),
        ("export", "--where", "nonsense"),
    ):
        remote_result, local_result = run(*command, *here), run(*command, *there)
        assert remote_result.exit_code == local_result.exit_code, command
        assert remote_result.stdout_bytes == local_result.stdout_bytes, command

    assert {request.headers["authorization"] for request in asked} == {"Bearer secret"}
    assert {request.headers["x-sidelight-reason"] for request in asked} == {"audit"}


@pytest.mark.parametrize(
    ("response", "error"),
    [
        (httpx.Response(400, json={"detail": "wrong"}), BadRequest),
        (httpx.Response(404, json={"detail": "none"}), NotFound),
        (httpx.Response(401, json={"detail": "a token"}), ServiceError),
        (httpx.Response(503, text="<html>"), ServiceError),
        (httpx.Response(200, text="<html>"), ServiceError),
        (httpx.Response(500, json=[1]), ServiceError),
    ],
)
def test_what_a_service_refuses_is_an_error(
    response: httpx.Response, error: type[ServiceError]
) -> None:
    source = RemoteSource("http://api", transport=httpx.MockTransport(lambda _: response))

    with pytest.raises(error):
        source.find({})


def test_a_token_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="--token-file"):
        RemoteSource("http://api", token_file=tmp_path / "none")
