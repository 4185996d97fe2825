"""What an explanation is made of."""

from typing import Any

import pytest

from sidelight.service._explain_request import ExplainRequest
from sidelight.service._explanation_tasks import Tasks
from sidelight.service.errors import BadRequest


def test_inference_is_asked_as_it_was_logged_whatever_strayed_in(folder: Any, api: Any) -> None:
    model = {"url": "http://127.0.0.1:1", "name": "m"}
    api.put("/v1/deployments/prod/flights", {"model": model, "reference": {"first_rows": 50}})
    folder.ask([[1.0]], names=("stray",))
    for number in range(60):
        folder.ask([[float(number), "f"]], request_id=f"good{number}")
    folder.ask([[1.0]], names=("late",), request_id="late")
    folder.half("request", b"hello", request_id="text")
    folder.work()
    ids = {item["request_id"]: item["id"] for item in api.items("/v1/inferences")}
    context = api.context
    tasks = Tasks(context.settings, context.documents, context.inferences)

    task = tasks.prepare(ExplainRequest(inference_id=ids["good59"]), "x")
    given = tasks.prepare(
        ExplainRequest(deployment="prod/flights", instances=[[1.0, "f"], {"sex": "m", "age": 2.0}]),
        "x",
    )

    assert task.instances == [(59.0, "f")]
    assert [tensor["name"] for tensor in task.layout["tensors"]] == ["age", "sex"]
    assert task.background.names == ("age", "sex")
    # The row of the other columns has no values of these.
    assert len(task.background.rows) == 49
    assert all(None not in row for row in task.background.rows)
    assert given.instances == [(1.0, "f"), (2.0, "m")]
    assert given.background is task.background
    with pytest.raises(BadRequest, match="columns that the reference does not have"):
        tasks.prepare(ExplainRequest(inference_id=ids["late"]), "x")
