"""Explanations in the service: what holds whatever the model does."""

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from sidelight.explainers import DeadlineExceeded
from sidelight.service import _explaining
from sidelight.service._explain_request import ExplainRequest

_QUESTION = {"deployment": "prod/flights", "instances": [[1.0, "f"]]}


@pytest.fixture
def stuck(api: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An API whose explanations never end, all its threads for them busy."""
    explaining = api.context.explaining
    ended = threading.Event()
    monkeypatch.setattr(explaining, "explain", lambda *_: ended.wait(60))
    for _ in range(_explaining._WAITING):
        explaining._waited.submit(ended.wait, 60)
    yield api
    ended.set()


def test_answer_comes_by_the_deadline_however_many_explanations_are_stuck(stuck: Any) -> None:
    problem = stuck.problem("POST", "/v1/explanations", json={**_QUESTION, "deadline_ms": 50})

    assert problem["status"] == 504
    assert stuck.get("/v1/alarms").status_code == 200


def test_deadline_counts_the_time_before_a_thread_was_free(folder: Any, api: Any) -> None:
    model = {"url": "http://127.0.0.1:1", "name": "m"}
    api.put("/v1/deployments/prod/flights", {"model": model, "reference": {"first_rows": 50}})
    for number in range(50):
        folder.ask([[float(number), "f"]])
    folder.work()
    explaining = api.context.explaining

    with pytest.raises(DeadlineExceeded):
        explaining.explain(ExplainRequest.model_validate(_QUESTION), time.monotonic() - 1)

    assert explaining.counters() == {
        (
            "explanations_total",
            (
                ("namespace", "prod"),
                ("deployment", "flights"),
                ("explainer", "shapley"),
                ("outcome", "failed"),
            ),
        ): 1
    }
