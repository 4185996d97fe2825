"""Clients of others: curl, httpx, the CloudEvents SDK, wrk, and what platforms sent, bytewise."""

import base64
import gzip
import json
import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from cloudevents.core.bindings.http import to_binary_event, to_structured_event
from cloudevents.core.v1.event import CloudEvent

if TYPE_CHECKING:
    from tests.services.conftest import Proxy, Service

_WIRE = Path(__file__).parents[1] / "wire"
_SIDES = ("request", "response")
_PAYLOADS: dict[str, dict[str, Any]] = {
    "request": {"instances": [[1.5, 2.0], [3.0, 4.0]]},
    "response": {"predictions": [3.5, 7.0]},
}
_ROWS = [({"f0": 1.5, "f1": 2}, {"y": 3.5}), ({"f0": 3, "f1": 4}, {"y": 7})]
_BATCH = "application/cloudevents-batch+json"
# Limits that a slow machine does not reach, nor one that stands still for seconds.
_ANSWER_S = 120
_PATIENCE_S = 180.0
_MOST_RUNS = 20


def _attributes(side: str, event_id: str) -> dict[str, Any]:
    return {
        "specversion": "1.0",
        "id": event_id,
        "source": "/clients",
        "type": f"org.kubeflow.serving.inference.{side}",
        "namespace": "prod",
        "inferenceservicename": "sums",
    }


def _headers(side: str, event_id: str) -> dict[str, str]:
    return {
        **{f"ce-{name}": value for name, value in _attributes(side, event_id).items()},
        "content-type": "application/json",
    }


def _member(side: str, event_id: str) -> dict[str, Any]:
    return {**_attributes(side, event_id), "data": _PAYLOADS[side]}


def _assert_stored(service: "Service", ids: set[str]) -> None:
    items = service.wait_stored(len(ids))
    assert {item["request_id"] for item in items} == ids
    for item in items:
        assert item["orphan"] is None
        assert [(row["features"], row["outputs"]) for row in item["rows"]] == _ROWS


def _curl(service: "Service", body: bytes, headers: Mapping[str, str]) -> tuple[str, bytes]:
    """Return the status and the body of what curl is answered."""
    done = subprocess.run(
        [
            *("curl", "-sS", "--max-time", str(_ANSWER_S), "--data-binary", "@-"),
            *("-w", "\n%{http_code}"),
            *(part for item in headers.items() for part in ("-H", f"{item[0]}: {item[1]}")),
            f"{service.url}/",
        ],
        input=body,
        capture_output=True,
        check=True,
    )
    answer, _, status = done.stdout.rpartition(b"\n")
    return status.decode(), answer


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_sends_alone_in_batches_compressed_and_chunked(service: "Service") -> None:
    answers = []
    for side in _SIDES:
        body = json.dumps(_PAYLOADS[side]).encode()
        answers += [
            _curl(service, body, _headers(side, "alone")),
            _curl(
                service,
                gzip.compress(body),
                {**_headers(side, "gzip"), "Content-Encoding": "gzip"},
            ),
            _curl(service, body, {**_headers(side, "chunked"), "Transfer-Encoding": "chunked"}),
            _curl(service, body, {**_headers(side, "expect"), "Expect": "100-continue"}),
        ]
    batch = [_member(side, "batch") for side in _SIDES]
    answers += [_curl(service, json.dumps(batch).encode(), {"Content-Type": _BATCH})]

    assert answers == [("200", b"")] * len(answers)
    _assert_stored(service, {"alone", "gzip", "chunked", "expect", "batch"})


def test_httpx_sends_over_one_connection_and_over_many(service: "Service") -> None:
    with httpx.Client(base_url=service.url, timeout=_ANSWER_S) as client:
        answers = [
            client.post("/", json=_PAYLOADS[side], headers=_headers(side, f"one{number}"))
            for number in range(20)
            for side in (_SIDES if number % 2 else reversed(_SIDES))
        ]
    answers += [
        httpx.post(
            f"{service.url}/events",
            json=_PAYLOADS[side],
            headers=_headers(side, "many"),
            timeout=_ANSWER_S,
        )
        for side in _SIDES
    ]

    assert {(answer.status_code, answer.content) for answer in answers} == {(200, b"")}
    _assert_stored(service, {"many", *(f"one{number}" for number in range(20))})


