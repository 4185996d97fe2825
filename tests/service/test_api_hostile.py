"""Whatever is asked of the audit routes, the answer is an answer or a 400, never a 500."""

from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

_WORDS = (
    *("features.age", "outputs.late", "labels.x", "status", "time", "id", "outlier_score"),
    *("=", "!=", "<", "(", ")", ",", "in", "between", "and", "or", "not", "like", "escape", "is"),
    *("null", "true", "1", "-1e308", "'a'", "'%'", "''", '"', "'", ";", "--", "/*", "\x00", "\\"),
    *("2013-01-01", "'2013-01-01'", "9" * 40, "é", "\u202e", "$1", "?", "c0", "read_text('/etc')"),
)
expressions = st.one_of(
    st.text(max_size=30), st.lists(st.sampled_from(_WORDS), max_size=12).map(" ".join)
)
texts = st.one_of(
    st.text(max_size=20),
    st.sampled_from(["", "0", "-1", "1e9", "true", "9" * 30, "2013-01-01T00:00:00Z", "%", "../x"]),
)
parameters = st.fixed_dictionaries(
    {},
    optional={
        "where": expressions,
        "from": texts,
        "to": texts,
        "version": texts,
        "deployment": texts,
        "cursor": texts,
        "limit": texts,
        "order": st.one_of(texts, st.sampled_from(["time", "-time"])),
        "format": st.one_of(texts, st.sampled_from(["csv", "parquet", "jsonl"])),
        "raw": texts,
    },
)


@pytest.fixture
def asked(folder: Any) -> Any:
    folder.ask([[1.0, "f"]], request_id="r")
    folder.work()
    return folder


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(given_=parameters, path=st.sampled_from(["", "/export"]))
def test_no_question_is_an_internal_error(
    asked: Any, api: Any, given_: dict[str, str], path: str
) -> None:
    assert asked
    query = "&".join(
        f"{name}={quote(value, safe='', errors='replace')}" for name, value in given_.items()
    )

    answer = api.request("GET", f"/v1/inferences{path}?{query}")

    assert answer.status_code in {200, 400}, (answer.status_code, answer.text[:300])


@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    name=st.one_of(st.text(min_size=1, max_size=20), st.sampled_from(["..", "%", "a" * 5000])),
    tail=st.sampled_from(["", "?raw=true", "/raw/request", "/raw/response"]),
)
def test_no_id_is_an_internal_error(asked: Any, api: Any, name: str, tail: str) -> None:
    assert asked

    answer = api.request("GET", f"/v1/inferences/{quote(name, safe='', errors='replace')}{tail}")

    assert answer.status_code in {200, 307, 400, 404}, (answer.status_code, answer.text[:300])
