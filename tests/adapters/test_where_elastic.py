"""Queries find every document that may be an answer; real servers are asked in tests/services."""

from typing import Any

import pytest

from sidelight.adapters._where import parse
from sidelight.adapters._where_elastic import ANYTHING, NOTHING, Field, candidates


def _query(text: str, **options: Any) -> Any:
    field = Field(**{"path": "f", "kinds": frozenset({"number"}), **options})
    return candidates(parse(text), lambda _: field)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("features.x < 1", {"range": {"f": {"lt": 1.0}}}),
        ("features.x > 0", {"range": {"f": {"gt": 0.0}}}),
        (
            "features.x between 1 and 2.5",
            {"bool": {"filter": [{"range": {"f": {"gte": 1.0}}}, {"range": {"f": {"lte": 2.5}}}]}},
        ),
        ("features.x = null", NOTHING),
        ("not features.x = null", NOTHING),
        ("features.x = 'a'", NOTHING),
        ("features.x = 'a' and features.x = 1", NOTHING),
        ("features.x is not null", {"exists": {"field": "f"}}),
    ],
)
def test_predicates_become_queries_of_values(text: str, expected: Any) -> None:
    assert _query(text) == expected


def test_a_number_that_is_no_double_is_looked_for_with_its_neighbours() -> None:
    big = (1 << 53) + 1

    assert _query(f"features.x > {big}") == {"range": {"f": {"gte": float(big)}}}
    assert _query(f"features.x != {big}") == {"exists": {"field": "f"}}


def test_zero_is_looked_for_with_both_signs() -> None:
    assert str(_query("features.x = 0")) == "{'range': {'f': {'gte': -0.0, 'lte': 0.0}}}"
    assert str(_query("features.x < 0")) == "{'range': {'f': {'lt': -0.0}}}"


def test_a_bound_that_a_field_does_not_take_is_left_out() -> None:
    limit = {"limit": 100.0}

    assert _query("features.x > 1e9", **limit) == NOTHING
    assert _query("features.x < 1e9", **limit) == {"exists": {"field": "f"}}


def test_what_the_index_does_not_find_is_a_candidate() -> None:
    unfound, doubtful = {"term": {"unfound": "f"}}, {"exists": {"field": "reduced"}}
    hidden = {"unfound": (unfound,), "doubtful": (doubtful,)}

    found = _query("features.x = 1", **hidden)["bool"]["should"]
    nulls = _query("features.x is null", **hidden)["bool"]["must_not"]

    assert found[1:] == [unfound, doubtful]
    # What has a value is not null; what may have one may be.
    assert nulls == [{"exists": {"field": "f"}}, unfound]


def test_a_column_of_several_kinds_is_judged_by_its_values_alone() -> None:
    kinds = {"kinds": frozenset({"number", "text"})}

    assert _query("features.x = 1", **kinds) == ANYTHING
    assert _query("features.x is null", **kinds) == ANYTHING
    assert _query("features.x = true", **kinds) == NOTHING


def test_signs_of_patterns_are_translated_and_those_of_the_server_mean_themselves() -> None:
    kinds = {"kinds": frozenset({"text"})}

    assert _query(r"features.x like 'a%b_c*d?e\f'", **kinds) == {
        "wildcard": {"f": {"value": r"a*b?c\*d\?e\\f"}}
    }
    assert _query("features.x like 'a!%_' escape '!'", **kinds) == {
        "wildcard": {"f": {"value": "a%?"}}
    }


def test_a_pattern_of_very_many_signs_is_judged_by_the_values_alone() -> None:
    pattern = "%a" * 100

    found = _query(f"features.x like '{pattern}'", kinds=frozenset({"text"}))

    assert found == {"exists": {"field": "f"}}
