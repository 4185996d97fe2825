"""Queries find every document that may be an answer; real servers are asked in tests/services."""

from typing import Any

import pytest

from sidelight.adapters._where import parse
from sidelight.adapters._where_elastic import candidates
from sidelight.adapters._where_elastic_clauses import ANYTHING, NOTHING, Field


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


def test_a_pattern_of_nothing_is_an_empty_text() -> None:
    found = _query("features.x like ''", kinds=frozenset({"text"}))

    assert found == {"term": {"f": {"value": ""}}}


@pytest.mark.parametrize(
    ("text", "kind", "expected"),
    [
        ("features.x in (1, 2.5)", "number", {"terms": {"f": [1.0, 2.5]}}),
        ("features.x in (null, 'b', 'a', 1)", "text", {"terms": {"f": ["b", "a"]}}),
        ("features.x in (true, false)", "boolean", {"terms": {"f": ["true", "false"]}}),
        ("time in ('1970-01-02')", "time", {"terms": {"f": [86_400_000_000]}}),
        ("features.x in (null)", "number", NOTHING),
        ("features.x not in (1, null)", "number", NOTHING),
        ("features.x not in (1, 'a')", "number", NOTHING),
        (f"features.x not in ({1 << 53}, 1e16)", "number", {"exists": {"field": "f"}}),
    ],
)
def test_a_list_becomes_one_clause(text: str, kind: Any, expected: Any) -> None:
    assert _query(text, kinds=frozenset({kind})) == expected


def test_zero_in_a_list_is_looked_for_with_both_signs() -> None:
    assert str(_query("features.x in (0, 1)")) == "{'terms': {'f': [-0.0, 0.0, 1.0]}}"


def test_what_is_in_no_list_has_a_value_that_is_none_of_it() -> None:
    found = _query("features.x not in (1, 2)")

    assert found == {
        "bool": {"filter": [{"exists": {"field": "f"}}], "must_not": [{"terms": {"f": [1.0, 2.0]}}]}
    }


def test_a_long_list_of_single_floats_is_looked_for_between_its_ends() -> None:
    numbers = [str(number) for number in range(1000)]

    found = _query(f"features.x in ({','.join(numbers)})", single=True)

    assert found["range"]["f"]["gte"] <= 0
    assert found["range"]["f"]["lte"] >= 999
    assert _query("features.x not in (0.1)", single=True) == {"exists": {"field": "f"}}


def test_a_number_beyond_single_floats_is_a_bound_as_it_is() -> None:
    assert _query("features.x <= 1e300", single=True) == {"range": {"f": {"lte": 1e300}}}


def test_a_large_number_written_as_a_float_is_looked_for_with_its_neighbours() -> None:
    assert _query("features.x > 9007199254740992.0") == {"range": {"f": {"gte": float(1 << 53)}}}


def test_what_nests_deeper_than_a_server_takes_is_left_to_the_values() -> None:
    text = "features.x = 0"
    for number in range(60):
        text = f"({text} {'and' if number % 2 else 'or'} features.x = {number})"

    assert _levels(_query(text)) < 30


def test_more_clauses_than_a_server_takes_are_left_to_the_values() -> None:
    text = " or ".join(["features.x = 1"] * 220)
    hidden = {"unfound": ({"term": {"a": "b"}},), "doubtful": ({"term": {"c": "d"}},)}

    assert _query(text) != ANYTHING
    assert _query(text, **hidden) == ANYTHING


def _levels(query: Any) -> int:
    clauses = [each for each in query.get("bool", {}).values() if isinstance(each, list)]
    return 1 + max((_levels(clause) for each in clauses for clause in each), default=0)
