"""``serve`` without a lake: a real search server keeps the rows, and answers."""

import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from tests.services.elastic_server import ElasticServer, clients

if TYPE_CHECKING:
    from tests.services.conftest import Service

# What is different without a lake is ours, not the server's: one of the two is enough.
pytestmark = pytest.mark.parametrize("search_server", ["elasticsearch"], indirect=True)

_N = 120
_PATIENCE_S = 240.0


@pytest.fixture
def service(
    search_server: ElasticServer,
    start_service: Callable[..., "Service"],
    monkeypatch: pytest.MonkeyPatch,
) -> "Service":
    monkeypatch.setenv("PYTHONPATH", str(clients()))
    prefix = f"a{random.getrandbits(40):x}"
    settings = {"url": search_server.url, "index_prefix": prefix, "replicas": 0, "timeout": "60s"}
    reference = {"first_rows": 50}
    return start_service(
        name="alone",
        config={
            "store": {"lake": False, "elasticsearch": settings},
            "deployments": [{"name": "prod/income", "reference": reference}],
        },
    )


def _send(service: "Service", numbers: range) -> None:
    events = [
        {
            "specversion": "1.0",
            "id": f"r{number}",
            "source": "http://localhost:9081/",
            "type": f"org.kubeflow.serving.inference.{side}",
            "namespace": "prod",
            "inferenceservicename": "income",
            "datacontenttype": "application/json",
            "data": payload,
        }
        for number in numbers
        for side, payload in (
            ("request", {"instances": [[number % 7, 0.5], [number % 7, 1.5]]}),
            ("response", {"predictions": [number * 2, number * 3]}),
        )
    ]
    headers = {"content-type": "application/cloudevents-batch+json"}
    answer = service.client.post(service.url + "/", json=events, headers=headers)
    assert answer.status_code == 200, answer.text


def _wait_indexed(service: "Service", n_documents: int) -> None:
    service.wait_for(
        lambda told: told.total("indexed_documents_total") >= n_documents,
        "it is indexed",
        timeout_s=_PATIENCE_S,
    )


def _all(service: "Service") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = service.get_all("/v1/inferences")
    return found


def test_everything_but_the_lake_goes_on(service: "Service", search_server: ElasticServer) -> None:
    _send(service, range(_N))
    _wait_indexed(service, 2 * _N)
    service.wait_for(lambda _: len(_all(service)) == _N, "it is found")
    items = {item["request_id"]: item for item in _all(service)}

    # Counted, judged, labelled, explained or refused for want of a model: as with a lake.
    service.wait_for(lambda told: told.total("inferences_total") == _N, "it is counted")
    assert items["r9"]["rows"][1] == {
        "features": {"f0": 2.0, "f1": 1.5},
        "outputs": {"y": 27},
        "labels": {},
        "outlier_score": items["r9"]["rows"][1]["outlier_score"],
    }

    def n_scored() -> int:
        rows = [row for item in _all(service) for row in item["rows"]]
        return sum(row["outlier_score"] is not None for row in rows)

    # Scores come a little later than rows.
    service.wait_for(lambda _: n_scored() >= 2 * _N - 100, "what is behind the reference is scored")
    label = {"deployment": "prod/income", "request_id": "r9", "labels": {"y": 27}}
    assert service.client.post(f"{service.url}/v1/feedback", json=[label]).status_code < 300

    def labelled() -> list[str]:
        found = service.get_all("/v1/inferences", deployment="prod/income", where="labels.y = 27")
        return [item["request_id"] for item in found]

    service.wait_for(lambda _: labelled() == ["r9"], "it is joined")
    asked = {"inference_id": items["r9"]["id"]}
    explained = service.client.post(f"{service.url}/v1/explanations", json=asked)
    assert explained.status_code == 409, explained.text
    assert "model" in explained.text
    wrong = service.client.get(f"{service.url}/v1/inferences", params={"where": "features.no = 1"})
    assert wrong.status_code == 400
    assert "features.f0" in wrong.text
    assert not (service.data / "lake").exists()

    # A server that is down is said, and what comes meanwhile is there afterwards.
    search_server.kill()
    _send(service, range(_N, 2 * _N))
    down = service.client.get(f"{service.url}/v1/inferences")
    assert down.status_code == 503
    assert down.json()["title"] == "the search server cannot answer now"
    service.wait_for(lambda told: told.total("inferences_total") == 2 * _N, "counting goes on")
    search_server.start()
    _wait_indexed(service, 4 * _N)
    service.wait_for(lambda _: len(_all(service)) == 2 * _N, "it is found")
    assert not (service.data / "lake").exists()
    assert service.stop() == 0
