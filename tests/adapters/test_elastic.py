"""Documents of a search server: each row once, whatever is sent twice, late, or refused."""

import json
import math
import sys
import threading
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.adapters.elastic_fake import FakeServer

from sidelight.adapters import MissingExtraError
from sidelight.adapters import _elastic_bulk as bulk_module
from sidelight.adapters._elastic import ElasticStore, StoppedError
from sidelight.adapters._elastic_client import (
    Answer,
    ElasticConnection,
    UnreachableError,
    connect,
)
from sidelight.adapters._elastic_documents import AlarmSpan, Joined
from sidelight.adapters._elastic_names import field_name, index_stem
from sidelight.adapters._elastic_templates import IndexOptions

DAY_MINUTES = 24 * 60


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk_module, "_SHORTEST_S", 0.0)
    monkeypatch.setattr(bulk_module, "_LONGEST_S", 0.0)


class Store:
    """A store over a server in memory."""

    def __init__(self, **options: Any) -> None:
        self.server = FakeServer()
        self.troubles: list[str] = []
        self.store = ElasticStore(
            self.server, options=IndexOptions(**options), on_trouble=self.troubles.append
        )


@pytest.fixture
def elastic() -> Any:
    made = Store()
    yield made
    made.store.close()


def test_a_row_is_a_document_with_its_features_as_fields(
    elastic: Store, samples: SimpleNamespace
) -> None:
    values = {"features.age": 41, "features.sex": "f", "outputs.y": 0.5}
    row = samples.row("a", minutes=1, version="v1", status=200, tags='{"k": "v"}', **values)

    outcomes = elastic.store.write([samples.batch([row])])

    assert outcomes == {"stored": 1}
    ((place, (version, source)),) = elastic.server.found.items()
    assert place == ("sidelight-inferences-prod-flights-2013-01-01", "a-0")
    assert version == 1 << 32
    assert source["@timestamp"] == "2013-01-01T00:01:00.000000Z"
    assert source["features"] == {"age": 41, "sex": "f"}
    assert source["outputs"] == {"y": 0.5}
    assert source["tags"] == {"k": "v"}
    assert (source["namespace"], source["name"], source["rows"]) == ("prod", "flights", 1)


def test_what_is_not_finite_is_null(elastic: Store, samples: SimpleNamespace) -> None:
    rows = [samples.row("a", **{"features.x": value}) for value in (math.nan,)]
    rows += [samples.row("b", **{"features.x": math.inf})]

    elastic.store.write([samples.batch(rows)])

    assert [item["features"] for item in elastic.server.sources().values()] == [{"x": None}] * 2


def test_tensors_and_columns_beyond_the_limit_are_kept_and_not_indexed(
    samples: SimpleNamespace,
) -> None:
    elastic = Store(max_fields=2)
    values = {"features.a": 1, "features.b": 2, "features.t": [1.0, 2.0], "outputs.y": 3}

    elastic.store.write([samples.batch([samples.row("a", **values)])])

    (source,) = elastic.server.sources().values()
    assert source["features"] == {"a": 1}
    assert source["outputs"] == {"y": 3}
    assert source["unindexed"]["features"] == {"b": 2, "t": [1.0, 2.0]}
    elastic.store.close()


def test_long_lists_are_counted_and_not_copied(elastic: Store, samples: SimpleNamespace) -> None:
    elastic.store.write([samples.batch([samples.row("a", **{"features.t": [0.0] * 70_000})])])

    (source,) = elastic.server.sources().values()
    assert source["unindexed"]["features"] == {"t": {"omitted": 70_000}}


def test_templates_are_put_once_and_before_the_first_document(
    elastic: Store, samples: SimpleNamespace
) -> None:
    elastic.store.write([samples.batch([samples.row("a")])])
    elastic.store.write([samples.batch([samples.row("b")])])

    puts = [path for method, path in elastic.server.requests if method == "PUT"]
    assert puts == [
        "/_ilm/policy/sidelight-inferences",
        "/_component_template/sidelight-settings",
        "/_component_template/sidelight-mappings",
        "/_index_template/sidelight-inferences",
        "/_index_template/sidelight-alarms",
        "/_index_template/sidelight-columns",
        "/sidelight-inferences-*/_mapping",
    ]
    assert elastic.server.requests.index(("POST", "/_bulk")) == len(puts)
    told = elastic.server.put["/_component_template/sidelight-settings"]["template"]["settings"]
    assert told["index.lifecycle.name"] == "sidelight-inferences"


