"""A running service and everything that should not be sent to it: said, counted, and no harm."""

import gzip
import json
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.services.conftest import wait_until

from sidelight.logger import deployment_name

_DEPLOYMENT = "prod/flights"
_MEMORY_KB = 96 << 10
# Limits that a slow machine does not reach, nor one that stands still for seconds.
_PATIENCE_S = 180.0
_ANSWER_S = 120.0
_TYPE = "org.kubeflow.serving.inference."


def _headers(side: str, event_id: str, **more: str) -> dict[str, str]:
    return {
        "ce-specversion": "1.0",
        "ce-type": _TYPE + side,
        "ce-source": "/test",
        "ce-id": event_id,
        "ce-namespace": "prod",
        "ce-inferenceservicename": "flights",
        "content-type": "application/json",
        **{name.replace("_", "-"): value for name, value in more.items()},
    }


class Good:
    """Sends sound inferences around a bad one, and sees that each is found in time."""

    def __init__(self, service: Any) -> None:
        self.service = service
        self.sent: list[str] = []

    def send(self) -> None:
        event_id = f"good-{len(self.sent)}"
        for side, payload in (
            ("request", {"instances": [[1.0, 2.0]]}),
            ("response", {"predictions": [3.0]}),
        ):
            answer = self.service.post(json.dumps(payload), _headers(side, event_id))
            assert answer.status_code == 200, answer.text
            assert answer.content == b""
        self.sent.append(event_id)
        wait_until(lambda: self.find(event_id), f"{event_id} is found", timeout_s=_PATIENCE_S)

    def find(self, event_id: str) -> list[dict[str, Any]]:
        found = self.service.get("/v1/inferences", deployment=_DEPLOYMENT, limit=1000)["items"]
        return [item for item in found if item["request_id"] == event_id]

    def check(self) -> None:
        for event_id in self.sent:
            (found,) = self.find(event_id)
            (row,) = found["rows"]
            assert found["orphan"] is None
            assert row["features"] == {"f0": 1.0, "f1": 2.0}
            assert row["outputs"] == {"y": 3.0}


@pytest.fixture
def good(service: Any) -> Good:
    """Sound traffic over one running service."""
    return Good(service)


def _send_pair(good: Good, event_id: str, request: bytes, response: bytes, **more: str) -> None:
    """Send a pair of which the request is odd; the door must take it."""
    answer = good.service.post(request, _headers("request", event_id, **more))
    assert answer.status_code == 200, answer.text
    answer = good.service.post(response, _headers("response", event_id))
    assert answer.status_code == 200, answer.text


def _wait_counter(good: Good, name: str, at_least: float, **labels: str) -> None:
    good.service.wait_for(
        lambda metrics: metrics.total(name, **labels) >= at_least,
        f"{name} {labels} is at least {at_least}",
    )


def _found(good: Good, event_id: str) -> dict[str, Any]:
    wait_until(lambda: good.find(event_id), f"{event_id} is stored", timeout_s=_PATIENCE_S)
    (item,) = good.find(event_id)
    return item


def _all(good: Good) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = good.service.get_all("/v1/inferences")
    return found


