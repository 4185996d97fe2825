"""Real Elasticsearch and OpenSearch: killed, throttled, confused; nothing lost, nothing twice.

Their queue of writes has room for one: rejections are the rule here.
"""

import random
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
from tests.adapters.conftest import batch, row
from tests.services.conftest import wait_until
from tests.services.elastic_server import ElasticServer, clients

from sidelight.adapters import (
    AlarmSpan,
    ElasticConnection,
    ElasticStore,
    IndexOptions,
    Joined,
    SeldonOptions,
    connect_elastic,
)
from sidelight.payloads import ROW_SCHEMA, Batch

if TYPE_CHECKING:
    from tests.services.conftest import Service

_N_KILL_ROUNDS = 8
_N_KILL_ROWS = 300
_DAY_MINUTES = 24 * 60
_PATIENCE_S = 600.0


class Store:
    """A store with indices of its own, and what it was in trouble with."""

    def __init__(
        self,
        server: ElasticServer,
        connections: int = 2,
        seldon: SeldonOptions | None = None,
        timeout_s: float = 120.0,
        **options: Any,
    ) -> None:
        self.troubles: list[str] = []
        self.server = server
        self.prefix = f"t{random.getrandbits(40):x}"
        connection = ElasticConnection(
            url=server.url, flavour=server.flavour, timeout_s=timeout_s, connections=connections
        )
        self.store = ElasticStore(
            connect_elastic(connection),
            flavour=server.flavour,
            options=IndexOptions(prefix=self.prefix, replicas=0, **options),
            on_trouble=self.troubles.append,
            connections=connections,
            seldon=seldon,
        )

    def documents(self) -> list[dict[str, Any]]:
        return self.server.documents(f"{self.prefix}-inferences-*")

    def places(self) -> list[tuple[str, int]]:
        return [(item["inference_id"], item["row"]) for item in self.documents()]

    def search(self, **query: Any) -> list[str]:
        self.documents()
        found = self.server.ask("POST", f"/{self.prefix}-inferences-*/_search", {"query": query})
        return sorted(hit["_id"] for hit in found["hits"]["hits"])


@pytest.fixture
def open_store(search_server: ElasticServer) -> Iterator[Callable[..., Store]]:
    stores: list[Store] = []

    def make(**options: Any) -> Store:
        stores.append(Store(search_server, **options))
        return stores[-1]

    yield make
    for store in stores:
        store.store.close()


def test_numbers_are_found_as_ranges_and_categories_as_terms(
    open_store: Callable[..., Store],
) -> None:
    store = open_store()
    ages = [0.0, 10.5, 21.0]
    rows: list[dict[str, Any]] = [
        row(f"r{number}", number, **_features(age=ages[number], carrier=carrier))
        for number, carrier in enumerate(["UA", "AA", "UA"])
    ]
    # The first value of the field is a whole number: those behind the point count all the same.
    whole = row("whole", **_features(age=3, carrier="2013-01-01"))

    store.store.write([batch([whole])])
    store.store.write([batch(rows)])

    assert store.search(range={"features.age": {"gt": 10, "lt": 10.6}}) == ["r1-0"]
    assert store.search(term={"features.carrier": "UA"}) == ["r0-0", "r2-0"]
    assert store.search(term={"features.carrier": "2013-01-01"}) == ["whole-0"]


def test_a_label_that_is_a_structure_is_replaced_and_not_merged(
    open_store: Callable[..., Store],
) -> None:
    store = open_store()
    store.store.write([batch([row("a")])])
    place = ("request-a", 0)
    kept = []

    for label in ({"x": 1}, {"y": 2}, None):
        store.store.label("prod/flights", {place: {"why": label}})
        (document,) = store.documents()
        kept.append(document["unindexed"]["labels"]["why"])

    assert kept == [{"%json": '{"x": 1}'}, {"%json": '{"y": 2}'}, None]


def _features(**values: Any) -> dict[str, Any]:
    return {f"features.{name}": value for name, value in values.items()}


def test_values_that_do_not_fit_their_field_cost_the_field_and_not_the_row(
    open_store: Callable[..., Store],
) -> None:
    store = open_store()
    odd: list[Any] = [1.5, "text", True, {"x": 1}, [1.0, 2.0], None, float("nan"), b"\xff", 1 << 60]
    for number, value in enumerate(odd):
        store.store.write([batch([row(f"r{number}", **{"features.odd": value})])])
    store.store.label(
        "prod/flights",
        {
            ("request-r0", 0): {"late": 1.0},
            ("request-r1", 0): {"late": "no"},
            ("request-r2", 0): {"late": {"deep": [1]}},
            ("request-r3", 0): {"late": 1 << 80},
            ("request-r4", 0): {"late": True},
        },
    )

    documents = store.documents()

    assert len(documents) == len(odd)
    assert documents[1]["features"]["odd"] == "text"
    assert documents[1]["labels"] == {"late": "no"}
    assert documents[2]["unindexed"]["labels"] == {"late": {"%json": '{"deep": [1]}'}}
    assert documents[3]["unindexed"]["labels"] == {"late": {"%json": str(1 << 80)}}
    assert store.search(range={"features.odd": {"gte": 1, "lte": 2}}) == ["r0-0"]


