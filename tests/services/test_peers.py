"""The proxy between clients and model servers of others: neither notices, the collector knows all.

curl, httpx, wrk, tritonclient and KServe's client before MLServer, the MLflow scoring server and
KServe's Python server.
"""

import json
import os
import re
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from tests.services import peer_servers
from tests.services.peer_environment import COMPILING, python_of
from tests.services.peer_servers import PeerServer
from tests.services.server_process import free_ports, needed

from sidelight.logger import parse
from sidelight.logger._segments_reader import SegmentReader

if TYPE_CHECKING:
    from tests.services.conftest import Proxy, Service

_IRIS = "/v2/models/iris/infer"
_ROW = [5.1, 3.5, 1.4, 0.2]
_COLUMNS = ["sepal length (cm)", "sepal width (cm)", "petal length (cm)", "petal width (cm)"]
_JSON = {"Content-Type": "application/json"}
# Limits that a slow machine does not reach, nor one that stands still for seconds.
_ANSWER_S = 120
_PATIENCE_S = 300.0
_MOST_RUNS = 20
_SEGMENT_RECORDS = 10_000
_SEGMENT_BYTES = 64 << 20

Stored = dict[tuple[str, str], bytes]
Answer = tuple[int, list[tuple[str, str]], bytes]


def _server(start: Callable[[Path], PeerServer]) -> Callable[..., Iterator[PeerServer]]:
    @pytest.fixture(scope="module")
    def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PeerServer]:
        running = start(tmp_path_factory.mktemp("peer"))
        yield running
        running.stop()

    return server


mlserver = _server(peer_servers.mlserver)
mlflow = _server(peer_servers.mlflow)
kserve = _server(peer_servers.kserve)


def _v2(request_id: str | None = None, row: list[float] = _ROW) -> bytes:
    tensor = {"name": "x", "shape": [1, 4], "datatype": "FP64", "data": row}
    identity = {} if request_id is None else {"id": request_id}
    return json.dumps({**identity, "inputs": [tensor]}).encode()


def _ask(url: str, path: str, body: bytes, headers: Mapping[str, str]) -> Answer:
    """Return status, headers but the date, and body, over a connection that nobody else made."""
    place = urlsplit(url)
    lines = {"Host": "model", **headers, "Content-Length": str(len(body)), "Connection": "close"}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    request = f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + body
    with socket.create_connection((str(place.hostname), place.port or 80), _ANSWER_S) as client:
        client.sendall(request)
        parts = list(iter(lambda: client.recv(65536), b""))
    start, _, answer = b"".join(parts).partition(b"\r\n\r\n")
    first, *rest = start.decode("latin-1").split("\r\n")
    pairs = [(name, value.strip()) for name, _, value in (line.partition(":") for line in rest)]
    return int(first.split()[1]), [pair for pair in pairs if pair[0].lower() != "date"], answer


def _stored(service: "Service") -> Stored:
    """Return what the archive holds, by request id and kind."""
    reader = SegmentReader(service.data)
    records = reader.read(reader.begin(), max_records=_SEGMENT_RECORDS, max_bytes=_SEGMENT_BYTES)
    reader.close()
    found: Stored = {}
    for record in records:
        events, rejected = parse(record)
        assert not rejected
        for event in events:
            key = (event.id, event.type.rpartition(".")[2])
            assert key not in found
            found[key] = event.data
    return found


