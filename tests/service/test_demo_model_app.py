import asyncio
import json
from typing import Any, cast

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier

from sidelight.service.demo import FEATURES
from sidelight.service.demo._inference_protocol import encode_infer
from sidelight.service.demo._model import FlightModel
from sidelight.service.demo._model_app import Message, ModelApp

INFER = "/v2/models/flights/infer"
BODY = encode_infer(
    "a", {name: ["UA" if name in {"carrier", "origin"} else 6] for name in FEATURES}
)


class Hours:
    """A classifier whose probability is a tenth of the hour, and that breaks at midnight."""

    def predict_proba(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        if (rows[:, 0] == 0).any():
            raise ValueError("midnight")
        return np.stack([1 - rows[:, 0] / 10, rows[:, 0] / 10], axis=1)


def app() -> ModelApp:
    classifier = cast("HistGradientBoostingClassifier", Hours())
    codes = {"carrier": {"UA": 0.0}, "origin": {"EWR": 0.0}}
    return ModelApp(
        FlightModel(
            classifier=classifier, codes=codes, threshold=0.5, auc=0.7, n_rows=1, seconds=0.0
        )
    )


def ask(method: str, path: str, content: bytes = b"") -> httpx.Response:
    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(app())
        async with httpx.AsyncClient(transport=transport, base_url="http://model") as client:
            return await client.request(method, path, content=content)

    return asyncio.run(send())


def test_the_answer_is_the_models() -> None:
    answer = ask("POST", INFER, BODY).json()

    assert [item["data"] for item in answer["outputs"]] == [[0.6], [True]]


def test_documents_are_there_with_and_without_a_last_slash() -> None:
    assert ask("GET", "/v2/models/flights/").json() == ask("GET", "/v2/models/flights").json()


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        pytest.param("POST", INFER, 400, id="no-body"),
        pytest.param("PUT", INFER, 405, id="put"),
        pytest.param("DELETE", "/v2", 405, id="delete"),
        pytest.param("GET", "/", 404, id="root"),
    ],
)
def test_what_is_not_served_is_refused(method: str, path: str, status: int) -> None:
    answer = ask(method, path)

    assert answer.status_code == status
    assert "expected" in answer.json()["error"]


def test_a_model_that_fails_is_a_500_that_tells_no_details(
    caplog: pytest.LogCaptureFixture,
) -> None:
    answer = ask("POST", INFER, BODY.replace(b"[6]", b"[0]"))

    assert answer.status_code == 500
    assert "midnight" not in answer.text
    assert "request failed" in caplog.text


def test_a_body_beyond_the_bound_is_refused_before_it_is_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sidelight.service.demo._model_app._MAX_BODY_BYTES", 100)
    received: list[int] = []

    async def receive() -> Message:
        received.append(60)
        return {"type": "http.request", "body": b"x" * 60, "more_body": True}

    status, body = answered({"type": "http", "method": "POST", "path": INFER}, receive)

    assert status == 413
    assert "at most 100 bytes" in body["error"]
    assert len(received) == 2


def test_a_client_that_leaves_is_no_failure_of_the_model() -> None:
    async def receive() -> Message:
        return {"type": "http.disconnect"}

    status, body = answered({"type": "http", "method": "POST", "path": INFER}, receive)

    assert status == 400
    assert "closed connection" in body["error"]


def test_other_kinds_of_connections_are_not_taken() -> None:
    async def receive() -> Message:
        raise AssertionError

    with pytest.raises(NotImplementedError, match="websocket"):
        answered({"type": "websocket"}, receive)


def answered(scope: dict[str, Any], receive: Any) -> tuple[int, dict[str, str]]:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(app()(scope, receive, send))
    return sent[0]["status"], json.loads(sent[1]["body"])