def test_columns_without_end_do_not_make_a_mapping_without_end(
    open_store: Callable[..., Store],
) -> None:
    store = open_store(max_fields=50)
    for number in range(6):
        values = {f"features.f{number}_{column}": float(column) for column in range(80)}
        store.store.write([batch([row(f"r{number}", **values)])])

    documents = store.documents()

    assert len(documents) == 6
    kept = [
        len(item.get("features", {})) + len(item.get("unindexed", {}).get("features", {}))
        for item in documents
    ]
    assert kept == [80] * 6
    (mapping,) = store.server.ask("GET", f"/{store.prefix}-inferences-*/_mapping").values()
    assert len(mapping["mappings"]["properties"]["features"].get("properties", {})) <= 150


def test_hostile_names_and_texts_are_stored(open_store: Callable[..., Store]) -> None:
    store = open_store()
    names = [".", "..", "a.b", "a", "", " ", "_id", "*", "a*b", "\x00", "é" * 300, "a" * 9000]
    values: dict[str, Any] = {f"features.{name}": 1.0 for name in names}
    values |= {f"outputs.{name}": "x" * 40_000 for name in names}
    hostile = row("a", tags='{"a": {"b": "' + "y" * 40_000 + '"}}', version="v" * 5000, **values)

    outcomes = store.store.write(
        [
            batch([hostile], deployment="Prod/Ü b*/c"),
            batch([row("b")], deployment="prod/" + "x" * 240),
        ]
    )

    # What a slow server was asked twice is there already.
    assert set(outcomes) <= {"stored", "reduced", "already"}
    assert store.places() == [("a", 0), ("b", 0)]


def test_times_of_all_ages_have_their_index(open_store: Callable[..., Store]) -> None:
    store = open_store()
    minutes = [-_DAY_MINUTES * 365 * 1500, 0, _DAY_MINUTES * 365 * 3000]

    store.store.write([batch([row(f"r{number}", at) for number, at in enumerate(minutes)])])

    documents = store.documents()
    assert [item["_index"][-10:][:4] for item in documents] == ["0513", "2013", "5011"]


def test_rejected_writes_are_sent_again(open_store: Callable[..., Store]) -> None:
    store = open_store(connections=8)
    expected = []
    for number in range(20):
        rows = _rows(f"x{number}", 8000)
        expected += rows.records.column("id").to_pylist()
        store.store.write([rows])
        if "throttled" in store.troubles:
            break

    assert "throttled" in store.troubles
    assert [name for name, _ in store.places()] == sorted(expected)


def test_a_revision_replaces_the_orphan_of_another_day(open_store: Callable[..., Store]) -> None:
    store = open_store()
    orphan = batch([row("a", _DAY_MINUTES, row=number, orphan="response") for number in range(3)])
    pair = batch([row("a", revision=1), row("a", row=1, revision=1)])

    for delivered in ([orphan], [pair], [orphan], [pair]):
        store.store.write(delivered)

    documents = store.documents()
    assert [(item["row"], item["revision"], item["_index"][-10:]) for item in documents] == [
        (0, 1, "2013-01-01"),
        (1, 1, "2013-01-01"),
    ]


def test_labels_scores_and_alarms_join_their_rows(open_store: Callable[..., Store]) -> None:
    store = open_store()
    span = AlarmSpan(id="alarm", version=None, start_us=1_356_998_400_000_000, end_us=None)
    scores = {"prod/flights": Joined(labels={}, scores={("b", 0, 0): (7.5, 0.01, True)})}
    store.store.write([batch([row("early", -5), row("a"), row("b", 1)])], scores)

    store.store.label("prod/flights", {("request-a", 0): {"late": 1}})
    store.store.label("prod/flights", {("request-a", 0): {"why": "snow"}})
    store.store.alarm({"id": "alarm", "deployment": "prod/flights", "state": "open"}, span)
    store.store.write([batch([row("a")])])

    assert store.search(term={"labels.late": 1}) == ["a-0"]
    assert store.search(term={"labels.why": "snow"}) == ["a-0"]
    assert store.search(term={"outlier": True}) == ["b-0"]
    assert store.search(term={"alarms": "alarm"}) == ["a-0", "b-0"]