def _script(peer: str, text: str, *arguments: str) -> Any:
    """Return what a program in the environment of a peer prints as JSON."""
    done = subprocess.run(
        [python_of(peer), "-W", "ignore", "-c", text, *arguments],
        capture_output=True,
        text=True,
        timeout=_PATIENCE_S,
        check=False,
        env={**os.environ, **COMPILING},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def relay(service: "Service", start_proxy: "Callable[..., Proxy]") -> "Callable[..., Proxy]":
    """Start a proxy before a server: ``relay(server, name="iris")``."""

    def start(server: PeerServer, name: str, **options: str) -> "Proxy":
        sink = f"{service.url}/"
        return start_proxy(upstream=server.url, sink=sink, deployment=f"prod/{name}", **options)

    return start


# --- MLServer ---


def test_answers_of_mlserver_are_the_same_byte_for_byte_and_both_bodies_are_stored(
    service: "Service", relay: "Callable[..., Proxy]", mlserver: PeerServer
) -> None:
    proxy = relay(mlserver, "iris")
    requests = {
        "good": (_IRIS, _v2("good")),
        "version": ("/v2/models/iris/versions/v1/infer", _v2("version")),
        "unknown": ("/v2/models/nobody/infer", _v2("unknown")),
        "garbage": (_IRIS, b'{"inputs": [{"name": "x"'),
        "rows": (
            _IRIS,
            json.dumps(
                {
                    "id": "rows",
                    "inputs": [
                        {"name": "x", "shape": [150, 4], "datatype": "FP32", "data": _ROW * 150}
                    ],
                }
            ).encode(),
        ),
    }

    answers = {}
    for name, (path, body) in requests.items():
        headers = {**_JSON, "X-Request-Id": name}
        direct, relayed = (_ask(url, path, body, headers) for url in (mlserver.url, proxy.url))
        assert relayed == direct
        answers[name] = relayed

    assert {name: status for name, (status, _, _) in answers.items()} == {
        **dict.fromkeys(("good", "version", "rows"), 200),
        "unknown": 404,
        "garbage": 422,
    }
    inferences = {item["request_id"]: item for item in service.wait_stored(len(requests))}
    assert set(inferences) == set(requests)
    stored = _stored(service)
    for name, (_, body) in requests.items():
        assert stored[name, "request"] == body
        assert stored[name, "response"] == answers[name][2]
        assert inferences[name]["orphan"] is None
        assert inferences[name]["status"] == answers[name][0]
    features = {f"x_{place}": value for place, value in enumerate(_ROW)}
    assert inferences["good"]["rows"][0]["features"] == features
    assert inferences["good"]["rows"][0]["outputs"] == {"predict": 0}
    assert len(inferences["rows"]["rows"]) == 150


def test_curl_and_httpx_are_answered_by_mlserver_as_without_the_proxy(
    service: "Service", relay: "Callable[..., Proxy]", mlserver: PeerServer
) -> None:
    proxy = relay(mlserver, "iris")
    ids = [f"curl{number}" for number in range(3)] + [f"httpx{number}" for number in range(20)]

    def curl(url: str, name: str, *options: str) -> bytes:
        done = subprocess.run(
            [
                *(
                    needed("curl"),
                    "-sS",
                    "--fail",
                    "--max-time",
                    str(_ANSWER_S),
                    "--data-binary",
                    "@-",
                ),
                *("-H", "Content-Type: application/json", *options, url + _IRIS),
            ],
            input=_v2(name),
            capture_output=True,
            check=True,
        )
        return done.stdout

    ways = ((), ("-H", "Transfer-Encoding: chunked"), ("-H", "Expect: 100-continue"))
    for name, options in zip(ids, ways, strict=False):
        direct, relayed = (curl(url, name, *options) for url in (mlserver.url, proxy.url))
        assert relayed == direct
    for name in ids[3:]:
        body = _v2(name, [float(len(name)), 1, 2, 3])
        answers = [
            proxy.client.post(url + _IRIS, content=body, headers=_JSON)
            for url in (mlserver.url, proxy.url)
        ]
        assert [answer.status_code for answer in answers] == [200, 200]
        assert answers[0].content == answers[1].content

    # Who gives no id is told the one that is stored.
    told = proxy.client.post(proxy.url + _IRIS, content=_v2(), headers=_JSON).headers
    ids.append(told["x-request-id"])

    items = service.wait_stored(len(ids))
    assert {item["request_id"] for item in items} == set(ids)
    assert {item["orphan"] for item in items} == {None}


_TRITON_HTTP = """
import json, sys
import numpy as np
import tritonclient.http as triton

url, name, is_binary = sys.argv[1], sys.argv[2], sys.argv[3] == "binary"
rows = np.array(json.loads(sys.argv[4]), np.float64)
client = triton.InferenceServerClient(url.removeprefix("http://"))
assert client.is_server_ready() and client.is_model_ready(name)
given = triton.InferInput("x", list(rows.shape), "FP64")
given.set_data_from_numpy(rows, binary_data=is_binary)
# Without outputs it asks for all of them in binary.
wanted = None if is_binary else [triton.InferRequestedOutput("predict", binary_data=False)]
for number in range(3):
    answer = client.infer(name, [given], outputs=wanted, request_id=f"t{number}")
output = answer.get_response()["outputs"][0]["name"]
print(json.dumps([output, answer.as_numpy(output).tolist()]))
"""
_TRITON_GRPC = """
import json, sys
import numpy as np
import tritonclient.grpc as triton

rows = np.array(json.loads(sys.argv[2]), np.float64)
client = triton.InferenceServerClient(sys.argv[1])
assert client.is_server_ready() and client.is_model_ready("iris")
given = triton.InferInput("x", list(rows.shape), "FP64")
given.set_data_from_numpy(rows)
for number in range(3):
    answer = client.infer("iris", [given], request_id=f"t{number}")
print(json.dumps(answer.as_numpy("predict").tolist()))
"""


def test_tritonclient_gets_from_mlserver_what_it_gets_without_the_proxy(
    service: "Service", relay: "Callable[..., Proxy]", mlserver: PeerServer
) -> None:
    proxy = relay(mlserver, "iris")
    rows = json.dumps([_ROW, [6.0, 3.0, 5.0, 2.0]])

    # MLServer reads and writes JSON only.
    direct, relayed = (
        _script("mlserver", _TRITON_HTTP, url, "iris", "json", rows)
        for url in (mlserver.url, proxy.url)
    )

    assert relayed == direct
    assert relayed[0] == "predict"
    items = service.wait_stored(3)
    assert {item["request_id"] for item in items} == {"t0", "t1", "t2"}
    assert [row["outputs"]["predict"] for row in items[0]["rows"]] == [0, 2]


def test_tritonclient_over_grpc_gets_from_mlserver_what_it_gets_without_the_proxy(
    service: "Service", relay: "Callable[..., Proxy]", mlserver: PeerServer
) -> None:
    listen = f"127.0.0.1:{free_ports(1)[0]}"
    relay(mlserver, "iris", **{"grpc-upstream": mlserver.grpc, "grpc-listen": listen})

    direct, relayed = (
        _script("mlserver", _TRITON_GRPC, place, json.dumps([_ROW]))
        for place in (mlserver.grpc, listen)
    )

    assert relayed == direct
    items = service.wait_stored(3)
    assert {item["request_id"] for item in items} == {"t0", "t1", "t2"}
    assert {item["orphan"] for item in items} == {None}
    (row,) = items[0]["rows"]
    assert list(row["features"].values()) == _ROW
    assert row["outputs"] == {"predict": 0}


_KSERVE_CLIENT = """
import asyncio, json, sys
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig

async def main():
    client = InferenceRESTClient(RESTConfig(protocol="v2"))
    assert await client.is_model_ready(sys.argv[1], "iris")
    request = InferRequest(
        "iris", [InferInput("x", [1, 4], "FP64", data=json.loads(sys.argv[2]))], request_id="k"
    )
    answer = await client.infer(sys.argv[1], request, model_name="iris")
    print(json.dumps([answer.id, answer.outputs[0].name, answer.outputs[0].data]))

asyncio.run(main())
"""


def test_the_client_of_kserve_gets_from_mlserver_what_it_gets_without_the_proxy(
    service: "Service", relay: "Callable[..., Proxy]", mlserver: PeerServer
) -> None:
    proxy = relay(mlserver, "iris")

    direct, relayed = (
        _script("kserve", _KSERVE_CLIENT, url, json.dumps(_ROW))
        for url in (mlserver.url, proxy.url)
    )

    assert relayed == direct == ["k", "predict", [0]]
    (inference,) = service.wait_stored(1)
    assert inference["request_id"] == "k"
    assert list(inference["rows"][0]["features"].values()) == _ROW
    assert inference["rows"][0]["outputs"] == {"predict": 0}


_WRK = """
local n = 0
request = function()
  n = n + 1
  return wrk.format("POST", "%s", {["content-type"] = "application/json"}, '%s')
end
"""


def test_everything_that_wrk_was_answered_by_mlserver_is_at_the_collector(
    service: "Service", relay: "Callable[..., Proxy]", mlserver: PeerServer, tmp_path: Path
) -> None:
    proxy = relay(mlserver, "iris")
    script = tmp_path / "load.lua"
    script.write_text(_WRK % (_IRIS, _v2().decode()))

    n_answered = n_runs = 0
    # A machine that stands still for that second answers nothing in it.
    while not n_answered and n_runs < _MOST_RUNS:
        n_runs += 1
        done = subprocess.run(
            [
                *(needed("wrk"), "-t1", "-c4", "-d1s", "--timeout", f"{_ANSWER_S}s"),
                *("-s", str(script), proxy.url),
            ],
            capture_output=True,
            text=True,
            timeout=_PATIENCE_S,
            check=True,
        )
        print(done.stdout)
        assert "Non-2xx" not in done.stdout
        assert "Socket errors" not in done.stdout
        n_answered = int(re.findall(r"(\d+) requests in", done.stdout)[0])
    assert n_answered
    service.wait_for(
        lambda metrics: metrics.total("inferences_total") >= n_answered, "all answers are stored"
    )
    assert service.metrics().total("quarantined_events_total") == 0


# --- KServe's Python server, with binary tensors ---


def test_binary_tensors_of_tritonclient_pass_and_are_stored_and_decoded(
    service: "Service", relay: "Callable[..., Proxy]", kserve: PeerServer
) -> None:
    proxy = relay(kserve, "sums")
    rows = [[1.5, 2.0], [3.0, 4.25]]

    direct, relayed = (
        _script("mlserver", _TRITON_HTTP, url, "sums", "binary", json.dumps(rows))
        for url in (kserve.url, proxy.url)
    )

    assert relayed == direct == ["sum", [3.5, 7.25]]
    items = service.wait_stored(3)
    assert {item["request_id"] for item in items} == {"t0", "t1", "t2"}
    stored = _stored(service)
    # The numbers as the client has them in memory, behind the JSON.
    assert stored["t0", "request"].endswith(struct.pack("<4d", 1.5, 2.0, 3.0, 4.25))
    assert stored["t0", "response"].endswith(struct.pack("<2d", 3.5, 7.25))
    found = items[0]["rows"]
    assert [list(row["features"].values()) for row in found] == rows
    assert [row["outputs"] for row in found] == [{"sum": 3.5}, {"sum": 7.25}]


# --- the MLflow scoring server ---


def test_answers_of_mlflow_are_the_same_byte_for_byte_and_both_bodies_are_stored(
    service: "Service", relay: "Callable[..., Proxy]", mlflow: PeerServer
) -> None:
    proxy = relay(mlflow, "iris")
    records = [dict(zip(_COLUMNS, _ROW, strict=True))]
    json_bodies = {
        "split": {"dataframe_split": {"columns": _COLUMNS, "data": [_ROW, [6.0, 3.0, 5.0, 2.0]]}},
        "records": {"dataframe_records": records},
        "inputs": {"inputs": [_ROW]},
        "instances": {"instances": [_ROW]},
        "wrong": {"nothing": 1},
    }
    requests = {name: (_JSON, json.dumps(body).encode()) for name, body in json_bodies.items()}
    header = ",".join(f'"{name}"' for name in _COLUMNS)
    csv = f"{header}\n{','.join(map(str, _ROW))}\n".encode()
    requests["csv"] = ({"Content-Type": "text/csv"}, csv)

    answers = {}
    for name, (headers, body) in requests.items():
        direct, relayed = (
            _ask(url, "/invocations", body, {**headers, "X-Request-Id": name})
            for url in (mlflow.url, proxy.url)
        )
        assert relayed == direct
        answers[name] = relayed

    assert {name: status for name, (status, _, _) in answers.items() if status != 200} == {
        "wrong": 400
    }
    inferences = {item["request_id"]: item for item in service.wait_stored(len(requests))}
    stored = _stored(service)
    for name, (_, body) in requests.items():
        assert stored[name, "request"] == body
        assert stored[name, "response"] == answers[name][2]
        assert inferences[name]["status"] == answers[name][0]
    for name in ("split", "records"):
        first = inferences[name]["rows"][0]
        assert first["features"] == records[0]
        assert list(first["outputs"].values()) == [0]
    assert len(inferences["split"]["rows"]) == 2