def test_a_server_without_lifecycles_is_used_without_one(samples: SimpleNamespace) -> None:
    elastic = Store()
    elastic.server.has_lifecycle = False

    elastic.store.write([samples.batch([samples.row("a")])])

    told = elastic.server.put["/_component_template/sidelight-settings"]["template"]["settings"]
    assert "index.lifecycle.name" not in told
    elastic.store.close()


def test_a_template_that_is_refused_says_so_and_stores_nothing(
    elastic: Store, samples: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = Answer(400, {"error": {"type": "illegal_argument_exception"}})
    monkeypatch.setattr(elastic.server, "request", lambda *_: refused)

    with pytest.raises(RuntimeError, match="illegal_argument_exception"):
        elastic.store.write([samples.batch([samples.row("a")])])


def test_what_is_written_again_is_there_once(elastic: Store, samples: SimpleNamespace) -> None:
    batch = samples.batch([samples.row("a"), samples.row("a", row=1), samples.row("b")])

    first, again = elastic.store.write([batch]), elastic.store.write([batch])

    assert (first, again) == ({"stored": 3}, {"already": 3})
    assert sorted(elastic.server.sources()) == ["a-0", "a-1", "b-0"]


def test_an_older_revision_never_replaces_a_newer_one(
    elastic: Store, samples: SimpleNamespace
) -> None:
    elastic.store.write([samples.batch([samples.row("a", revision=1, status=200)])])

    outcomes = elastic.store.write([samples.batch([samples.row("a", orphan="request")])])

    assert outcomes == {"already": 1}
    assert elastic.server.sources()["a-0"]["status"] == 200


def test_a_newer_revision_replaces_all_rows_also_those_of_another_day(
    elastic: Store, samples: SimpleNamespace
) -> None:
    orphan = [
        samples.row("a", row=number, minutes=DAY_MINUTES, orphan="response") for number in range(2)
    ]
    elastic.store.write([samples.batch([*orphan, samples.row("other")])])

    elastic.store.write([samples.batch([samples.row("a", revision=1)])])

    assert sorted(elastic.server.found) == [
        ("sidelight-inferences-prod-flights-2013-01-01", "a-0"),
        ("sidelight-inferences-prod-flights-2013-01-01", "other-0"),
    ]


def test_of_two_revisions_in_one_piece_of_work_the_later_counts(
    elastic: Store, samples: SimpleNamespace
) -> None:
    batches = [
        samples.batch([samples.row("a", minutes=DAY_MINUTES, orphan="response")]),
        samples.batch([samples.row("a", revision=1)]),
    ]

    elastic.store.write(batches)

    assert elastic.server.sources()["a-0"]["revision"] == 1


def test_labels_join_rows_that_are_there_and_rows_that_come(
    elastic: Store, samples: SimpleNamespace
) -> None:
    elastic.store.write([samples.batch([samples.row("a"), samples.row("a", row=1)])])

    elastic.store.label("prod/flights", {("request-a", 1): {"late": True, "why": {"x": [1]}}})
    joined = Joined(labels={("request-b", 0): {"late": False}}, scores={})
    elastic.store.write([samples.batch([samples.row("b")])], {"prod/flights": joined})

    sources = elastic.server.sources()
    assert "labels" not in sources["a-0"]
    assert sources["a-1"]["labels"] == {"late": True, "why": None}
    assert sources["a-1"]["unindexed"] == {"labels": {"why": {"%json": '{"x": [1]}'}}}
    assert sources["b-0"]["labels"] == {"late": False}


@pytest.mark.parametrize(
    ("label", "indexed", "kept"),
    [
        pytest.param({"x": 2**64}, None, {"%json": '{"x": 18446744073709551616}'}, id="structure"),
        pytest.param([math.nan], None, {"%json": "[null]"}, id="not finite inside"),
        pytest.param(10**400, None, {"%json": str(10**400)}, id="hundreds of digits"),
        pytest.param(2**63 - 1, 2**63 - 1, None, id="64 bits"),
        pytest.param(math.nan, None, None, id="not finite"),
    ],
)
def test_labels_of_any_kind_cost_their_row_nothing(
    elastic: Store, samples: SimpleNamespace, label: Any, indexed: Any, kept: Any
) -> None:
    joined = Joined(labels={("request-a", 0): {"late": label}}, scores={})
    elastic.store.write([samples.batch([samples.row("a")])], {"prod/flights": joined})
    elastic.store.write([samples.batch([samples.row("b")])])
    elastic.store.label("prod/flights", {("request-b", 0): {"late": label}})

    for source in elastic.server.sources().values():
        assert source["labels"] == {"late": indexed}
        assert source.get("unindexed", {}).get("labels", {}).get("late") == kept
        assert "reduced" not in source


def test_a_label_survives_that_its_row_is_written_again(
    elastic: Store, samples: SimpleNamespace
) -> None:
    batch = samples.batch([samples.row("a")])
    elastic.store.write([batch])
    elastic.store.label("prod/flights", {("request-a", 0): {"late": 1}})

    elastic.store.write([batch])

    assert elastic.server.sources()["a-0"]["labels"] == {"late": 1}


def test_labels_that_no_index_can_hold_are_made_such_as_it_can(
    elastic: Store, samples: SimpleNamespace
) -> None:
    elastic.store.write([samples.batch([samples.row("a")])])
    labels = {"nan": math.nan, "big": 1 << 70, "a.b": 1, "": 2}

    elastic.store.label("prod/flights", {("request-a", 0): labels})

    expected = {"nan": None, "big": None, "a%2Eb": 1, "%": 2}
    assert elastic.server.sources()["a-0"]["labels"] == expected


def test_scores_go_with_their_revision_of_a_row(elastic: Store, samples: SimpleNamespace) -> None:
    scores = {("a", 0, 0): (2.5, 0.01, True), ("b", 0, 1): (9.0, 0.5, False)}
    joined = {"prod/flights": Joined(labels={}, scores=scores)}

    elastic.store.write([samples.batch([samples.row("a"), samples.row("b")])], joined)

    sources = elastic.server.sources()
    assert sources["a-0"]["outlier_score"] == 2.5
    assert sources["a-0"]["outlier"] is True
    assert sources["b-0"]["outlier_score"] is None


def test_an_alarm_marks_the_rows_of_its_time_before_and_after_it_was_raised(
    elastic: Store, samples: SimpleNamespace
) -> None:
    start_us = 1_356_998_400_000_000 + 60_000_000
    span = AlarmSpan(id="x", version=None, start_us=start_us, end_us=start_us + 120_000_000)
    rows = [samples.row(f"r{minutes}", minutes) for minutes in range(5)]
    elastic.store.write([samples.batch(rows[1:2])])

    value = {"id": "x", "deployment": "prod/flights", "state": "open"}
    for _ in range(2):
        elastic.store.alarm(value, span)
    joined = {"prod/flights": Joined(labels={}, scores={}, alarms=[span])}
    elastic.store.write([samples.batch([rows[0], *rows[2:]])], joined)

    marked = [name for name, source in elastic.server.sources().items() if source.get("alarms")]
    assert marked == ["r1-0", "r2-0"]
    assert elastic.server.found["sidelight-alarms", "x"][1]["namespace"] == "prod"


@pytest.mark.parametrize(
    "fault",
    [
        UnreachableError("refused"),
        Answer(503, {"error": {"type": "cluster_block_exception"}}),
        Answer(429, "too many"),
        Answer(401, {}),
        Answer(200, {"items": []}),
        lambda operations: [(429, "es_rejected_execution_exception")] * len(operations),
        lambda operations: [(503, "unavailable_shards_exception"), *[None] * (len(operations) - 1)],
        lambda operations: [(400, "validation_exception"), *[None] * (len(operations) - 1)],
        lambda operations: [(403, "cluster_block_exception")] * len(operations),
    ],
)
def test_what_may_pass_is_sent_again_until_it_did(
    elastic: Store, samples: SimpleNamespace, fault: Any
) -> None:
    elastic.server.faults = [fault, fault]

    outcomes = elastic.store.write([samples.batch([samples.row("a"), samples.row("b")])])

    assert outcomes == {"stored": 2}
    assert sorted(elastic.server.sources()) == ["a-0", "b-0"]
    assert len(elastic.troubles) == 2


def test_an_answer_that_was_lost_leaves_no_second_document(
    elastic: Store, samples: SimpleNamespace
) -> None:
    # It was done, and only the answer did not come.
    elastic.store.write([samples.batch([samples.row("a")])])
    elastic.server.faults = [UnreachableError("timed out")]

    outcomes = elastic.store.write([samples.batch([samples.row("a"), samples.row("b")])])

    assert outcomes == {"already": 1, "stored": 1}


def test_a_document_that_no_mapping_takes_is_stored_without_its_fields(
    elastic: Store, samples: SimpleNamespace
) -> None:
    elastic.server.refuses = lambda source: "odd" in source.get("features", {})
    rows = [samples.row("a", **{"features.odd": 1}, tags='{"k": 1}')]

    outcomes = elastic.store.write([samples.batch(rows), samples.batch([samples.row("b")])])

    assert outcomes == {"reduced": 1, "stored": 1}
    source = elastic.server.sources()["a-0"]
    assert source["reduced"] == "document_parsing_exception"
    assert source["unindexed"] == {"features": {"odd": 1}, "tags": {"k": 1}}
    assert "features" not in source


def test_a_document_that_is_refused_even_so_is_counted_and_delays_nothing(
    elastic: Store, samples: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    elastic.server.refuses = lambda source: source["inference_id"] == "a"

    outcomes = elastic.store.write([samples.batch([samples.row("a"), samples.row("b")])])

    assert outcomes == {"refused": 1, "stored": 1}
    assert "refused for good" in caplog.text


def test_a_label_for_an_index_that_takes_no_writes_delays_nothing(
    elastic: Store, samples: SimpleNamespace
) -> None:
    elastic.store.write([samples.batch([samples.row("a")])])
    told = "cluster_block_exception", "index [x] blocked by: [FORBIDDEN/8/index write (api)];"
    elastic.server.faults = [lambda operations: [(403, *told)] * len(operations)]

    outcomes = elastic.store.label("prod/flights", {("request-a", 0): {"late": 1}})

    assert outcomes == {"refused": 1}
    assert elastic.troubles == []


@pytest.mark.parametrize(
    "tags",
    [
        '{"n": 1208925819614629174706176}',
        '{"t": "\\ud800"}',
        '{"d": ' + "[" * 500 + "]" * 500 + "}",
        '{"x": NaN}',
    ],
)
def test_tags_that_json_cannot_hold_do_not_stop_the_others(
    elastic: Store, samples: SimpleNamespace, tags: str
) -> None:
    labels = {("request-a", 0): {"deep": {"n": [1 << 80]}}}
    joined = {"prod/flights": Joined(labels=labels, scores={})}

    outcomes = elastic.store.write([samples.batch([samples.row("a", tags=tags)])], joined)
    elastic.store.label("prod/flights", {("request-a", 0): {"deep": json.loads(tags)}})

    assert outcomes == {"stored": 1}


def test_a_request_that_is_too_large_is_divided(elastic: Store, samples: SimpleNamespace) -> None:
    elastic.server.faults = [Answer(413, ""), Answer(413, ""), Answer(413, "")]

    outcomes = elastic.store.write([samples.batch([samples.row(name) for name in "abcd"])])

    # Four, then two, then one: that one can be divided no more.
    assert outcomes == {"stored": 3, "refused": 1}


def test_stopping_ends_the_waiting_for_a_dead_server(
    elastic: Store, samples: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk_module, "_SHORTEST_S", 60.0)
    monkeypatch.setattr(bulk_module, "_LONGEST_S", 60.0)
    waiting = threading.Event()
    elastic.store._bulk._on_trouble = lambda _: waiting.set()
    elastic.server.faults = [UnreachableError("refused")]

    def stop() -> None:
        assert waiting.wait(100)
        elastic.store.stop()

    thread = threading.Thread(target=stop)
    thread.start()
    with pytest.raises(StoppedError):
        elastic.store.write([samples.batch([samples.row("a")])])
    thread.join()
    assert elastic.server.found == {}


def _every_second(operations: Any) -> Any:
    return [(429, "x") if place % 2 else None for place in range(len(operations))]


@given(
    journal=st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(1, 3), st.integers(0, 1)),
        min_size=1,
        max_size=8,
    ),
    steps=st.lists(
        st.tuples(
            st.integers(1, 8),
            st.booleans(),
            st.lists(st.sampled_from([_every_second, UnreachableError("x")]), max_size=2),
        ),
        max_size=8,
    ),
)
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_order_of_crashes_and_faults_leaves_each_row_of_the_newest_revision_once(
    samples: SimpleNamespace, journal: Any, steps: Any
) -> None:
    newest: dict[str, tuple[int, int]] = {}
    batches = []
    for name, n_rows, day in journal:
        revision = newest[name][0] + 1 if name in newest else 0
        newest[name] = revision, n_rows
        rows = [
            samples.row(name, DAY_MINUTES * day, row=number, revision=revision)
            for number in range(n_rows)
        ]
        batches.append(samples.batch(rows))
    elastic = Store()
    position = 0
    for n_batches, crashes, faults in [*steps, (len(batches), False, [])]:
        elastic.server.faults = list(faults)
        elastic.store.write(batches[position : position + n_batches])
        # Before the commit: the same work, or more of it or less, is done again.
        position += 0 if crashes else n_batches
    elastic.store.close()

    found = {name: source["revision"] for name, source in elastic.server.sources().items()}
    assert found == {
        f"{name}-{number}": revision
        for name, (revision, n_rows) in newest.items()
        for number in range(n_rows)
    }