def test_documents_in_seldons_layout_are_merged_from_what_comes_in_any_order(
    open_store: Callable[..., Store],
) -> None:
    seldon = SeldonOptions(environment=f"t{random.getrandbits(40):x}")
    store = open_store(seldon=seldon)
    facts: dict[str, Any] = {"protocol": "seldon", "component": "classifier", "endpoint": "default"}
    orphan = row("a", orphan="response", **facts, **{"outputs.y": 0.5})
    pair = {**row("a", revision=1, **facts), **_features(age=53, job="x" * 3000), "outputs.y": 0.5}
    reply = {
        "kind": "outlier",
        "deployment": "prod/flights",
        "component": "classifier",
        "endpoint": "default",
        "request_id": "request-a",
        "time": "2013-01-01T00:00:00Z",
        "source": "io.seldon.serving.od",
        "data": {"is_outlier": [1], "instance_score": [9.5]},
        "meta": {},
    }
    drift = {**reply, "kind": "drift", "data": {"is_drift": 1, "distance": 0.4, "p_val": 0.01}}
    layout = {
        side: {"form": "ndarray", "tensors": [{"name": name, "datatype": "NUMBER", "shape": []}]}
        for side, name in (("request", "age"), ("response", "y"))
    }

    store.store.reply([reply, drift])
    for delivered in (orphan, pair, orphan):
        store.store.write([batch([delivered], layout=layout)])

    pattern = f"*-{seldon.environment}-seldon-prod-*"
    store.server.ask("POST", f"/{pattern}/_refresh")
    hits = store.server.ask("POST", f"/{pattern}/_search", {"sort": "_index"})["hits"]["hits"]
    names = [f"drift-log-{seldon.environment}-seldon-prod-od"]
    names += [f"inference-log-{seldon.environment}-seldon-prod-flights-default"]
    assert [(hit["_index"], hit["_id"]) for hit in hits] == [(name, "request-a") for name in names]
    merged = hits[1]["_source"]
    assert merged["request"]["elements"]["age"] == 53
    assert merged["response"]["instance"] == 0.5
    assert merged["outlier"]["data"] == {"is_outlier": 1, "instance_score": 9.5}
    assert hits[0]["_source"]["drift"]["data"]["drift_type"] == "batch"
    found = store.server.ask(
        "POST",
        f"/{pattern}/_search",
        {"query": {"range": {"request.elements.age": {"gt": 52}}}},
    )
    assert len(found["hits"]["hits"]) == 1


def test_a_server_that_answers_too_late_has_every_row_once(
    search_server: ElasticServer, open_store: Callable[..., Store]
) -> None:
    store = open_store(connections=3, timeout_s=5)
    store.store.write([_rows("first", 1)])
    search_server.pause()
    writer = threading.Thread(target=lambda: store.store.write([_rows("slow", 3000)]))
    try:
        writer.start()
        # Each request has been sent, and given up; the server takes it all the same.
        while len(store.troubles) < 3:
            writer.join(0.05)
            assert writer.is_alive()
    finally:
        search_server.go_on()
    writer.join(_PATIENCE_S)

    assert not writer.is_alive()
    assert set(store.troubles) <= {"unreachable", "throttled"}
    expected = ["first-0", *(f"slow-{number}" for number in range(3000))]
    assert [name for name, _ in store.places()] == sorted(expected)


