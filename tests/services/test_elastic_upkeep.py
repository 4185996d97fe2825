"""Old rows and erased inferences go from real servers, and nothing else goes."""

import random
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from tests.adapters.conftest import EPOCH, batch, row
from tests.services.elastic_server import ElasticServer

from sidelight.adapters import (
    ElasticConnection,
    ElasticExpiry,
    ElasticInferences,
    ElasticSearch,
    ElasticStore,
    IndexOptions,
    SeldonOptions,
    StoreError,
    connect_elastic,
)

_DAY_MINUTES = 24 * 60
_DAY_US = 86_400_000_000
_START_US = int(EPOCH.timestamp()) * 1_000_000


class Store:
    """Indices of its own, with one row for each half day of five."""

    def __init__(
        self, server: ElasticServer, seldon: SeldonOptions | None = None, **options: Any
    ) -> None:
        self.server = server
        self.prefix = f"u{random.getrandbits(40):x}"
        self._connection = ElasticConnection(url=server.url, flavour=server.flavour, timeout_s=120)
        self.store = ElasticStore(
            connect_elastic(self._connection),
            flavour=server.flavour,
            options=IndexOptions(prefix=self.prefix, replicas=0, **options),
            seldon=seldon,
        )
        search = ElasticSearch(connect_elastic(self._connection), self.prefix)
        self.expiry = ElasticExpiry(search)

    def fill(self, deployment: str = "prod/a-b", days: int = 5) -> None:
        rows = [
            row(f"{deployment.replace('/', '_')}{number}", number * _DAY_MINUTES / 2)
            for number in range(2 * days)
        ]
        self.store.write([batch(rows, deployment=deployment)])

    def expire(self, days: float, kept: Sequence[Any] = (), deployment: str = "prod/a-b") -> int:
        before_us = _START_US + int(days * _DAY_US)
        total = 0
        while number := self.expiry.expire(deployment, before_us=before_us, kept=kept):
            total += number
        return total

    def names(self) -> list[str]:
        return sorted(
            item["inference_id"] for item in self.server.documents(f"{self.prefix}-inferences-*")
        )

    def indices(self) -> list[str]:
        return sorted(self.server.ask("GET", f"/{self.prefix}-inferences-*/_alias"))

    def queries(self) -> ElasticInferences:
        return ElasticInferences(connect_elastic(self._connection), prefix=self.prefix)

    def close(self) -> None:
        self.store.close()
        self.expiry.close()


@pytest.fixture
def store(search_server: ElasticServer) -> Iterator[Store]:
    store = Store(search_server)
    yield store
    store.close()


def test_whole_days_go_as_indices_and_the_rest_as_documents(store: Store) -> None:
    store.fill()

    number = store.expire(2.5)

    assert number == 5
    assert store.names() == [f"prod_a-b{number}" for number in range(5, 10)]
    assert [name[-10:] for name in store.indices()] == ["2013-01-03", "2013-01-04", "2013-01-05"]
    assert store.expire(2.5) == 0


def test_times_on_hold_stay(store: Store) -> None:
    store.fill()
    # Half of the second day, and what is open to the past.
    half = (_START_US + _DAY_US, _START_US + _DAY_US + _DAY_US // 2)

    assert store.expire(4, [half]) == 7
    assert store.names() == ["prod_a-b2", "prod_a-b8", "prod_a-b9"]
    assert store.expire(5, [(None, _START_US + 2 * _DAY_US)]) == 2
    assert store.names() == ["prod_a-b2"]


def test_another_deployment_in_the_same_indices_stays(store: Store) -> None:
    store.fill("prod/a-b")
    store.fill("prod-a/b")

    assert store.expire(9) == 10
    assert store.names() == [f"prod-a_b{number}" for number in range(10)]
    assert store.expiry.deployments() == ["prod-a/b", "prod/a-b"]


def test_erased_inferences_go_with_all_rows_and_revisions(store: Store) -> None:
    rows = [row("gone", minutes, row=number) for number, minutes in enumerate((0, 0))]
    later = row("gone", 3 * _DAY_MINUTES, revision=1)
    other = row("gone", 0)
    store.store.write([batch([*rows, row("kept")]), batch([other], deployment="prod/other")])
    store.store.write([batch([later])])

    numbers = [store.store.erase("prod/flights", ["gone", "unknown"]) for _ in range(2)]

    assert numbers == [1, 0]
    assert store.names() == ["gone", "kept"]


def test_clocks_that_jump_make_no_index_for_each_day(search_server: ElasticServer) -> None:
    store = Store(search_server, max_days=3)
    try:
        store.fill(days=6)
        assert len(store.names()) == 12
        queries = store.queries()
        items, _ = queries.find(deployment="prod/a-b", from_="2013-01-05", order="time")
        queries.close()

        assert [name.rpartition("prod-a-b-")[2] for name in store.indices()] == [
            *("2013-01-01", "2013-01-02", "2013-01-03"),
            "other-times",
        ]
        assert [item.id for item in items] == [f"prod_a-b{number}" for number in range(8, 12)]
        assert store.expire(5.5) == 11
        assert store.names() == ["prod_a-b11"]
    finally:
        store.close()


def test_documents_in_seldons_layout_go_with_the_rows(search_server: ElasticServer) -> None:
    environment = f"u{random.getrandbits(40):x}"
    store = Store(search_server, seldon=SeldonOptions(environment=environment))
    pattern = f"inference-log-{environment}-*"

    def left() -> list[str]:
        search_server.ask("POST", f"/{pattern}/_refresh")
        hits = search_server.ask("POST", f"/{pattern}/_search", {"size": 100})["hits"]["hits"]
        return sorted(hit["_id"] for hit in hits)

    deployment = f"prod/{environment}"
    names = [f"request-prod_{environment}{number}" for number in range(4)]
    try:
        store.fill(deployment, days=2)
        before = left()
        kept = (_START_US + _DAY_US // 2, _START_US + _DAY_US)
        store.expire(1.5, [kept], deployment)
        after = left()
        store.store.erase(deployment, [f"prod_{environment}1"])

        assert (before, after, left()) == (names, [names[1], names[3]], [names[3]])
    finally:
        store.close()


def test_a_server_that_is_down_deletes_nothing_and_says_so(
    search_server: ElasticServer, store: Store
) -> None:
    nobody = ElasticConnection(url="http://127.0.0.1:9", flavour=search_server.flavour, timeout_s=1)
    expiry = ElasticExpiry(ElasticSearch(connect_elastic(nobody), store.prefix))

    with pytest.raises(StoreError, match="no answer"):
        expiry.expire("prod/a-b", before_us=0)
    expiry.close()