def test_names_of_deployments_become_names_of_indices() -> None:
    stems = [index_stem("p", "inferences", f"ns/{name}") for name in ("a", "A", "a b", "a%20b")]

    assert stems[0] == "p-inferences-ns-a"
    assert len(set(stems)) == 4
    assert len(index_stem("p", "i", "n/" + "é" * 300)) < 200


@given(st.text(max_size=300))
def test_a_field_has_no_dots_no_stars_and_is_never_empty(name: str) -> None:
    field = field_name(name.encode("utf-8", "ignore").decode())

    assert field.strip()
    assert not set(field) & set(".*\0")
    assert not field.startswith("_")


@pytest.mark.parametrize(
    ("flavour", "module", "extra"),
    [
        ("elasticsearch", "elasticsearch", "sidelight[elasticsearch]"),
        ("opensearch", "opensearchpy", "sidelight[opensearch]"),
    ],
)
def test_a_client_that_is_not_installed_names_the_extra(
    flavour: Any, module: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)

    with pytest.raises(MissingExtraError, match="pip install") as caught:
        connect(ElasticConnection(url="http://127.0.0.1:9", flavour=flavour))

    assert extra in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [{"username": "u"}, {"api_key": "k", "flavour": "opensearch"}, {"password": "p"}],
)
def test_credentials_that_cannot_be_used_are_refused(options: Any) -> None:
    with pytest.raises(ValueError, match="expected"):
        ElasticConnection(url="http://127.0.0.1:9", **options)


def test_no_secret_is_shown() -> None:
    shown = repr(ElasticConnection(url="http://h", username="u", password="hidden"))

    assert "hidden" not in shown


def test_an_empty_batch_is_no_request(elastic: Store, samples: SimpleNamespace) -> None:
    batch = samples.batch([samples.row("a")])
    empty = type(batch)(batch.records.slice(0, 0))

    assert elastic.store.write([empty]) == {}
    assert pa.types.is_string(empty.records.schema.field("id").type)
    assert ("POST", "/_bulk") not in elastic.server.requests