def test_a_server_killed_under_load_has_every_row_once(
    search_server: ElasticServer, open_store: Callable[..., Store]
) -> None:
    store = open_store(connections=3)
    halfway, killed = threading.Event(), threading.Event()
    failed: list[BaseException] = []

    def write() -> None:
        try:
            for number in range(_N_KILL_ROUNDS):
                store.store.write([_rows(f"k{number:02d}", _N_KILL_ROWS)])
                # Labels raise versions: what is delivered again must not undo them.
                store.store.label("prod/flights", {(f"k{number:02d}-0", 0): {"n": number}})
                store.store.write([_rows(f"k{number:02d}", _N_KILL_ROWS // 3)])
                if number == _N_KILL_ROUNDS // 4:
                    halfway.set()
                # However quick the server is, it is away for the last ones.
                if number == _N_KILL_ROUNDS - 3:
                    assert killed.wait(_PATIENCE_S)
        except BaseException as error:
            failed.append(error)
            halfway.set()
            raise

    writer = threading.Thread(target=write)
    writer.start()
    assert halfway.wait(_PATIENCE_S)
    search_server.kill()
    killed.set()
    # It stays away until that was noticed, however long the writer sleeps.
    wait_until(lambda: "unreachable" in store.troubles or failed, "trouble", timeout_s=_PATIENCE_S)
    search_server.start()
    writer.join(_PATIENCE_S)

    assert not failed
    assert not writer.is_alive()
    assert "unreachable" in store.troubles
    documents = store.documents()
    expected = {
        f"k{number:02d}-{place}"
        for number in range(_N_KILL_ROUNDS)
        for place in range(_N_KILL_ROWS)
    }
    assert len(documents) == len(expected)
    assert {item["inference_id"] for item in documents} == expected
    labels = [item["labels"]["n"] for item in documents if item.get("labels")]
    assert labels == list(range(_N_KILL_ROUNDS))


def _rows(stem: str, n_rows: int) -> Batch:
    """Return rows of one inference each, with five features."""
    names = pa.array([f"{stem}-{number}" for number in range(n_rows)])
    fixed: dict[str, Any] = {
        "id": names,
        "request_id": names,
        "row": pa.array(np.zeros(n_rows, np.int32)),
        "revision": pa.array(np.zeros(n_rows, np.int16)),
        "time": pa.array(np.full(n_rows, 1_356_998_400_000_000)).cast(pa.timestamp("us", "UTC")),
        "protocol": pa.array(["v2"] * n_rows),
        "synthetic": pa.array([False] * n_rows),
    }
    fields = list(ROW_SCHEMA)
    columns = [fixed.get(field.name, pa.nulls(n_rows, field.type)) for field in fields]
    for number in range(5):
        fields.append(pa.field(f"features.f{number}", pa.float64()))
        columns.append(pa.array(np.arange(n_rows) * 0.5))
    records = pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields))
    return Batch.build(records, deployment="prod/flights", layout={})


# What a server sees of it is the same for both: one is enough, and takes half the time.
@pytest.mark.parametrize("search_server", ["elasticsearch"], indirect=True)
def test_what_serve_stores_is_in_the_server_as_well_whoever_is_killed(
    search_server: ElasticServer,
    start_service: Callable[..., "Service"],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(clients()))
    prefix = f"s{random.getrandbits(40):x}"
    settings = {"url": search_server.url, "flavour": search_server.flavour, "index_prefix": prefix}
    service = start_service(
        name=f"serve-{search_server.flavour}",
        config={"store": {"elasticsearch": {**settings, "replicas": 0, "timeout": "30s"}}},
    )
    _send(service, range(200))
    service.wait_for(
        lambda told: _lag(told) == 0 and _indexed(told) >= 400,
        "it is indexed",
        timeout_s=_PATIENCE_S,
    )

    search_server.kill()
    _send(service, range(200, 400))
    # The lake and the detectors do not wait.
    assert len(service.wait_stored(400)) == 400
    service.wait_for(lambda told: _lag(told) > 0, "only indexing lags")
    service.kill()
    service.start()
    search_server.start()
    _label(service, [7, 333])

    def is_whole() -> bool:
        found = search_server.documents(f"{prefix}-inferences-*")
        return len(found) == 800 and sum(bool(item.get("labels")) for item in found) == 2

    # The lag alone does not tell: a service that has just started has not said any.
    service.wait_for(
        lambda told: _lag(told) == 0 and is_whole(), "it catches up", timeout_s=_PATIENCE_S
    )
    documents = search_server.documents(f"{prefix}-inferences-*")
    stored = [
        (item["id"], number, line["features"], line["outputs"], line["labels"])
        for item in service.get_all("/v1/inferences")
        for number, line in enumerate(item["rows"])
    ]
    found = [
        (
            item["inference_id"],
            item["row"],
            item["features"],
            item["outputs"],
            item.get("labels") or {},
        )
        for item in documents
    ]
    key = lambda item: item[:2]  # noqa: E731
    assert sorted(found, key=key) == sorted(stored, key=key)
    assert len(found) == 800
    assert service.stop() == 0


def _lag(told: Any) -> float:
    return float(told.total("journal_lag_events", consumer="indexing"))


def _indexed(told: Any) -> float:
    return float(told.total("indexed_documents_total"))


def _send(service: "Service", numbers: range) -> None:
    events = []
    for number in numbers:
        for side, payload in (
            ("request", {"instances": [[number, 0.5], [number, 1.5]]}),
            ("response", {"predictions": [number * 2, number * 3]}),
        ):
            events.append(
                {
                    "specversion": "1.0",
                    "id": f"r{number}",
                    "source": "http://localhost:9081/",
                    "type": f"org.kubeflow.serving.inference.{side}",
                    "namespace": "prod",
                    "inferenceservicename": "income",
                    "datacontenttype": "application/json",
                    "data": payload,
                }
            )
    answer = service.client.post(
        service.url + "/",
        json=events,
        headers={"content-type": "application/cloudevents-batch+json"},
    )
    assert answer.status_code == 200, answer.text


def _label(service: "Service", numbers: list[int]) -> None:
    items = [
        {"deployment": "prod/income", "request_id": f"r{number}", "labels": {"y": number}}
        for number in numbers
    ]
    answer = service.client.post(f"{service.url}/v1/feedback", json=items)
    assert answer.status_code in {200, 202, 204}, answer.text
