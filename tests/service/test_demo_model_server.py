import asyncio
import os
import signal
import socket
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from sidelight.service.demo import (
    DATATYPES,
    FEATURES,
    ModelNotReady,
    ModelProcess,
    ask_model,
    load_flights,
    reference_rows,
)
from sidelight.service.demo._inference_protocol import encode_infer

ROW: dict[str, Any] = {
    "hour": 17,
    "carrier": "EV",
    "origin": "EWR",
    "distance": 1400,
    "temp": None,
    "humid": 90.0,
    "wind_speed": 20.0,
    "precip": 0.1,
    "pressure": None,
    "visib": 2.0,
}
INFER = "/v2/models/flights/infer"
# Ends a test that hangs; no slow machine does.
PATIENCE_S = 150


@pytest.fixture(scope="module")
def server() -> Iterator[ModelProcess]:
    with ModelProcess() as process:
        process.ready(timeout_s=PATIENCE_S)
        yield process


@pytest.fixture(scope="module")
def client(server: ModelProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.ready().url, timeout=PATIENCE_S) as http:
        yield http


def body(request_id: str, *hours: int) -> bytes:
    columns = {name: [ROW[name]] * len(hours) for name in FEATURES} | {"hour": list(hours)}
    return encode_infer(request_id, columns)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        pytest.param("/v2", "sidelight-demo", id="server"),
        pytest.param("/v2/health/live", "live", id="live"),
        pytest.param("/v2/health/ready", "ready", id="ready"),
        pytest.param("/v2/models/flights", "sklearn", id="model"),
        pytest.param("/v2/models/flights/versions/1", "sklearn", id="version"),
        pytest.param("/v2/models/flights/ready", "ready", id="model-ready"),
    ],
)
def test_the_documents_of_the_protocol_are_there(
    client: httpx.Client, path: str, expected: str
) -> None:
    answer = client.get(path)

    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert expected in answer.text


def test_the_metadata_name_the_tensors_of_the_requests(client: httpx.Client) -> None:
    document = client.get("/v2/models/flights").json()

    assert {item["name"]: item["datatype"] for item in document["inputs"]} == DATATYPES
    assert [item["name"] for item in document["outputs"]] == ["probability", "late"]


def test_a_request_is_answered_with_its_id_and_a_row_each(client: httpx.Client) -> None:
    answer = client.post(INFER, content=body("2013-04-01-UA-1-EWR", 6, 17, 20)).json()

    assert answer["id"] == "2013-04-01-UA-1-EWR"
    assert (answer["model_name"], answer["model_version"]) == ("flights", "1")
    outputs = {item["name"]: item for item in answer["outputs"]}
    assert outputs["probability"]["datatype"] == "FP64"
    assert outputs["probability"]["shape"] == [3, 1]
    assert outputs["late"]["datatype"] == "BOOL"
    # In the morning there is nothing to be late from.
    morning, afternoon, _ = outputs["probability"]["data"]
    assert morning < afternoon


def test_many_at_once_get_the_answers_they_would_get_alone(client: httpx.Client) -> None:
    def probability(hour: int) -> float:
        answer = client.post(INFER, content=body(str(hour), hour)).json()
        assert answer["id"] == str(hour)
        return float(answer["outputs"][0]["data"][0])

    hours = [5 + number % 19 for number in range(60)]
    alone = {hour: probability(hour) for hour in set(hours)}
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(probability, hours))

    assert together == [alone[hour] for hour in hours]


def test_a_chunked_body_is_read_whole(client: httpx.Client) -> None:
    whole = body("a", 17)

    answer = client.post(INFER, content=iter([whole[:100], whole[100:]]))

    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "content", "status"),
    [
        pytest.param("POST", INFER, b"", 400, id="empty"),
        pytest.param("POST", INFER, b"{", 400, id="cut-json"),
        pytest.param("POST", INFER, b"\xff\xfe", 400, id="no-text"),
        pytest.param("POST", INFER, b'{"inputs": NaN}', 400, id="nan"),
        pytest.param("POST", INFER, b"[" * 100_000, 400, id="deep"),
        pytest.param("GET", INFER, b"", 405, id="get-infer"),
        pytest.param("POST", "/v2", b"", 405, id="post-document"),
        pytest.param("GET", "/v2/models/other", b"", 404, id="other-model"),
        pytest.param("POST", "/v2/models/other/infer", b"", 404, id="other-infer"),
        pytest.param("POST", "/v2/models/flights/versions/2/infer", b"", 404, id="other-version"),
    ],
)
def test_bad_input_is_refused_in_the_protocols_form_and_costs_nobody_else(
    client: httpx.Client, method: str, path: str, content: bytes, status: int
) -> None:
    refused = client.request(method, path, content=content)

    assert refused.status_code == status
    assert list(refused.json()) == ["error"]
    assert "expected" in refused.json()["error"]
    assert client.post(INFER, content=body("after", 17)).status_code == 200


def test_a_client_that_leaves_in_the_middle_costs_nobody_else(
    server: ModelProcess, client: httpx.Client
) -> None:
    with socket.create_connection(("127.0.0.1", server.ready().port)) as rude:
        rude.sendall(f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: 999\r\n\r\n{{".encode())

    assert client.post(INFER, content=body("after", 17)).status_code == 200


def test_the_reference_is_asked_in_one_request(server: ModelProcess) -> None:
    rows = reference_rows(load_flights(), 1000)

    outputs = asyncio.run(ask_model(rows, host="127.0.0.1", port=server.ready().port))

    assert [len(values) for values in outputs.values()] == [1000, 1000]
    assert set(outputs) == {"probability", "late"}
    called_late = sum(outputs["late"]) / 1000
    assert called_late == pytest.approx(rows["late"].mean(), abs=0.05)


def test_facts_tell_how_good_the_model_is(server: ModelProcess) -> None:
    facts = server.ready()

    assert 0.7 < facts.auc < 0.75
    assert 0 < facts.threshold < 1
    assert facts.url.endswith(str(facts.port))


def test_a_taken_port_is_said_and_leaves_no_process(capfd: pytest.CaptureFixture[str]) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        ModelProcess(port=taken.getsockname()[1]) as process,
        pytest.raises(ModelNotReady, match="exit code 1"),
    ):
        process.ready(timeout_s=PATIENCE_S)

    assert "in use" in capfd.readouterr().err


def test_a_model_that_stays_silent_is_ended_at_the_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = tmp_path / "silent"
    silent.write_text("#!/bin/sh\nexec sleep 1000\n")
    silent.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(silent))

    with ModelProcess() as process, pytest.raises(ModelNotReady, match="-9"):
        process.ready(timeout_s=0.01)

    assert process.returncode == -signal.SIGKILL


def test_a_terminated_server_leaves_by_the_signal_without_a_word(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with ModelProcess() as process:
        process.ready(timeout_s=PATIENCE_S)
        os.kill(process.pid, signal.SIGTERM)
        code = process.wait(PATIENCE_S)

    assert code in {0, -signal.SIGTERM}
    assert capfd.readouterr().err == ""


def test_the_process_ends_when_its_parents_pipe_does() -> None:
    process = ModelProcess()
    process.ready(timeout_s=PATIENCE_S)

    assert process.stop(grace_s=PATIENCE_S) == 0
    assert process.returncode == 0
