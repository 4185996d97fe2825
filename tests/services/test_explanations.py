"""Explanations by a running service, of a small real model server that counts what it is asked."""

import json
import math
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest
from tests.services.conftest import wait_until

_DEPLOYMENT = "prod/income"
_ROUTE = f"/v1/deployments/{_DEPLOYMENT}"
_FEATURES = ("age", "hours", "kind")
_REFERENCE_ROWS = 120
# A limit that a slow machine does not reach, nor one that stands still for seconds.
_PATIENCE_S = 180.0
# One of them is long enough for a model to be asked in.
_DEADLINES_MS = (500, 2_000, 8_000, 32_000)


def _predict(age: float, hours: float, kind: str) -> float:
    return 3.0 * age + math.sin(hours) * (2.0 if kind == "a" else -1.0) + 7.0


class Model:
    """A V2 server with two outputs; its behaviour can be changed, and it keeps every request."""

    def __init__(self) -> None:
        self.version: str | None = "v1"
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.answer_with: tuple[int, bytes] | None = None
        self.asked: list[tuple[dict[str, str], dict[str, Any]]] = []
        model = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                status, content = model.answer(headers, json.loads(body))
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        class Server(ThreadingHTTPServer):
            def handle_error(self, *_: object) -> None:
                """A client that went away is what some tests are about."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def answer(self, headers: dict[str, str], body: dict[str, Any]) -> tuple[int, bytes]:
        self.asked.append((headers, body))
        self.may_answer.wait()
        if self.answer_with is not None:
            return self.answer_with
        columns = {item["name"]: item["data"] for item in body["inputs"]}
        rows = list(zip(*(columns[name] for name in _FEATURES), strict=True))
        values = [_predict(*row) for row in rows]
        answered: dict[str, Any] = {
            "model_name": "income",
            "outputs": [
                {"name": "score", "shape": [len(rows)], "datatype": "FP64", "data": values},
                {
                    "name": "double",
                    "shape": [len(rows)],
                    "datatype": "FP64",
                    "data": [2 * value for value in values],
                },
            ],
        }
        if self.version is not None:
            answered["model_version"] = self.version
        return 200, json.dumps(answered).encode()

    @property
    def rows_asked(self) -> int:
        return sum(body["inputs"][0]["shape"][0] for _, body in self.asked)

    def close(self) -> None:
        self.may_answer.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def service(start_service: Callable[..., Any]) -> Any:
    """A running service that waits for the model as long as it takes."""
    return start_service(config={"explanations": {"deadline": "5m"}})


@pytest.fixture
def model() -> Iterator[Model]:
    server = Model()
    yield server
    server.close()


def _request(rows: list[tuple[float, float, str]]) -> dict[str, Any]:
    columns = list(zip(*rows, strict=True))
    kinds = ("FP64", "FP64", "BYTES")
    return {
        "inputs": [
            {"name": name, "shape": [len(rows)], "datatype": kind, "data": list(values)}
            for name, kind, values in zip(_FEATURES, kinds, columns, strict=True)
        ]
    }


def _rows(n: int, seed: int = 0) -> list[tuple[float, float, str]]:
    rng = np.random.default_rng(seed)
    return [
        (float(rng.normal(40, 9)), float(rng.normal()), str(rng.choice(["a", "b"])))
        for _ in range(n)
    ]


def _log(service: Any, event_id: str, request: dict[str, Any], response: dict[str, Any]) -> None:
    """Send both halves of an inference, as a logger beside the model does."""
    for side, payload in (("request", request), ("response", response)):
        headers = {
            "ce-specversion": "1.0",
            "ce-type": f"org.kubeflow.serving.inference.{side}",
            "ce-source": "/test",
            "ce-id": event_id,
            "ce-namespace": "prod",
            "ce-inferenceservicename": "income",
            "content-type": "application/json",
        }
        assert service.post(json.dumps(payload), headers).status_code == 200


class Explained:
    """A service with traffic of the model and a complete reference."""

    def __init__(self, service: Any, model: Model) -> None:
        self.service = service
        self.model = model
        settings = {"reference": {"first_rows": _REFERENCE_ROWS}}
        assert service.client.put(service.url + _ROUTE, json=settings).status_code == 200
        rows = _rows(_REFERENCE_ROWS + 2)
        self.last = rows[-2:]
        self._send("first", rows[:-2])
        service.wait_for(
            lambda metrics: metrics.total("reference_rows") == _REFERENCE_ROWS, "the reference"
        )
        # The published digest follows in the same commit.
        self._send("last", self.last)
        self.inference_id = next(
            item["id"] for item in service.wait_stored(2) if item["request_id"] == "last"
        )
        model.asked.clear()

    def _send(self, event_id: str, rows: list[tuple[float, float, str]]) -> None:
        request = _request(rows)
        status, answered = self.model.answer({}, request)
        assert status == 200
        _log(self.service, event_id, request, json.loads(answered))

    def configure(self, **model: Any) -> None:
        settings = {
            "reference": {"first_rows": _REFERENCE_ROWS},
            "model": {"url": self.model.url, "name": "income", **model},
        }
        answer = self.service.client.put(self.service.url + _ROUTE, json=settings)
        assert answer.status_code == 200, answer.text

    def ask(self, status: int = 200, **question: Any) -> dict[str, Any]:
        question = question or {"inference_id": self.inference_id}
        answer = self.service.client.post(self.service.url + "/v1/explanations", json=question)
        assert answer.status_code == status, answer.text
        value: dict[str, Any] = answer.json()
        if status >= 400:
            assert answer.headers["content-type"] == "application/problem+json"
            assert value["detail"]
        return value

    def finished(self, begun: dict[str, Any]) -> dict[str, Any]:
        """Return an explanation once it runs no more."""
        path = f"/v1/explanations/{begun['id']}"
        wait_until(
            lambda: self.service.get(path)["state"] != "running",
            "the explanation ends",
            timeout_s=_PATIENCE_S,
        )
        found: dict[str, Any] = self.service.get(path)
        return found


@pytest.fixture
def explained(service: Any, model: Model) -> Explained:
    """A service with the model configured."""
    ready = Explained(service, model)
    ready.configure()
    return ready


def _check_sums(explanation: dict[str, Any]) -> None:
    for row in explanation["rows"]:
        total = row["base"] + sum(item["value"] for item in row["attributions"].values())
        assert total == pytest.approx(row["prediction"], abs=1e-9)


def test_logged_inference_is_explained_by_its_id(explained: Explained) -> None:
    found = explained.ask(inference_id=explained.inference_id)

    assert (found["state"], found["deployment"], found["version"]) == ("done", _DEPLOYMENT, "v1")
    assert found["inference_id"] == explained.inference_id
    assert len(found["rows"]) == 2
    for row, asked in zip(found["rows"], explained.last, strict=True):
        assert row["prediction"] == pytest.approx(_predict(*asked), abs=1e-9)
        assert row["attributions"].keys() == set(_FEATURES)
        assert all(
            item.keys() >= {"value", "standard_error"} for item in row["attributions"].values()
        )
    _check_sums(found)
    # The model adds age by itself: the attribution is its distance from the background.
    first, second = (row["attributions"]["age"]["value"] for row in found["rows"])
    ages = [row[0] for row in explained.last]
    assert first - second == pytest.approx(3 * (ages[0] - ages[1]), abs=1e-9)
    assert found["quality"]["converged"] is True
    assert explained.service.get(f"/v1/explanations/{found['id']}")["rows"] == found["rows"]


def test_cost_is_what_the_model_counted_and_every_call_is_marked(explained: Explained) -> None:
    before = explained.service.metrics().total("explainer_model_rows_total")

    found = explained.ask()

    asked = explained.model.asked
    assert found["cost"]["model_calls"] == len(asked)
    assert found["cost"]["model_rows"] == explained.model.rows_asked
    assert found["cost"]["seconds"] > 0
    metrics = explained.service.metrics()
    assert metrics.total("explainer_model_rows_total") - before == explained.model.rows_asked
    assert metrics.total("explainer_model_calls_total") == len(asked)
    assert metrics.total("explanations_total", outcome="done") == 1
    assert len({headers["ce-id"] for headers, _ in asked}) == len(asked)
    for headers, body in asked:
        assert headers["sidelight-skip"] == "true"
        assert headers["seldon-skip-logging"] == "true"
        assert headers["ce-id"].startswith(f"explain-{found['id']}")
        assert [(item["name"], item["datatype"]) for item in body["inputs"]] == [
            ("age", "FP64"),
            ("hours", "FP64"),
            ("kind", "BYTES"),
        ]


def test_same_request_has_the_same_answer(explained: Explained) -> None:
    first, second = (explained.ask() for _ in range(2))

    assert first["id"] != second["id"]
    assert first["rows"] == second["rows"]


def test_instances_are_objects_or_lists(explained: Explained) -> None:
    row = explained.last[0]
    given = dict(reversed(list(zip(_FEATURES, row, strict=True))))

    by_name = explained.ask(deployment=_DEPLOYMENT, instances=[given])
    by_place = explained.ask(deployment=_DEPLOYMENT, instances=[list(row)])
    by_id = explained.ask(inference_id=explained.inference_id, row=0)

    assert by_name["rows"] == by_place["rows"]
    # Another version is named: the same up to the order in which the background is added up.
    for name, item in by_id["rows"][0]["attributions"].items():
        expected = by_name["rows"][0]["attributions"][name]["value"]
        assert item["value"] == pytest.approx(expected, abs=1e-9)
    assert by_name["inference_id"] is None
    _check_sums(by_name)


def test_row_and_output_are_chosen(explained: Explained) -> None:
    second = explained.ask(inference_id=explained.inference_id, row=1)
    double = explained.ask(inference_id=explained.inference_id, row=1, output="double")

    assert len(second["rows"]) == len(double["rows"]) == 1
    assert second["rows"][0]["prediction"] == pytest.approx(_predict(*explained.last[1]))
    assert double["rows"][0]["prediction"] == pytest.approx(2 * _predict(*explained.last[1]))
    _check_sums(double)


@pytest.mark.parametrize(
    ("question", "status", "said"),
    [
        pytest.param({"inference_id": "0" * 32}, 404, "0" * 32, id="unknown-inference"),
        pytest.param({"inference_id": "LAST", "row": 2}, 400, "row", id="no-such-row"),
        pytest.param({"inference_id": "LAST", "output": "triple"}, 400, "double", id="output"),
        pytest.param({"inference_id": "LAST", "deployment": "a/b"}, 400, "another", id="other"),
        pytest.param({"inference_id": "LAST", "method": "magic"}, 400, "method", id="method"),
        pytest.param({"inference_id": "LAST", "x": 1}, 400, "x", id="unknown-key"),
        pytest.param({"instances": [[1, 2, "a"]]}, 400, "deployment", id="no-deployment"),
        pytest.param({}, 400, "inference_id", id="neither"),
        pytest.param(
            {"deployment": _DEPLOYMENT, "instances": [[1, 2]]}, 400, "3 values", id="short"
        ),
        pytest.param(
            {"deployment": _DEPLOYMENT, "instances": [{"age": 1}]}, 400, "hours", id="missing"
        ),
        pytest.param(
            {"deployment": _DEPLOYMENT, "instances": [["x", "y", 3]]}, None, "", id="wrong-kinds"
        ),
        pytest.param({"inference_id": "LAST", "budget_rows": 1}, 400, "budget_rows", id="budget"),
        pytest.param({"inference_id": "LAST", "deadline_ms": 0}, 400, "deadline_ms", id="deadline"),
        pytest.param({"deployment": "no/traffic", "instances": [[1]]}, 409, "model", id="unknown"),
    ],
)
def test_questions_that_cannot_be_answered(
    explained: Explained, question: dict[str, Any], status: int | None, said: str
) -> None:
    if question.get("inference_id") == "LAST":
        question = question | {"inference_id": explained.inference_id}
    url = explained.service.url + "/v1/explanations"

    answer = explained.service.client.post(url, json=question)

    if status is None:
        assert 400 <= answer.status_code < 500 or answer.status_code in {502, 503}, answer.text
    else:
        assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert said in answer.text


def test_without_a_model_the_key_to_set_is_named(service: Any, model: Model) -> None:
    explained = Explained(service, model)

    problem = explained.ask(409)

    assert "model.url" in problem["expected"]
    assert _ROUTE in problem["hint"]


def test_without_a_complete_reference_it_is_said_how_far_it_is(service: Any, model: Model) -> None:
    _log(service, "one", _request(_rows(3)), {"outputs": [], "model_name": "income"})
    (item,) = service.wait_stored(1)
    settings = {"model": {"url": model.url, "name": "income"}}
    assert service.client.put(service.url + _ROUTE, json=settings).status_code == 200

    answer = service.client.post(
        service.url + "/v1/explanations", json={"inference_id": item["id"]}
    )

    assert answer.status_code == 409
    assert "reference" in answer.json()["detail"]
    assert model.asked == []


def test_model_that_is_down_is_503(explained: Explained) -> None:
    explained.model.close()

    problem = explained.ask(503)

    assert explained.model.url in problem["detail"]
    assert explained.service.metrics().total("explanations_total", outcome="failed") == 1


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        pytest.param((200, b"<html>"), 502, id="no-json"),
        pytest.param((200, b"[1]"), 502, id="no-object"),
        pytest.param((200, b'{"outputs": []}'), 502, id="no-outputs"),
        pytest.param(
            (200, b'{"outputs": [{"name": "y", "shape": [1], "datatype": "FP64", "data": [1]}]}'),
            502,
            id="too-few-rows",
        ),
        pytest.param((404, b'{"error": "no such model"}'), 502, id="not-found"),
        pytest.param((500, b'{"error": "out of memory"}'), 503, id="failed"),
    ],
)
def test_rubbish_is_never_an_explanation(
    explained: Explained, answer: tuple[int, bytes], status: int
) -> None:
    explained.model.answer_with = answer

    explained.ask(status)

    explained.model.answer_with = None
    assert explained.ask()["state"] == "done"


def test_slow_model_is_504_by_the_deadline(explained: Explained) -> None:
    explained.model.may_answer.clear()

    for deadline_ms in _DEADLINES_MS:
        explained.ask(504, inference_id=explained.inference_id, deadline_ms=deadline_ms)
        # A machine that stands still may not even come to asking.
        if explained.model.asked:
            break

    assert explained.model.asked


def test_other_version_than_the_one_that_served_is_said(explained: Explained) -> None:
    explained.model.version = "v2"

    problem = explained.ask(409)

    assert (problem["expected"], problem["got"]) == ("v1", "v2")
    assert "model.versions" in problem["hint"]
    old = Model()
    explained.configure(versions={"v1": old.url})
    found = explained.ask()
    assert found["version"] == "v1"
    assert old.asked
    old.close()
    # Instances have no version of their own: whatever stands there answers, and is named.
    given = explained.ask(deployment=_DEPLOYMENT, instances=[list(explained.last[0])])
    assert given["version"] == "v2"


def test_one_that_is_not_waited_for_is_found_when_done(explained: Explained) -> None:
    explained.model.may_answer.clear()

    begun = explained.ask(202, inference_id=explained.inference_id, wait=False)

    assert begun["state"] == "running"
    explained.model.may_answer.set()
    found = explained.finished(begun)
    assert found["state"] == "done"
    _check_sums(found)
    explained.model.answer_with = (200, b"<html>")
    other = {"deployment": _DEPLOYMENT, "instances": [[1.0, 2.0, "c"]]}
    failed = explained.finished(explained.ask(202, **other, wait=False))
    assert failed["state"] == "failed"
    assert failed["problem"]["status"] == 502


def test_explanations_are_found_again_after_a_restart(explained: Explained) -> None:
    done = explained.ask()
    explained.model.may_answer.clear()
    other = {"deployment": _DEPLOYMENT, "instances": [[1.0, 2.0, "c"]]}
    running = explained.ask(202, **other, wait=False)
    path = f"/v1/explanations/{running['id']}"
    assert explained.service.get(path)["state"] == "running"
    explained.service.kill()
    explained.model.may_answer.set()

    explained.service.start()

    kept = explained.service.get(f"/v1/explanations/{done['id']}")
    assert kept["rows"] == done["rows"]
    assert explained.ask()["rows"] == done["rows"]
    # What was under way when the service ended is over, and says so.
    lost = explained.service.get(f"/v1/explanations/{running['id']}")
    assert lost["state"] == "failed"
    assert lost["problem"]["detail"]


def test_calls_through_the_proxy_are_not_captured(explained: Explained, start_proxy: Any) -> None:
    proxy = start_proxy(
        upstream=explained.model.url,
        sink=explained.service.url + "/",
        deployment=_DEPLOYMENT,
    )
    explained.configure(url=proxy.url)
    before = explained.service.metrics().total("events_received_total")

    found = explained.ask()
    answer = proxy.client.post(f"{proxy.url}/v2/models/income/infer", json=_request(explained.last))

    assert answer.status_code == 200
    assert found["cost"]["model_calls"] == len(explained.model.asked) - 1
    items = explained.service.wait_stored(3)
    assert not any(item["synthetic"] for item in items)
    assert proxy.metrics().total("capture_events_total", outcome="seen") == 2
    assert explained.service.metrics().total("events_received_total") == before + 2


def test_calls_that_come_back_as_events_are_stored_apart(explained: Explained) -> None:
    found = explained.ask()
    before = explained.service.wait_for(
        lambda metrics: (
            metrics.total("detector_rows_total") == metrics.total("inference_rows_total")
        ),
        "everything before it is judged",
    )
    deployment = explained.service.get(_ROUTE)
    for headers, body in explained.model.asked:
        _, answered = explained.model.answer({}, body)
        _log(explained.service, headers["ce-id"], body, json.loads(answered))
        break
    explained.model.asked.clear()
    wait_until(
        lambda: len(explained.service.get_all("/v1/inferences")) == 3,
        "it is stored",
        timeout_s=_PATIENCE_S,
    )
    items = explained.service.get_all("/v1/inferences")
    # What comes behind it has been judged: so has it.
    explained._send("sound", _rows(5, seed=9))
    explained.service.wait_for(
        lambda metrics: all(
            metrics.total(name) >= before.total(name) + 5
            for name in ("detector_rows_total", "inference_rows_total")
        ),
        "the rows behind it are stored and judged",
    )

    (synthetic,) = [item for item in items if item["synthetic"]]
    assert synthetic["request_id"].startswith(f"explain-{found['id']}")
    after = explained.service.metrics()
    assert after.total("detector_rows_total") == before.total("detector_rows_total") + 5
    assert after.total("inferences_total") == before.total("inferences_total") + 1
    assert after.total("inference_rows_total") == before.total("inference_rows_total") + 5
    assert explained.service.get(_ROUTE)["rows_seen"] == deployment["rows_seen"] + 5
