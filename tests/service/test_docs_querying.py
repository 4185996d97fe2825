"""The ten queries of docs/querying.md, each with what it must find, told in Python."""

import csv
import io
import json
import re
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from sidelight.adapters import Lake, Scores
from sidelight.adapters._lake_scores import SCORE_SCHEMA
from sidelight.logger import Document
from sidelight.service._cli import app

_PAGE = Path(__file__).parents[2] / "docs" / "querying.md"
_COMMAND = re.compile(r"^\$ sidelight (query|export) (.*)$", re.MULTILINE)
_CARRIERS = ("UA", "AA", "DL")

Asked = Mapping[str, Any]

_ASKED: tuple[Asked, ...] = tuple(
    {
        "id": f"r{number:06d}",
        "minutes": number,
        "version": "v2" if number % 2 else "v1",
        "carrier": _CARRIERS[number % 3],
        "distance": 150.0 * number,
        "departed": f"{16 + number % 3}:{number:02d}",
        "late": 0.9 if number % 4 == 0 else 0.1,
        "label": None if number % 5 == 0 else int(number % 6 == 0),
        "score": 4.0 if number in {7, 13} else 0.5,
        "status": 500 if number == 11 else 200,
        "latency_ms": 1500.0 if number == 3 else 12.5,
        "orphan": number == 17,
    }
    for number in range(20)
)

_FOUND: tuple[Callable[[Asked], bool], ...] = (
    lambda item: item["version"] == "v2" and not item["orphan"],
    lambda item: 10 <= item["minutes"] < 20,
    lambda item: item["carrier"] in {"UA", "AA"} and 1000 <= item["distance"] <= 2000,
    lambda item: item["score"] > 3,
    lambda item: (
        item["label"] is not None and not item["orphan"] and (item["late"] >= 0.5) != item["label"]
    ),
    lambda item: not item["orphan"] and (item["status"] >= 500 or item["latency_ms"] > 1000),
    lambda item: item["label"] is None and not item["orphan"],
    lambda item: bool(item["orphan"]),
    lambda item: item["departed"].startswith("17:") and item["carrier"] != "DL",
    lambda item: item["minutes"] >= 15,
)


def _tensor(name: str, value: object) -> dict[str, Any]:
    datatype = "BYTES" if isinstance(value, str) else "FP64"
    return {"name": name, "shape": [1], "datatype": datatype, "data": [value]}


@pytest.fixture
def asked(folder: Any) -> Any:
    for item in _ASKED:
        where = {"request_id": item["id"], "minutes": item["minutes"]}
        inputs = {
            "carrier": item["carrier"],
            "distance": item["distance"],
            "dep. time": item["departed"],
        }
        tensors = [_tensor(name, value) for name, value in inputs.items()]
        folder.half("request", {"inputs": tensors}, **where)
        if item["orphan"]:
            continue
        answer = {"model_version": item["version"], "outputs": [_tensor("late", item["late"])]}
        folder.half(
            "response",
            answer,
            **where,
            statuscode=str(item["status"]),
            latencyms=str(item["latency_ms"]),
        )
    folder.work()
    folder.now_ns += 10**18
    folder.work()
    _label_and_score(folder)
    return folder


def _label_and_score(folder: Any) -> None:
    """Write what feedback and detectors would."""
    by_id = {item["id"]: item for item in _ASKED}
    result = CliRunner().invoke(app, ["query", "--data", str(folder.data), "--limit", "100"])
    stored = [json.loads(line) for line in result.stdout.splitlines()]
    folder.documents.put(
        [
            Document(
                collection="labels",
                key=f"prod/flights|{item['request_id']}|0",
                deployment="prod/flights",
                order=item["time"],
                value={
                    "deployment": "prod/flights",
                    "request_id": item["request_id"],
                    "row": 0,
                    "labels": {"late": by_id[item["request_id"]]["label"]},
                    "time": item["time"],
                },
            )
            for item in stored
            if by_id[item["request_id"]]["label"] is not None
        ]
    )
    columns = {
        "id": [item["id"] for item in stored],
        "row": [0] * len(stored),
        "revision": [0] * len(stored),
        "time": pa.array([item["time"] for item in stored]).cast(pa.timestamp("us", "UTC")),
        "outlier_score": [by_id[item["request_id"]]["score"] for item in stored],
        "p_value": [0.5] * len(stored),
        "outlier": [False] * len(stored),
    }
    records = pa.RecordBatch.from_pydict(columns, schema=SCORE_SCHEMA)
    scores = Scores("prod/flights", records)
    folder.documents.put(Lake(folder.data).stage_scores([scores], first=0, last=0))


def _queries() -> list[tuple[str, list[str]]]:
    text = _PAGE.read_text()
    return [
        (command, shlex.split(rest))
        for command, rest in _COMMAND.findall(text[text.index("## Ten queries") :])
    ]


def test_there_are_ten() -> None:
    assert len(_queries()) == len(_FOUND) == 10


def _ids(command: str, options: list[str], text: str) -> list[str]:
    if command == "export":
        return [row["request_id"] for row in csv.DictReader(io.StringIO(text, newline=""))]
    if "table" in options:
        # Times are whole minutes here.
        return [f"r{int(line[14:16]):06d}" for line in text.splitlines()[1:]]
    return [json.loads(line)["request_id"] for line in text.splitlines()]


def test_each_finds_what_it_asks_for(asked: Any) -> None:
    for (command, options), is_wanted in zip(_queries(), _FOUND, strict=True):
        expected = [item["id"] for item in _ASKED if is_wanted(item)]
        assert 0 < len(expected) < len(_ASKED), options

        result = CliRunner().invoke(app, [command, "--data", str(asked.data), *options])

        assert result.exit_code == 0, result.stderr
        if command == "query" and "time" not in options:
            expected.reverse()
        limit = int(options[options.index("--limit") + 1]) if "--limit" in options else 20
        assert _ids(command, options, result.stdout) == expected[:limit], options


def test_the_error_that_is_shown_is_the_one_that_comes(asked: Any) -> None:
    page = _PAGE.read_text()
    start = page.index('$ sidelight query --where "status = 200')
    command, *shown = page[start : page.index("```", start)].splitlines()

    options = shlex.split(command.removeprefix("$ sidelight query "))
    result = CliRunner().invoke(app, ["query", "--data", str(asked.data), *options])

    assert result.exit_code == 2
    message, text, caret = result.stderr.splitlines()
    assert shown[0].startswith(message.partition(" such as ")[0])
    assert "features.distance" in message
    assert [text, caret] == shown[1:]
