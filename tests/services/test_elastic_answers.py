"""The same questions to the lake and to real search servers: the same answers, and refusals."""

import csv
import io
import json
import re
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.services.elastic_material import (
    DEPLOYMENTS,
    INTEGERS,
    LONG,
    NUMBERS,
    TEXTS,
    VERSIONS,
    Both,
)
from tests.services.elastic_server import ElasticServer

from sidelight.adapters import QueryError
from sidelight.adapters._query_store import QueryStore
from sidelight.payloads import Inference

_NUMBERS = [*NUMBERS, *INTEGERS, 0.5, 0.25, 2.0, 1.5, (1 << 64) - 1, -(1 << 64), 1 << 100, 200, 500]
_SECTIONS = {
    "features": ["n", "f", "i", "t", "b", "l", "mixed", '"a.b*"', "s", "only", "nothing", "raw"],
    "outputs": ["y"],
    "labels": ["late", '"a.b"', "late"],
}
_COLUMNS = [f"{section}.{name}" for section, names in _SECTIONS.items() for name in names] + [
    *("status", "latency_ms", "outlier_score", "version", "request_id", "orphan", "synthetic"),
    *("protocol", "component", "endpoint", "id", "time", "features.unknown", "labels.unknown"),
]
_KINDS = {
    "features.t": "text",
    "features.b": "truth",
    "outputs.y": "text",
    "synthetic": "truth",
    "time": "time",
    **dict.fromkeys(("version", "request_id", "orphan", "protocol", "component", "id"), "text"),
}


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


_LITERALS = {
    "number": st.sampled_from([repr(value) for value in _NUMBERS])
    | st.floats(-3, 3, allow_nan=False).map(repr),
    "text": st.sampled_from(
        [*TEXTS, *LONG, "p", "q", "yes", "i010", "request", "predictor", "v" * 1500, "request-i003"]
    ).map(_quoted),
    "truth": st.sampled_from(["true", "false"]),
    "time": st.sampled_from(["'2013-01-01'", "'2013-01-02T00:00:00Z'", "'2013-01-01T00:01:00Z'"]),
}
_PATTERNS = st.sampled_from(["%", "a%", "%b", "_", "a_b", "%x%", "i0_5", "\\%", "%*%", "", "%%__"])


@st.composite
def _predicate(draw: st.DrawFn) -> str:
    column = draw(st.sampled_from(_COLUMNS))
    kind = _KINDS.get(column, "number")
    if column.endswith(("mixed", "late")) or draw(st.integers(0, 40)) == 0:
        kind = draw(st.sampled_from(sorted(_LITERALS)))
    value = _LITERALS[kind] if draw(st.integers(0, 15)) else st.just("null")
    shape = draw(st.integers(0, 9))
    word = draw(st.sampled_from(["", "not "]))
    if shape == 0:
        return f"{column} is {word}null"
    if shape == 1:
        return f"{column} {word}between {draw(value)} and {draw(value)}"
    if shape == 2:
        return f"{column} {word}in ({', '.join(draw(st.lists(value, min_size=1, max_size=3)))})"
    if shape == 3 and kind == "text":
        return f"{column} {word}like {_quoted(draw(_PATTERNS))}"
    if shape == 4 and kind == "text":
        return f"{column} {word}like 'a!%!_%' escape '!'"
    return f"{column} {draw(st.sampled_from(['=', '!=', '<', '<=', '>', '>=']))} {draw(value)}"


_EXPRESSIONS = st.recursive(
    _predicate(),
    lambda inner: (
        st.builds("not ({})".format, inner)
        | st.builds("({} and {})".format, inner, inner)
        | st.builds("({} or {})".format, inner, inner)
    ),
    max_leaves=4,
)
_TIMES = st.none() | st.sampled_from(["2013-01-01T00:01:00Z", "2013-01-02", "2013-01-03T00:00:01Z"])
_QUESTIONS = st.fixed_dictionaries(
    {
        "deployment": st.sampled_from([*DEPLOYMENTS, None, DEPLOYMENTS[0]]),
        "version": st.sampled_from([None, None, None, *VERSIONS[1:]]),
        "from_": _TIMES,
        "to": _TIMES,
        "order": st.sampled_from(["time", "-time"]),
        "limit": st.sampled_from([1000, 1000, 23]),
    }
)


@pytest.fixture(scope="module")
def both(search_server: ElasticServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    both = Both(search_server, tmp_path_factory.mktemp("lake"))
    yield both
    both.close()


def _shown(item: Inference) -> dict[str, Any]:
    """Return an inference as JSON has it: a label that is not finite is null."""
    shown: dict[str, Any] = json.loads(json.dumps(item.to_json()), parse_constant=lambda _: None)
    return shown


def _answer(store: Any, **question: Any) -> Any:
    """Return every page of an answer, or what was refused."""
    found: list[dict[str, Any]] = []
    cursor: str | None = None
    try:
        while True:
            items, cursor = store.find(**question, cursor=cursor)
            found += [_shown(item) for item in items]
            if cursor is None:
                return found
    except QueryError as error:
        # Names that may have been meant come in no promised order.
        return type(error).__name__, re.sub(" such as .*", "", str(error)), error.got


@given(where=_EXPRESSIONS, question=_QUESTIONS)
@settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_a_search_server_answers_as_the_lake_does(
    both: Both, where: str, question: dict[str, Any]
) -> None:
    asked = {**question, "where": where}

    found, expected = _answer(both.search, **asked), _answer(both.lake, **asked)

    # Two hundred inferences are no readable message.
    assert _names(found) == _names(expected)
    assert found == expected


def _names(answer: Any) -> Any:
    return [item["id"] for item in answer] if isinstance(answer, list) else answer


@pytest.mark.parametrize("order", ["time", "-time"])
@pytest.mark.parametrize("deployment", [None, *DEPLOYMENTS, "prod/unknown"])
def test_every_inference_is_listed_once_with_all_its_rows(
    both: Both, deployment: str | None, order: str
) -> None:
    asked = {"deployment": deployment, "order": order, "limit": 7}

    answer = _answer(both.search, **asked)

    assert answer == _answer(both.lake, **asked)
    assert len(answer) == len({item["id"] for item in answer})


def test_each_inference_is_found_by_its_id(both: Both) -> None:
    for item in _answer(both.lake, limit=1000):
        found = both.search.get(item["id"])
        assert found is not None
        assert _shown(found) == item
    assert both.search.get("unknown") is None


def _rows(form: str, exported: bytes) -> list[dict[str, Any]]:
    """Return the rows of an export; the columns of a table come in no promised order."""
    if form == "jsonl":
        return [json.loads(line) for line in exported.splitlines()]
    if form == "csv":
        return list(csv.DictReader(io.StringIO(exported.decode(), newline="")))
    rows: list[dict[str, Any]] = pq.read_table(pa.BufferReader(exported)).to_pylist()
    return rows


@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet"])
@pytest.mark.parametrize("deployment", DEPLOYMENTS[:2])
def test_exports_are_the_same(both: Both, form: Any, deployment: str) -> None:
    stores: list[QueryStore] = [both.search, both.lake]

    mine, theirs = (
        _rows(
            form,
            b"".join(store.export(format=form, deployment=deployment, where="status = 200")),
        )
        for store in stores
    )

    assert len(mine) > 5
    assert mine == theirs


def test_counts_are_the_same(both: Both) -> None:
    where = "features.n > 0 or labels.late is null"

    assert both.search.count(where=where) == both.lake.count(where=where)