def _resident_kb(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmRSS")))


def _peak_kb(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmHWM")))


def test_payloads_that_nobody_understands_are_stored_opaque_and_counted(good: Good) -> None:
    answer = b'{"predictions": [3.0]}'
    bomb = gzip.compress(b"0" * (65 << 20), 1)
    payloads = {
        "unknown": b'{"what": {"is": ["this"]}}',
        "garbage": bytes(range(256)),
        "empty": b"",
        "truncated": gzip.compress(b'{"instances": [[1.0]]}')[:-8],
        "bomb": bomb,
        "deep": b"[" * 10_000 + b"]" * 10_000,
        "deep-object": b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
        "wrong-shape": b'{"inputs": [{"name": "x", "shape": [2, 2], "datatype": "FP32",'
        b' "data": [1, 2, 3]}]}',
        "huge-shape": b'{"inputs": [{"name": "x", "shape": [9223372036854775807, 9], '
        b'"datatype": "FP32", "data": [1]}]}',
        "negative-shape": b'{"inputs": [{"name": "x", "shape": [-1, 2], "datatype": "FP32",'
        b' "data": [1, 2]}]}',
        "wrong-type": b'{"inputs": [{"name": "x", "shape": [1], "datatype": "NOPE", "data": [1]}]}',
        "lone-surrogate": b'{"instances": [["\\ud800"]]}',
        "huge-number": b'{"instances": [[1e999, 123456789012345678901234567890]]}',
        "xml": b"<inputs/>",
    }
    good.send()
    for name, payload in payloads.items():
        _send_pair(good, name, payload, answer)
        good.send()
    good.send()
    good.check()

    for name in payloads:
        item = _found(good, name)
        assert item["orphan"] is None, name
        assert item["rows"][0]["outputs"] == {"y": 3.0}, name
    for name in ("unknown", "garbage", "truncated", "bomb", "deep", "deep-object", "xml"):
        assert list(_found(good, name)["rows"][0]["features"]) == ["f0"], name
    n_inferences = len(good.sent) + len(payloads)
    metrics = good.service.wait_for(
        lambda metrics: metrics.total("inferences_total") >= n_inferences, "all are counted"
    )
    assert metrics.total("undecoded_events_total") >= 9
    assert metrics.total("inferences_total") == n_inferences
    assert metrics.total("quarantined_events_total") == 0
    assert good.service.stop() == 0
    assert good.service.command("verify").returncode == 0


def test_missing_and_infinite_numbers_are_null(good: Good) -> None:
    good.send()
    _send_pair(good, "nan", b'{"instances": [[NaN, -Infinity]]}', b'{"predictions": [NaN]}')
    good.send()

    (row,) = _found(good, "nan")["rows"]

    assert row["features"] == {"f0": None, "f1": None}
    assert row["outputs"] == {"y": None}
    good.check()


def test_columns_may_change_from_one_event_to_the_next(good: Good) -> None:
    instances = [
        [1.0, 2.0],
        [1.0, 2.0, 3.0],
        ["one"],
        [True, None],
        {"age": 1, "sex": "f"},
        {"sex": 2},
        [[1, 2], [3]],
        [],
    ]
    good.send()
    for number, row in enumerate(instances):
        body = json.dumps({"instances": [row]}).encode()
        _send_pair(good, f"changing-{number}", body, b'{"predictions": [[1, 2, 3]]}')
    good.send()

    features = [_found(good, f"changing-{n}")["rows"][0]["features"] for n in range(len(instances))]

    assert features[0] == {"f0": 1.0, "f1": 2.0}
    assert features[1] == {"f0": 1.0, "f1": 2.0, "f2": 3.0}
    assert features[2] == {"f0": "one"}
    assert features[4] == {"age": 1, "sex": "f"}
    assert features[5] == {"sex": 2}
    # A column of two kinds can still be asked for, and by what it holds.
    found = good.service.get("/v1/inferences", deployment=_DEPLOYMENT, where="features.age = 1")
    assert [item["request_id"] for item in found["items"]] == ["changing-4"]
    assert good.service.get("/v1/inferences", where="features.f0 = 1")["items"]
    good.check()


def test_event_without_id_or_time_is_taken_and_one_without_type_is_not(good: Good) -> None:
    good.send()
    headers = _headers("request", "x")
    del headers["ce-id"]
    assert good.service.post(b'{"instances": [[1]]}', headers).status_code == 200
    _wait_counter(good, "missing_ids_total", 1)
    for name in ("ce-type", "ce-source", "ce-specversion"):
        headers = _headers("request", "y")
        del headers[name]

        answer = good.service.post(b'{"instances": [[1]]}', headers)

        assert answer.status_code == 400
        assert answer.headers["content-type"] == "application/problem+json"
        problem = answer.json()
        assert name in problem["got"] + problem["detail"], problem
        assert problem["expected"]
    _wait_counter(good, "requests_total", 3, outcome="refused")
    good.send()
    good.check()
    assert all(_found(good, event_id)["time"] for event_id in good.sent)


def test_requests_that_are_no_events_are_refused_with_what_was_expected(good: Good) -> None:
    deep = b'{"specversion": "1.0", "id": "1", "source": "/", "type": "t", "data": '
    bad = [
        (b'{"a": 1}', {"content-type": "application/json"}, 400),
        (b"garbage", {}, 400),
        (b"garbage", {"content-type": "text/plain"}, 400),
        (b"{", {"content-type": "application/cloudevents+json"}, 400),
        (b"[1", {"content-type": "application/cloudevents-batch+json"}, 400),
        (b"{}", {"content-type": "application/cloudevents+json"}, 400),
        (b"{}", {"content-type": "application/cloudevents+avro"}, 415),
        (
            deep + b"[" * 10_000 + b"]" * 10_000 + b"}",
            {"content-type": "application/cloudevents+json"},
            400,
        ),
        (
            gzip.compress(b"[" + b" " * (65 << 20) + b"]", 1),
            {"content-type": "application/cloudevents-batch+json", "content-encoding": "gzip"},
            413,
        ),
        (
            gzip.compress(b"[]")[:-6],
            {"content-type": "application/cloudevents-batch+json", "content-encoding": "gzip"},
            400,
        ),
        (
            b"[]",
            {"content-type": "application/cloudevents-batch+json", "content-encoding": "br"},
            415,
        ),
    ]
    good.send()
    for body, headers, status in bad:
        answer = good.service.post(body, headers)

        assert answer.status_code == status, (body[:40], headers, answer.text)
        problem = answer.json()
        assert problem.keys() >= {"type", "title", "status", "detail", "expected", "got"}, problem
    _wait_counter(good, "requests_total", len(bad), outcome="refused")
    good.send()
    good.check()


def test_bad_member_of_a_batch_costs_the_others_nothing(good: Good) -> None:
    def member(side: str, event_id: str, data: object, **more: object) -> dict[str, object]:
        return {
            "specversion": "1.0",
            "type": _TYPE + side,
            "source": "/x",
            "id": event_id,
            "namespace": "prod",
            "inferenceservicename": "flights",
            "data": data,
            **more,
        }

    batch = [
        member("request", "in-batch", {"instances": [[1.0, 2.0]]}),
        {"specversion": "1.0", "id": "no type"},
        "no object",
        17,
        member("request", "deep", 1) | {"type": ""},
        member("response", "in-batch", {"predictions": [3.0]}),
    ]
    answer = good.service.post(
        json.dumps(batch), {"content-type": "application/cloudevents-batch+json"}
    )

    assert answer.status_code == 200
    assert _found(good, "in-batch")["orphan"] is None
    _wait_counter(good, "quarantined_events_total", 4)
    good.send()
    good.check()


def test_body_of_100_mb_is_refused_and_the_memory_of_the_door_is_bounded(good: Good) -> None:
    good.send()
    door = good.service.children()["door"]
    before = _resident_kb(door)
    host = ("127.0.0.1", good.service.port)
    head = "\r\n".join(f"{k}: {v}" for k, v in _headers("request", "big").items())

    declared = _raw(
        host,
        f"POST / HTTP/1.1\r\nHost: x\r\n{head}\r\nContent-Length: {100 << 20}\r\n\r\n".encode(),
        (b"0" * (1 << 20) for _ in range(100)),
    )
    chunk = b"100000\r\n" + b"0" * (1 << 20) + b"\r\n"
    chunked = _raw(
        host,
        f"POST / HTTP/1.1\r\nHost: x\r\n{head}\r\nTransfer-Encoding: chunked\r\n\r\n".encode(),
        (chunk for _ in range(100)),
    )

    assert b" 413 " in declared.split(b"\r\n")[0]
    assert b" 413 " in chunked.split(b"\r\n")[0]
    assert b"16" in declared.partition(b"\r\n\r\n")[2], "the limit is named"
    assert _peak_kb(door) - before < _MEMORY_KB
    _wait_counter(good, "requests_total", 2, outcome="refused")
    good.send()
    good.check()


def test_bombs_do_not_fill_the_memory_of_the_consumer(good: Good) -> None:
    good.send()
    consumer = good.service.children()["consumer"]
    before = _resident_kb(consumer)
    bomb = gzip.compress(b"0" * (512 << 20), 1)
    for number in range(4):
        _send_pair(good, f"bomb-{number}", bomb, b'{"predictions": [1]}')
    for number in range(4):
        _found(good, f"bomb-{number}")

    assert _peak_kb(consumer) - before < 512 << 10
    good.send()
    good.check()


def test_huge_headers_are_refused(good: Good) -> None:
    good.send()
    answer = good.service.post(b"{}", _headers("request", "h") | {"ce-note": "x" * 70_000})

    assert answer.status_code == 413
    long_id = "i" * 30_000
    _send_pair(good, long_id, b'{"instances": [[1.0]]}', b'{"predictions": [1]}')
    assert _found(good, long_id)["request_id"] == long_id
    good.send()
    good.check()


def test_names_of_all_kinds_are_kept_apart_and_found(good: Good) -> None:
    names = ["a/b", "a%2Fb", "ünï", "<script>", "..", "tab\tname", "x" * 500, "quo'te\"", "a b"]
    controls = ["line\nbreak", "nul\x00", "\u202ertl"]
    good.send()
    for number, name in enumerate([*names, *controls]):
        for side, data in (
            ("request", {"instances": [{"col/umn\n<b>": 1.0, "": 2, "é": 3}]}),
            ("response", {"predictions": [1]}),
        ):
            event = {
                "specversion": "1.0",
                "type": _TYPE + side,
                "source": "/x",
                "id": f"name-{number}",
                "namespace": "odd",
                "inferenceservicename": name,
                "data": data,
            }
            answer = good.service.post(
                json.dumps(event), {"content-type": "application/cloudevents+json"}
            )
            assert answer.status_code == 200, (name, answer.text)
    good.send()

    everything = [*names, *controls]
    good.service.wait_for(
        lambda metrics: metrics.total("inferences_total", namespace="odd") >= len(everything),
        "all odd names are stored",
    )
    wait_until(
        lambda: (
            sum(item["deployment"].startswith("odd/") for item in _all(good)) >= len(everything)
        ),
        "all odd names can be found",
        timeout_s=_PATIENCE_S,
    )
    for name in everything:
        if name != "a%2Fb":
            # As sent; a name that looks encoded is found in its stored form only.
            assert len(good.service.get("/v1/inferences", deployment=f"odd/{name}")["items"]) == 1
        shown = deployment_name("odd", name)
        (item,) = good.service.get("/v1/inferences", deployment=shown)["items"]
        assert item["deployment"] == shown
        assert item["rows"][0]["features"] == {"col/umn\n<b>": 1.0, "": 2, "é": 3}, name
    page = good.service.client.get(good.service.url + "/")
    assert page.status_code == 200
    assert "<script>" not in page.text
    assert good.service.get("/v1/deployments")["items"]
    good.check()


def test_garbage_on_the_socket_closes_that_connection_only(good: Good) -> None:
    good.send()
    host = ("127.0.0.1", good.service.port)
    for garbage in (
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
        b"GARBAGE\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"\r\n" * 1000,
    ):
        answer = _raw(host, garbage, iter(()))
        assert answer == b"" or answer.startswith(b"HTTP/1.1 4"), (garbage[:20], answer[:80])
    good.send()
    good.check()


def _raw(host: tuple[str, int], head: bytes, parts: Any) -> bytes:
    """Send bytes as they are; return what is answered before the connection ends."""
    with socket.create_connection(host, _ANSWER_S) as connection:
        try:
            connection.sendall(head)
            for part in parts:
                connection.sendall(part)
            connection.shutdown(socket.SHUT_WR)
        except (BrokenPipeError, ConnectionResetError):
            pass
        answer = b""
        try:
            while data := connection.recv(65536):
                answer += data
        except (ConnectionResetError, TimeoutError):
            pass
        return answer


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param(
            "pairing: {orphan_after: 60}", ["pairing.orphan_after", "60s", "60"], id="unit"
        ),
        pytest.param("listen: {prot: 1}", ["listen.prot", "unknown key", "port"], id="typo"),
        pytest.param(
            "deployments: [{name: a/b, detection: {window_rows: 100}}]",
            ["deployments[0].detection.window_rows", "250", "100"],
            id="nested",
        ),
        pytest.param("deployments: [{name: flights}]", ["namespace/name", "flights"], id="name"),
        pytest.param("a: [", ["is no YAML"], id="no-yaml"),
        pytest.param("- 1", ["expected keys and values", "list"], id="list"),
    ],
)
def test_wrong_key_in_the_file_ends_the_command_with_2(
    tmp_path: Path, text: str, said: list[str]
) -> None:
    path = tmp_path / "sidelight.yaml"
    path.write_text(text)

    ended = subprocess.run(
        [sys.executable, "-m", "sidelight.service", "serve", "--config", str(path)],
        capture_output=True,
        text=True,
        timeout=_PATIENCE_S,
        check=False,
        cwd=tmp_path,
    )

    assert ended.returncode == 2
    assert all(part in ended.stderr for part in said), ended.stderr
    assert "Traceback" not in ended.stderr
    assert list(tmp_path.iterdir()) == [path]


