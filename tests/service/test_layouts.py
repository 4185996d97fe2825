"""In which layout a row is asked when traffic has had several."""

from typing import Any

import pytest

from sidelight.service._layouts import fitting_layout, layouts_of, with_layout


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
