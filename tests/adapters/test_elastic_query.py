"""Queries of a search server against the lake; real servers are asked in tests/services."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from tests.adapters.conftest import EPOCH
from tests.adapters.elastic_fake_search import SearchingServer
from tests.adapters.elastic_material import (
    DEPLOYMENTS,
    EXPRESSIONS,
    QUESTIONS,
    Both,
    answer,
    names,
)

from sidelight.adapters import (
    ElasticExpiry,
    ElasticInferences,
    ElasticSearch,
    ElasticStore,
    IndexOptions,
    StoreError,
)
from sidelight.adapters import _elastic_search as search_module
from sidelight.adapters import _query_stream as stream_module
from sidelight.adapters._elastic_client import Answer, UnreachableError


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    server = SearchingServer()
    both = Both(tmp_path_factory.mktemp("both"), lambda: server, lambda _: None)
    yield both
    both.close()


@given(where=EXPRESSIONS, question=QUESTIONS)
@settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_answers_are_those_of_the_lake(both: Both, where: str, question: dict[str, Any]) -> None:
    asked = {**question, "where": where}

    found, expected = answer(both.search, **asked), answer(both.lake, **asked)

    assert names(found) == names(expected)
    assert found == expected


@pytest.mark.parametrize("deployment", [None, DEPLOYMENTS[0], "prod/unknown"])
def test_pages_hold_each_inference_once(both: Both, deployment: str | None) -> None:
    asked = {"deployment": deployment, "limit": 23}

    assert answer(both.search, **asked) == answer(both.lake, **asked)


def test_a_page_of_large_inferences_ends_early_and_the_next_goes_on(
    both: Both, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = answer(both.search, limit=1000)
    monkeypatch.setattr(stream_module, "_MOST_CELLS", 30)
    monkeypatch.setattr(stream_module, "_FIRST_PORTION", 2)

    first, cursor = both.search.find(limit=1000)

    assert 0 < len(first) < len(expected)
    assert cursor is not None
    assert answer(both.search, limit=1000) == expected


def test_one_inference_is_found_by_its_id(both: Both) -> None:
    found = both.search.get("i003")

    assert found is not None
    assert found.id == "i003"
    assert both.search.get("none") is None


def test_what_is_exported_and_counted_is_what_matches(both: Both) -> None:
    asked: dict[str, Any] = {"deployment": DEPLOYMENTS[0], "where": "status = 200"}

    lines = b"".join(both.search.export(format="jsonl", **asked)).splitlines()

    assert len(lines) == both.search.count(**asked) == both.lake.count(**asked) > 5
    assert len(list(both.search.export(format="jsonl", limit=1, **asked))) == 1


class Told:
    """A server that says what it is told to say, one after the other."""

    def __init__(self, *answers: Answer | Exception) -> None:
        self._answers = list(answers)
        self.is_closed = False

    def request(self, *_: Any) -> Answer:
        told = self._answers.pop(0)
        if isinstance(told, Exception):
            raise told
        return told

    def close(self) -> None:
        self.is_closed = True


_NOTHING = Answer(200, {"hits": {"hits": []}})
_NONE = Answer(200, {"count": 0})


def test_a_server_that_is_not_ready_is_asked_again_a_moment_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(search_module, "_PAUSES_S", (0.0, 0.0))
    store = ElasticInferences(Told(_NONE, _NOTHING, Answer(503, {}), Answer(429, {}), _NOTHING))

    assert store.find() == ([], None)


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (Answer(503, {"error": {"type": "no_shard"}}), "503 no_shard"),
        (Answer(400, {"error": "odd"}), "400 odd"),
        (Answer(404, "gone"), "404"),
        (UnreachableError("timeout"), "no answer"),
    ],
)
def test_a_server_that_does_not_answer_is_said(
    told: Any, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_module, "_PAUSES_S", (0.0,))
    server = Told(told, told, told)
    store = ElasticInferences(server)

    with pytest.raises(StoreError, match=expected):
        store.get("x")
    store.close()
    assert server.is_closed


def test_documents_that_a_server_does_not_delete_are_tried_again_and_then_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(search_module, "_PAUSES_S", (0.0,))
    hit = {"_index": "i", "_id": "a"}
    refused = Answer(200, {"items": [{"delete": {"status": 429}}]})
    search = ElasticSearch(Told(refused, refused), "s")

    with pytest.raises(StoreError, match="429"):
        search.delete([hit])


def test_old_rows_go_by_whole_days_and_what_a_hold_covers_stays(samples: Any) -> None:
    server = SearchingServer()
    store = ElasticStore(server, options=IndexOptions(prefix="s"))
    rows = [samples.row(f"r{number}", number * 720) for number in range(6)]
    store.write([samples.batch(rows, deployment="prod/a")])
    expiry = ElasticExpiry(ElasticSearch(server, "s"))
    day_us = 86_400_000_000
    start_us = int(EPOCH.timestamp()) * 1_000_000
    asked: dict[str, Any] = {
        "before_us": start_us + 2 * day_us + 1,
        "kept": [(start_us, start_us + 1)],
    }

    numbers = [expiry.expire("prod/a", **asked) for _ in range(4)]

    assert server.dropped == ["s-inferences-prod-a-2013-01-02"]
    assert (numbers, sorted(server.sources())) == ([2, 2, 0, 0], ["r0-0", "r5-0"])
    assert expiry.deployments() == ["prod/a"]
    store.close()
    expiry.close()
