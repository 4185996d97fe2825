from typing import Any

import pytest

from sidelight.logger._json_path import DROPPED, JsonPath


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("$.a", {"a": 0, "b": [{"a": 3}, 4]}),
        ("$['a']", {"a": 0, "b": [{"a": 3}, 4]}),
        ('$["b"][1]', {"a": {"c": [1, 2]}, "b": [{"a": 3}, 0]}),
        ("$.b[-1]", {"a": {"c": [1, 2]}, "b": [{"a": 3}, 0]}),
        ("$.b[7]", {"a": {"c": [1, 2]}, "b": [{"a": 3}, 4]}),
        ("$.a.c[*]", {"a": {"c": [0, 0]}, "b": [{"a": 3}, 4]}),
        ("$.*", {"a": 0, "b": 0}),
        ("$.b[*].a", {"a": {"c": [1, 2]}, "b": [{"a": 0}, 4]}),
        ("$..a", {"a": 0, "b": [{"a": 0}, 4]}),
        ("$..c[0]", {"a": {"c": [0, 2]}, "b": [{"a": 3}, 4]}),
        ("$..*", {"a": 0, "b": 0}),
        ("$.a.missing.more", {"a": {"c": [1, 2]}, "b": [{"a": 3}, 4]}),
    ],
)
def test_a_path_finds_what_it_names_and_nothing_else(path: str, expected: Any) -> None:
    value: Any = {"a": {"c": [1, 2]}, "b": [{"a": 3}, 4]}

    assert JsonPath(path).change(value, lambda _: 0) == expected


def test_a_value_inside_of_one_that_is_found_is_found_as_well() -> None:
    seen: list[Any] = []

    def change(value: Any) -> Any:
        seen.append(value)
        return value

    JsonPath("$..a").change({"a": {"a": 1}}, change)

    assert seen == [1, {"a": 1}]


def test_a_dropped_member_goes_and_a_dropped_element_becomes_null() -> None:
    value = {"a": [1, 2], "b": 3}

    assert JsonPath("$.a[0]").change(value, lambda _: DROPPED) == {"a": [None, 2], "b": 3}
    assert JsonPath("$.b").change(value, lambda _: DROPPED) == {"a": [None, 2]}


@pytest.mark.parametrize(
    "text", ["", "$", "a", "$a", "$.", "$.a.", "$.a[", "$.a[1:2]", "$.a[?(@.b)]", "$..", "$.a b"]
)
def test_another_path_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^path: expected"):
        JsonPath(text)
