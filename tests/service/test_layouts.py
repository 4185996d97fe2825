"""In which layout a row is asked when traffic has had several."""

from typing import Any

import pytest

from sidelight.service._explaining import ExplainRequest
from sidelight.service._layouts import fitting_layout, layouts_of, with_layout
from sidelight.service.errors import BadRequest


def _layout(*names: str, protocol: str = "v2-json") -> dict[str, Any]:
    return {"protocol": protocol, "tensors": [{"name": name, "columns": [name]} for name in names]}


def test_last_layout_of_each_set_of_columns_is_kept() -> None:
    again = _layout("b", "a")

    found = with_layout([_layout("a", "b"), _layout("z")], again)

    assert found == [_layout("z"), again]
    assert with_layout(found, None) == found
    assert with_layout(found, _layout("f0", protocol="opaque")) == found


def test_layouts_are_bounded() -> None:
    layouts: list[dict[str, Any]] = []
    for number in range(100):
        layouts = with_layout(layouts, _layout(f"x{number}"))

    assert len(layouts) == 8
    assert layouts[-1] == _layout("x99")


def test_inventory_of_the_former_form_has_one_layout() -> None:
    assert layouts_of({"layout": {"request": _layout("a")}}) == [_layout("a")]
    assert layouts_of({"layout": {}}) == []


@pytest.mark.parametrize(
    ("asked", "columns"),
    [
        (["b", "a"], ("a", "b")),
        (["a"], ("a",)),
        (2, ("a", "b")),
        (1, ("a",)),
        (["z"], ("z",)),
        (["a", "q"], ("a", "b")),
        (7, ("a", "b")),
    ],
)
def test_row_is_asked_in_the_layout_of_its_columns(asked: Any, columns: tuple[str, ...]) -> None:
    layouts = [_layout("a"), _layout("a", "b"), _layout("z")]

    assert fitting_layout(layouts, asked, ["a", "b"]) == _layout(*columns)


def test_without_a_layout_of_the_references_columns_there_is_none() -> None:
    assert fitting_layout([_layout("z")], ["a"], ["a"]) is None
    assert fitting_layout([], 1, ["a"]) is None


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
    explaining = api.context.explaining

    task = explaining._task(ExplainRequest(inference_id=ids["good59"]), "x")
    given = explaining._task(
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
        explaining._task(ExplainRequest(inference_id=ids["late"]), "x")