@pytest.mark.parametrize("encode", [to_binary_event, to_structured_event])
def test_the_cloudevents_sdk_is_understood(service: "Service", encode: Callable[..., Any]) -> None:
    for side in reversed(_SIDES):
        attributes = {**_attributes(side, "sdk"), "datacontenttype": "application/json"}
        message = encode(CloudEvent(attributes, _PAYLOADS[side]))
        answer = service.post(message.body, message.headers)
        assert (answer.status_code, answer.content) == (200, b"")

    _assert_stored(service, {"sdk"})


def test_refusals_are_problems_that_name_what_was_expected(service: "Service") -> None:
    headers = _headers("request", "x")
    del headers["ce-type"]

    answer = service.post(b"{}", headers)

    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert "type" in answer.text


# --- what platforms send, byte for byte ---


def _raw(http: Mapping[str, Any]) -> bytes:
    body = http["body"]
    data = body["text"].encode() if "text" in body else base64.b64decode(body["base64"])
    headers = list(http["headers"])
    named = {name.lower() for name, _ in headers}
    # Some samples leave out what every client sends.
    if "host" not in named:
        headers.append(["Host", "collector"])
    if named.isdisjoint({"content-length", "transfer-encoding"}):
        headers.append(["Content-Length", str(len(data))])
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
    return f"{http['method']} {http['path']} HTTP/1.1\r\n{lines}\r\n".encode() + data


def _exchange(port: int, request: bytes) -> tuple[int, bytes]:
    """Send bytes over a socket; return the status and the body of the answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=_ANSWER_S) as client:
        client.sendall(request)
        answer = b""
        while b"\r\n\r\n" not in answer:
            part = client.recv(65536)
            assert part, "closed without an answer"
            answer += part
        head, _, body = answer.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: *(\d+)", head)
        while length is not None and len(body) < int(length[1]):
            part = client.recv(65536)
            assert part, "closed within an answer"
            body += part
        return int(head.split()[1]), body


def _samples() -> dict[str, dict[str, Any]]:
    found = (json.loads(path.read_text()) for path in sorted(_WIRE.glob("*.json")))
    return {sample["id"]: sample for sample in found if "ack" in sample}


def test_every_recorded_event_is_acknowledged_as_its_platform_wants(service: "Service") -> None:
    samples = _samples()
    answers = {
        name: _exchange(service.port, _raw(sample["http"])) for name, sample in samples.items()
    }

    wanted = {name: sample["ack"]["status"] for name, sample in samples.items()}
    assert {name: status for name, (status, _) in answers.items()} == wanted
    with_body = {name for name, (status, body) in answers.items() if status == 200 and body}
    assert with_body == set()
    assert len(samples) > 20


@pytest.mark.parametrize("names", [("ks01", "ks02"), ("ks02", "ks01")], ids=["asked-first", "last"])
def test_recorded_halves_of_kserve_meet_in_both_orders(
    service: "Service", names: tuple[str, str]
) -> None:
    samples = {name[:4]: sample for name, sample in _samples().items()}
    for name in (*names, "ks11"):
        # The third repeats the request, as a broker does.
        assert _exchange(service.port, _raw(samples[name]["http"])) == (200, b"")
    service.wait_for(
        lambda metrics: metrics.total("duplicate_events_total") == 1, "the repetition is known"
    )

    inference = service.wait_stored(1)[0]

    assert inference["deployment"] == "prod/sklearn-iris"
    assert inference["request_id"] == "0a6f1c1e-6f0f-4c0e-9c7b-3f6b1d1f0a11"
    assert inference["orphan"] is None
    assert [list(row["features"].values()) for row in inference["rows"]] == [
        [6.8, 2.8, 4.8, 1.4],
        [6.0, 3.4, 4.5, 1.6],
    ]
    assert [list(row["outputs"].values()) for row in inference["rows"]] == [[1], [1]]


def test_recorded_halves_of_seldon_meet_by_their_request_id(service: "Service") -> None:
    samples = {name[:4]: sample for name, sample in _samples().items()}
    for name in ("sc02", "sc01"):
        assert _exchange(service.port, _raw(samples[name]["http"])) == (200, b"")

    inference = service.wait_stored(1)[0]

    assert inference["deployment"] == "seldon/income"
    assert inference["request_id"] == "33fb419e-8d6b-44e0-a084-8bd4bd4dbf7b"
    assert inference["orphan"] is None
    assert [row["features"] for row in inference["rows"]] == [
        {"Age": 53, "Workclass": 4, "Hours per week": 60},
        {"Age": 28, "Workclass": 1, "Hours per week": 40},
    ]
    assert [row["outputs"] for row in inference["rows"]] == [
        {"t:0": 0.85, "t:1": 0.15},
        {"t:0": 0.2, "t:1": 0.8},
    ]


def test_recorded_feedback_of_seldon_is_joined(service: "Service") -> None:
    samples = {name[:4]: sample for name, sample in _samples().items()}
    for name in ("sc10", "sc01", "sc02"):
        assert _exchange(service.port, _raw(samples[name]["http"])) == (200, b"")

    inference = service.wait_stored(1)[0]

    assert [row["labels"] for row in inference["rows"]] == [{"reward": 1, "y": 1}, {}]


_WRK_SCRIPT = """
local n = 0
request = function()
  n = n + 1
  return wrk.format("POST", "/", {
    ["ce-specversion"] = "1.0", ["ce-id"] = "RUN-" .. n, ["ce-source"] = "/wrk",
    ["ce-type"] = "org.kubeflow.serving.inference.request", ["ce-namespace"] = "prod",
    ["ce-inferenceservicename"] = "load", ["content-type"] = "application/json",
  }, '{"instances": [[1, 2]]}')
