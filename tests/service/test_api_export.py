"""The route of exports: formats by name and by header, and a stream whose end is no lie."""

import asyncio
import csv
import io
import json
from collections.abc import Iterator
from typing import Any

import pyarrow.parquet as pq
import pytest

from sidelight.adapters import LakeError
from sidelight.service._api import create_app
from sidelight.service._export_formats import MEDIA_TYPES, file_name, format_of
from sidelight.service.errors import NotAcceptable

_EXPORT = "/v1/inferences/export"


@pytest.fixture(autouse=True)
def _asked(folder: Any) -> None:
    for number in range(5):
        folder.ask([[number, "f"]], minutes=number)
    folder.work()


def ages(answer: Any) -> list[float]:
    """Return what an export says of one feature."""
    kind = answer.headers["content-type"].partition(";")[0]
    if kind == "application/x-ndjson":
        lines = answer.text.splitlines()
        return [json.loads(line)["rows"][0]["features"]["age"] for line in lines]
    if kind == "text/csv":
        rows = csv.DictReader(io.StringIO(answer.text, newline=""))
        return [float(row["features.age"]) for row in rows]
    column: list[float] = pq.read_table(io.BytesIO(answer.content))["features.age"].to_pylist()
    return column


@pytest.mark.parametrize("name", MEDIA_TYPES)
def test_each_format_has_its_type_and_file_name(api: Any, name: str) -> None:
    answer = api.get(_EXPORT, format=name, deployment="prod/flights", where="features.age >= 2")

    assert answer.status_code == 200
    assert answer.headers["content-type"] == MEDIA_TYPES[name]  # type: ignore[index]
    assert answer.headers["content-disposition"] == (
        f'attachment; filename="inferences-prod-flights.{name}"'
    )
    assert ages(answer) == [2, 3, 4]


@pytest.mark.parametrize("name", MEDIA_TYPES)
def test_order_and_limit_are_those_of_the_list(api: Any, name: str) -> None:
    assert ages(api.get(_EXPORT, format=name, order="-time", limit=2)) == [4, 3]
    assert ages(api.get(_EXPORT, format=name, limit=3)) == [0, 1, 2]


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", "jsonl"),
        ("*/*", "jsonl"),
        ("text/csv", "csv"),
        ("application/vnd.apache.parquet", "parquet"),
        ("application/json", "jsonl"),
        ("text/html, application/xhtml+xml, */*;q=0.8", "jsonl"),
        ("text/csv;q=0.5, application/x-parquet;q=0.7", "parquet"),
        ("text/csv;q=0, */*", "jsonl"),
        ("application/x-ndjson;q=0.2, text/*", "csv"),
        ("application/*;q=0.1, application/x-ndjson;q=0, text/csv;q=0", "parquet"),
        ("TEXT/CSV ; Q=1", "csv"),
    ],
)
def test_the_header_decides_where_no_format_is_named(accept: str, expected: str) -> None:
    assert format_of(accept) == expected


@pytest.mark.parametrize("accept", ["image/png", "text/csv;q=0", "text/csv;q=nan", ",", ";q=1"])
def test_what_accepts_nothing_is_answered_so(accept: str) -> None:
    with pytest.raises(NotAcceptable, match="accepted"):
        format_of(accept)


def test_a_named_format_wins_over_the_header(api: Any) -> None:
    by_header = api.request("GET", _EXPORT, headers={"Accept": "text/csv"})
    by_name = api.request(
        "GET", _EXPORT, params={"format": "parquet"}, headers={"Accept": "text/csv"}
    )
    problem = api.problem("GET", _EXPORT, headers={"Accept": "image/png"})

    assert by_header.headers["content-type"].startswith("text/csv")
    assert by_name.headers["content-type"] == MEDIA_TYPES["parquet"]
    assert ages(by_header) == ages(by_name)
    assert problem["status"] == 406
    assert "text/csv" in problem["expected"]


def test_names_of_deployments_do_no_harm_in_file_names() -> None:
    assert file_name('a"\r\nSet-Cookie: x/..', "csv") == "inferences-a-Set-Cookie-x.csv"
    assert len(file_name("é" * 500 + "/" + "n" * 500, "jsonl")) < 120


@pytest.mark.parametrize("name", MEDIA_TYPES)
def test_a_failure_before_the_first_byte_is_a_problem(
    api: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**_: object) -> Iterator[bytes]:
        raise LakeError("a file is damaged")
        yield b""

    monkeypatch.setattr(api.context.inferences, "export", fail)

    assert api.problem("GET", _EXPORT, params={"format": name})["status"] == 503


def test_a_failure_in_the_middle_does_not_end_the_stream_as_if_complete(
    api: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[dict[str, Any]] = []

    def fail(**_: object) -> Iterator[bytes]:
        yield b"first"
        raise LakeError("a file is damaged")

    async def call() -> None:
        async def receive() -> dict[str, Any]:
            # Nothing comes: the client is there and has said all.
            await asyncio.Event().wait()
            return {}

        async def send(message: Any) -> None:
            sent.append(message)

        scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": _EXPORT,
            "raw_path": _EXPORT.encode(),
            "query_string": b"order=time",
            "root_path": "",
            "headers": [],
            "client": None,
            "server": ("api", 80),
        }
        await create_app(api.context)(scope, receive, send)

    monkeypatch.setattr(api.context.inferences, "export", fail)
    with pytest.raises(Exception):  # noqa: B017, PT011 - that there is one is what matters
        asyncio.run(call())

    assert sent[0]["status"] == 200
    assert [message.get("body") for message in sent[1:]] == [b"first"]
    assert all(message.get("more_body") for message in sent[1:])
