"""The same questions to the lake and to real search servers: the same answers, and refusals."""

import csv
import io
import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from tests.adapters.elastic_material import (
    DEPLOYMENTS,
    EXPRESSIONS,
    QUESTIONS,
    Both,
    answer,
    names,
    shown,
)
from tests.services.elastic_server import ElasticServer

from sidelight.adapters import ElasticConnection, connect_elastic
from sidelight.adapters._query_store import QueryStore


@pytest.fixture(scope="module")
def both(search_server: ElasticServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    connection = ElasticConnection(url=search_server.url, flavour=search_server.flavour)
    both = Both(
        tmp_path_factory.mktemp("lake"),
        lambda: connect_elastic(connection),
        lambda prefix: search_server.ask("POST", f"/{prefix}-*/_refresh"),
        flavour=search_server.flavour,
    )
    yield both
    both.close()


@given(where=EXPRESSIONS, question=QUESTIONS)
@settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_a_search_server_answers_as_the_lake_does(
    both: Both, where: str, question: dict[str, Any]
) -> None:
    asked = {**question, "where": where}

    found, expected = answer(both.search, **asked), answer(both.lake, **asked)

    # Two hundred inferences are no readable message.
    assert names(found) == names(expected)
    assert found == expected


def _deep() -> str:
    text = "features.n = 0"
    for number in range(60):
        text = f"({text} {'and' if number % 2 else 'or'} features.i != {number})"
    return text


@pytest.mark.parametrize(
    "where",
    [
        pytest.param(_deep(), id="deeper-than-it-nests"),
        pytest.param(f"features.n in ({','.join(map(str, range(1000)))})", id="a-long-list"),
        pytest.param(f"features.f not in ({','.join(map(str, range(1000)))})", id="none-of-it"),
        pytest.param(" or ".join(["features.i = 1"] * 220), id="many-conditions"),
        pytest.param(f"features.i in (1, {(1 << 53) + 1}, -3.0)", id="whole-numbers-and-floats"),
        pytest.param(f"features.i > {1 << 53}.0 or labels.late > {1 << 53}.0", id="large-floats"),
        pytest.param(f"labels.late in ({(1 << 53) + 1}, {1 << 70})", id="large-labels"),
        pytest.param(f"labels.late != {1 << 53}", id="other-large-labels"),
        pytest.param("features.t like ''", id="an-empty-pattern"),
        pytest.param("features.f <= 1e300 and features.f != 3.4028235e38", id="beyond-float32"),
    ],
)
def test_what_is_much_for_a_server_is_answered_as_by_the_lake(both: Both, where: str) -> None:
    found, expected = answer(both.search, where=where), answer(both.lake, where=where)

    assert isinstance(expected, list)
    assert names(found) == names(expected)


@pytest.mark.parametrize("order", ["time", "-time"])
@pytest.mark.parametrize("deployment", [None, *DEPLOYMENTS, "prod/unknown"])
def test_every_inference_is_listed_once_with_all_its_rows(
    both: Both, deployment: str | None, order: str
) -> None:
    asked = {"deployment": deployment, "order": order, "limit": 7}

    found = answer(both.search, **asked)

    assert found == answer(both.lake, **asked)
    assert len(found) == len({item["id"] for item in found})


def test_each_inference_is_found_by_its_id(both: Both) -> None:
    for item in answer(both.lake, limit=1000):
        found = both.search.get(item["id"])
        assert found is not None
        assert shown(found) == item
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