end
"""


@pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")
def test_everything_that_wrk_got_acknowledged_is_taken(service: "Service", tmp_path: Path) -> None:
    script = tmp_path / "events.lua"
    answered = n_runs = 0
    # A machine that stands still for that second answers nothing in it.
    while not answered and n_runs < _MOST_RUNS:
        n_runs += 1
        script.write_text(_WRK_SCRIPT.replace("RUN", f"w{n_runs}"))
        done = subprocess.run(
            [
                *("wrk", "-t1", "-c4", "-d1s", "--timeout", f"{_ANSWER_S}s"),
                *("-s", str(script), f"{service.url}/"),
            ],
            capture_output=True,
            text=True,
            timeout=_PATIENCE_S,
            check=True,
        )
        print(done.stdout)
        assert "Non-2xx" not in done.stdout
        assert "Socket errors" not in done.stdout
        answered = int(re.findall(r"(\d+) requests in", done.stdout)[0])
    assert answered
    service.wait_for(
        lambda metrics: metrics.total("events_received_total") >= answered, "all is received"
    )
    metrics = service.metrics()
    assert metrics.total("duplicate_events_total") == 0
    assert metrics.total("quarantined_events_total") == 0


# --- the proxy between a client and a model server of the standard library ---


class _Sums(BaseHTTPRequestHandler):
    """A model that adds; keeps the heads that it was asked with."""

    protocol_version = "HTTP/1.1"
    asked: list[list[tuple[str, str]]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        type(self).asked.append(self.headers.items())
        answer = json.dumps(
            {"predictions": [sum(row) for row in json.loads(body)["instances"]]}
        ).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("X-Model-Revision", "7")
        self.send_header("Set-Cookie", "a=1")
        self.send_header("Set-Cookie", "b=2")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as in the standard library
        pass


@pytest.fixture
def model() -> Iterator[ThreadingHTTPServer]:
    handler = type("Sums", (_Sums,), {"asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join(_PATIENCE_S)
    server.server_close()


_PREDICT = "/v1/models/sums:predict"


def test_the_proxy_passes_everything_on_and_both_halves_are_stored(
    service: "Service", start_proxy: "Callable[..., Proxy]", model: ThreadingHTTPServer
) -> None:
    proxy = start_proxy(
        upstream=f"http://127.0.0.1:{model.server_address[1]}",
        sink=f"{service.url}/",
        deployment="prod/sums",
    )
    sent = [
        ("X-Request-Id", "p1"),
        ("X-Odd-CASE", "kept as it is"),
        ("X-Twice", "1"),
        ("X-Twice", "2"),
        ("Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ]

    answer = proxy.client.post(
        proxy.url + _PREDICT, json=_PAYLOADS["request"], headers=httpx.Headers(sent)
    )

    assert answer.json() == _PAYLOADS["response"]
    assert answer.headers["x-model-revision"] == "7"
    assert answer.headers.get_list("set-cookie") == ["a=1", "b=2"]
    asked = model.RequestHandlerClass.asked[0]  # type: ignore[attr-defined] # of the class above
    assert set(sent) <= set(asked)
    assert ("Host", proxy.url.removeprefix("http://")) in asked
    _assert_stored(service, {"p1"})
    inference = service.get_all("/v1/inferences")[0]
    assert inference["deployment"] == "prod/sums"
    assert inference["status"] == 200
    assert inference["latency_ms"] > 0


def test_a_model_that_is_down_is_answered_with_502_and_recorded(
    service: "Service", start_proxy: "Callable[..., Proxy]"
) -> None:
    with socket.socket() as nobody:
        # Bound and not listening: nobody else can take the port, and it refuses.
        nobody.bind(("127.0.0.1", 0))
        proxy = start_proxy(
            upstream=f"http://127.0.0.1:{nobody.getsockname()[1]}",
            sink=f"{service.url}/",
            deployment="prod/sums",
        )

        # At once, as Go's clients send it: what comes after the answer cannot be recorded.
        body = json.dumps(_PAYLOADS["request"])
        request = (
            f"POST {_PREDICT} HTTP/1.1\r\nHost: model\r\nX-Request-Id: down\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}"
        )
        status, _ = _exchange(int(proxy.url.rpartition(":")[2]), request.encode())

    assert status == 502
    inference = service.wait_stored(1)[0]
    assert inference["request_id"] == "down"
    assert inference["status"] == 502
    assert inference["orphan"] is None
    assert [row["features"] for row in inference["rows"]] == [row[0] for row in _ROWS]


def test_the_model_answers_while_the_collector_is_away_and_nothing_is_lost(
    service: "Service", start_proxy: "Callable[..., Proxy]", model: ThreadingHTTPServer
) -> None:
    proxy = start_proxy(
        upstream=f"http://127.0.0.1:{model.server_address[1]}",
        sink=f"{service.url}/",
        deployment="prod/sums",
    )
    service.kill()
    ids = {f"q{number}" for number in range(25)}

    for event_id in sorted(ids):
        answer = proxy.client.post(
            proxy.url + _PREDICT, json=_PAYLOADS["request"], headers={"X-Request-Id": event_id}
        )
        assert answer.json() == _PAYLOADS["response"]
    # What the proxy could not send by its end is in the spool, and another one sends it.
    assert proxy.stop() == 0
    service.start()
    proxy.start(
        upstream=f"http://127.0.0.1:{model.server_address[1]}",
        sink=f"{service.url}/",
        deployment="prod/sums",
    )

    _assert_stored(service, ids)


def test_calls_that_share_an_id_are_stored_each_where_none_is_trusted(
    service: "Service", start_proxy: "Callable[..., Proxy]", model: ThreadingHTTPServer
) -> None:
    proxy = start_proxy(
        upstream=f"http://127.0.0.1:{model.server_address[1]}",
        sink=f"{service.url}/",
        deployment="prod/sums",
        **{"request-ids": "generate"},
    )

    told = [
        proxy.client.post(
            proxy.url + _PREDICT,
            json={**_PAYLOADS["request"], "parameters": {"call": number}},
            headers={"X-Request-Id": "the same for all"},
        ).headers["x-request-id"]
        for number in range(3)
    ]

    assert {item["request_id"] for item in service.wait_stored(3)} == set(told)
    assert "the same for all" not in told
