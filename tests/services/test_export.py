"""Exports and raw bytes through the real process tree: whole, abandoned, and cut in the middle."""

import base64
import csv
import io
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest
from tests.services.conftest import Service

_INFERENCES = 300
_ROWS = 64
_EXPORT = "/v1/inferences/export"
_PATIENCE_S = 240.0


def _event(side: str, number: int, payload: bytes) -> str:
    attributes = {
        "specversion": "1.0",
        "type": f"org.kubeflow.serving.inference.{side}",
        "source": "/x",
        "id": f"r{number:06d}",
        "namespace": "prod",
        "inferenceservicename": "flights",
        "time": f"2013-01-01T{number // 3600:02d}:{number // 60 % 60:02d}:{number % 60:02d}Z",
        "datacontenttype": "application/json",
        "data_base64": base64.b64encode(payload).decode(),
    }
    return json.dumps(attributes)


def _asked(number: int) -> bytes:
    # White space as nobody else would write it.
    rows = [[number * _ROWS + row + column / 8 for column in range(20)] for row in range(_ROWS)]
    return json.dumps({"instances": rows}, indent=1).encode()


def _fill(service: Any) -> None:
    for start in range(0, _INFERENCES, 100):
        events = []
        for number in range(start, start + 100):
            events.append(_event("request", number, _asked(number)))
            answer = json.dumps({"predictions": list(range(_ROWS))}).encode()
            events.append(_event("response", number, answer))
        headers = {"content-type": "application/cloudevents-batch+json"}
        assert service.post(f"[{','.join(events)}]", headers, "/events").status_code == 200
    service.wait_stored(_INFERENCES)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One service for all: nothing here changes what is stored."""
    started = Service(tmp_path_factory.mktemp("export"))
    try:
        started.start()
        _fill(started)
        yield started
    finally:
        started.close()


def test_files_are_whole_whoever_else_went_away(service: Any, tmp_path: Path) -> None:
    expected = [number * _ROWS + row for number in range(_INFERENCES) for row in range(_ROWS)]
    for _ in range(8):
        with service.client.stream("GET", service.url + _EXPORT) as abandoned:
            assert next(abandoned.iter_bytes())

    found = {
        name: service.client.get(service.url + _EXPORT, params={"format": name}).content
        for name in ("jsonl", "csv", "parquet")
    }

    lines = [json.loads(line) for line in found["jsonl"].splitlines()]
    assert [row["features"]["f0"] for line in lines for row in line["rows"]] == expected
    rows = csv.DictReader(io.StringIO(found["csv"].decode(), newline=""))
    assert [float(row["features.f0"]) for row in rows] == expected
    assert pq.read_table(io.BytesIO(found["parquet"]))["features.f0"].to_pylist() == expected
    target = tmp_path / "found.parquet"
    command = [*service.program, "export", "--url", service.url, "--output", str(target)]
    subprocess.run(command, check=True, timeout=_PATIENCE_S)
    assert pq.read_table(target)["features.f0"].to_pylist() == expected


def test_a_stream_that_is_cut_does_not_look_complete(service: Any, tmp_path: Path) -> None:
    kept: list[bytes] = []
    with (  # noqa: PT012 - what is cut is read in a loop
        pytest.raises(httpx.RemoteProtocolError),
        service.client.stream("GET", service.url + _EXPORT) as answer,
    ):
        assert answer.status_code == 200
        chunks = answer.iter_raw()
        kept.append(next(chunks))
        os.kill(service.children()["api"], signal.SIGKILL)
        kept += chunks
    assert b"".join(kept).count(b"\n") < _INFERENCES

    service.wait_ready(f"{service.url}/readyz")
    target = tmp_path / "found.jsonl"
    reader = subprocess.Popen(
        [*service.program, "export", "--url", service.url],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert reader.stdout is not None
    # What the pipe does not hold waits in the service.
    first = reader.stdout.read(1000)
    os.kill(service.children()["api"], signal.SIGKILL)
    rest, said = reader.communicate(timeout=_PATIENCE_S)
    assert (reader.returncode, first[:1]) == (1, b"{")
    assert b"to the end" in said
    assert (first + rest).count(b"\n") < _INFERENCES
    assert not target.exists()


def test_the_pipe_that_nobody_reads_ends_quietly(service: Any) -> None:
    command = [*service.program, "export", "--data", str(service.data)]
    reader = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert reader.stdout is not None
    assert reader.stderr is not None
    reader.stdout.read(100)
    reader.stdout.close()

    assert reader.wait(_PATIENCE_S) == 141
    assert reader.stderr.read() == b""
    reader.stderr.close()


def test_raw_bytes_are_those_that_were_sent(service: Any) -> None:
    (item,) = service.get("/v1/inferences", where="request_id = 'r000017'")["items"]

    plain = service.client.get(f"{service.url}/v1/inferences/{item['id']}/raw/request")
    done = service.command("query", "--id", item["id"], "--raw")

    assert plain.content == _asked(17)
    raw = json.loads(done.stdout)["raw"]
    assert base64.b64decode(raw["request"]["payload"]) == _asked(17)
    assert base64.b64decode(raw["request"]["body"]).decode() == _event("request", 17, _asked(17))
    assert base64.b64decode(raw["request"]["head"]).startswith(b"POST /events HTTP/1.1\r\n")