def test_an_address_that_others_reach_takes_tokens(start_service: Any) -> None:
    service = start_service(config={"listen": {"host": "0.0.0.0"}})
    assert service.client.get(f"{service.url}/v1/inferences").status_code == 401
    assert service.post(b"{}", {"ce-id": "1"}).status_code == 401
    assert service.wait_for_log(re.compile(rb"sidelight token create"))


def test_feedback_that_cannot_be_read_is_quarantined_or_refused(good: Good) -> None:
    good.send()
    url = good.service.url + "/v1/feedback"
    refused = good.service.client.post(url, content=b"{", headers={"content-type": "a/b"})
    assert refused.status_code in {400, 415}
    headers = _headers("request", "fb") | {"ce-type": "io.sidelight.feedback"}
    for number, body in enumerate((b"no json", b'{"labels": {}}', b"[1]")):
        assert good.service.post(body, headers | {"ce-id": f"fb-{number}"}).status_code == 200
    _wait_counter(good, "quarantined_events_total", 3)
    label = {"deployment": _DEPLOYMENT, "request_id": "good-0", "labels": {"late": True}}
    assert good.service.client.post(url, json=label).status_code == 200
    wait_until(
        lambda: _found(good, "good-0")["rows"][0]["labels"] == {"late": True},
        "the label is joined",
        timeout_s=_PATIENCE_S,
    )
    good.send()
    good.check()
