"""The ten queries of the guide, on real servers, against what the same rows say in Python.

The commands of the guide give the same inferences, from the server and from the lake.
"""

import json
import re
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import duckdb
import pytest
from tests.adapters.conftest import EPOCH, Store, batch, labelled, row
from tests.services.elastic_server import ElasticServer
from typer.testing import CliRunner, Result

from sidelight.adapters import (
    AlarmSpan,
    ElasticConnection,
    ElasticStore,
    EmbeddedDocuments,
    EmbeddedJournals,
    IndexOptions,
    Joined,
    Scores,
    connect_elastic,
)
from sidelight.service._cli import app

_GUIDE = Path(__file__).parents[2] / "docs" / "elasticsearch.md"
_QUERY = re.compile(r"^### (\d+)\. [^\n]+\n\n```json\n(.*?)```$", re.MULTILINE | re.DOTALL)
_COMMAND = re.compile(
    r"^### (\d+)\. (?:(?!^###).)*?^```console\n\$ (.*?)```$", re.MULTILINE | re.DOTALL
)
_SQL = re.compile(r"^```sql\n(.*?)```$", re.MULTILINE | re.DOTALL)
_PATTERN = "sidelight-inferences-prod-flights-*"
_START_US = int(EPOCH.timestamp()) * 1_000_000
_MINUTE_US = 60_000_000
_N_INFERENCES = 30
_OUTLIERS = {6: 3.5, 17: 9.25}

Row = Mapping[str, Any]


def _facts(number: int, place: int) -> dict[str, Any]:
    label = None
    if number < 20 and number % 5:
        label = int(number % 4 == 0) ^ int(number % 7 == 0)
    return {
        "number": number,
        "place": place,
        "version": str(1 + number % 2),
        "carrier": ("UA", "AA", "DL")[number % 3],
        "distance": 100.0 * number,
        "late": 0.9 if number % 4 == 0 else 0.1,
        "label": label,
        "status": 500 if number == 11 else 200,
        "latency_ms": 1500.0 if number == 13 else 10.0,
        "orphan": "request" if number == 3 else None,
    }


_ROWS = [
    _facts(number, place)
    for number in range(_N_INFERENCES)
    for place in range(2 if number == 5 else 1)
]

_EXPECTED: dict[int, Callable[[Row], bool]] = {
    1: lambda item: bool(item["version"] == "2"),
    2: lambda item: bool(10 <= item["number"] < 20),
    3: lambda item: bool(item["carrier"] == "UA" and 1000 <= item["distance"] < 2000),
    4: lambda item: bool(item["number"] == 5),
    5: lambda item: item["number"] in _OUTLIERS,
    6: lambda item: item["label"] is not None and bool(item["label"] != (item["late"] >= 0.5)),
    7: lambda item: bool(item["status"] >= 500 or item["latency_ms"] > 1000),
    8: lambda item: bool(item["number"] >= 25),
    9: lambda item: item["label"] is None and item["number"] < 10 and not item["orphan"],
}


def _name(item: Row) -> str:
    return f"i{item['number']:02d}"


def _batches() -> list[Any]:
    return [
        batch(
            [
                row(
                    _name(item),
                    item["number"],
                    row=item["place"],
                    version=item["version"],
                    status=item["status"],
                    latency_ms=item["latency_ms"],
                    orphan=item["orphan"],
                    **{
                        "features.carrier": item["carrier"],
                        "features.distance": item["distance"],
                        "outputs.late": item["late"],
                    },
                )
                for item in _ROWS
            ]
        )
    ]


@pytest.fixture(scope="module")
def stored(search_server: ElasticServer) -> ElasticServer:
    span = AlarmSpan(id="drift-1", version=None, start_us=_START_US + 25 * _MINUTE_US, end_us=None)
    scores = {
        (_name(item), 0, 0): (
            _OUTLIERS.get(item["number"], 0.5),
            0.5,
            item["number"] in _OUTLIERS,
        )
        for item in _ROWS
    }
    flavour = search_server.flavour
    client = connect_elastic(ElasticConnection(url=search_server.url, flavour=flavour))
    store = ElasticStore(client, flavour=flavour, options=IndexOptions(replicas=0))
    store.write(_batches(), {"prod/flights": Joined(labels={}, scores=scores, alarms=[span])})
    labels = {
        (f"request-{_name(item)}", item["place"]): {"late": item["label"]}
        for item in _ROWS
        if item["label"] is not None
    }
    store.label("prod/flights", labels)
    # Another deployment, whose indices the pattern finds as well.
    store.write([batch([row("other", 30)], deployment="prod/flights-canary")])
    search_server.ask("POST", f"/{_PATTERN}/_refresh")
    store.close()
    return search_server


def _queries() -> dict[int, Any]:
    found = _QUERY.findall(_GUIDE.read_text())
    return {int(number): json.loads(query) for number, query in found}


def _ask(server: ElasticServer, query: Mapping[str, Any]) -> Any:
    return server.ask("POST", f"/{_PATTERN}/_search", {"size": 100, **query})


def test_the_guide_has_ten_queries() -> None:
    assert sorted(_queries()) == list(range(1, 11))


@pytest.mark.parametrize("number", sorted(_EXPECTED))
def test_a_query_of_the_guide_finds_what_it_says(stored: ElasticServer, number: int) -> None:
    hits = _ask(stored, _queries()[number])["hits"]["hits"]

    expected = [f"{_name(item)}-{item['place']}" for item in _ROWS if _EXPECTED[number](item)]
    assert expected
    assert sorted(hit["_id"] for hit in hits) == expected


def test_outliers_come_the_strangest_first(stored: ElasticServer) -> None:
    hits = _ask(stored, _queries()[5])["hits"]["hits"]

    assert [hit["_source"]["outlier_score"] for hit in hits] == [9.25, 3.5]


def test_aggregations_are_those_of_the_rows(stored: ElasticServer) -> None:
    answer = _ask(stored, _queries()[10])

    for bucket in answer["aggregations"]["versions"]["buckets"]:
        rows = [item for item in _ROWS if item["version"] == bucket["key"]]
        distances = [item["distance"] for item in rows]
        assert bucket["doc_count"] == len(rows)
        assert bucket["distance"]["min"] == min(distances)
        assert bucket["distance"]["sum"] == pytest.approx(sum(distances))
        assert bucket["late"]["value"] == pytest.approx(
            sum(item["late"] for item in rows) / len(rows)
        )
    assert len(answer["aggregations"]["versions"]["buckets"]) == 2


@pytest.fixture(scope="module")
def folder(stored: ElasticServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the same rows in a lake, and configurations that ask either store."""
    folder = tmp_path_factory.mktemp("queries")
    data = folder / "data"
    EmbeddedJournals(data, groups=()).close()
    documents = EmbeddedDocuments(data)
    lake = Store(data, documents)
    batches = _batches()
    values = [_OUTLIERS.get(item["number"], 0.5) for item in _ROWS]
    scores = Scores.of(
        batches[0], outlier_score=values, p_value=values, outlier=[False] * len(values)
    )
    documents.put(lake.lake.stage(batches, first=0, last=0))
    documents.put(lake.lake.stage_scores([scores], first=0, last=0))
    for item in _ROWS:
        if item["label"] is not None:
            label = {"late": item["label"]}
            documents.put(
                [labelled("prod/flights", f"request-{_name(item)}", item["place"], label)]
            )
    lake.close()
    documents.close()
    server = {"url": stored.url, "flavour": stored.flavour}
    for answers in ("lake", "elasticsearch"):
        store = {"queries": answers, "elasticsearch": server}
        content = json.dumps({"data": str(data), "store": store})
        (folder / f"{answers}.yaml").write_text(content)
    return folder


def _commands() -> dict[int, list[str]]:
    found = _COMMAND.findall(_GUIDE.read_text())
    return {int(number): shlex.split(line.replace("\\\n", " "))[1:] for number, line in found}


def _run(folder: Path, answers: str, words: list[str]) -> Result:
    done = CliRunner().invoke(app, [*words, "--config", str(folder / f"{answers}.yaml")])
    assert done.exit_code == 0, done.output
    return done


def test_each_query_has_a_command() -> None:
    assert sorted(_commands()) == list(range(1, 11))


@pytest.mark.parametrize("number", sorted(_EXPECTED))
def test_the_command_gives_the_same_from_the_server_and_from_the_lake(
    folder: Path, number: int
) -> None:
    answers = [
        [json.loads(line) for line in _run(folder, store, _commands()[number]).stdout.splitlines()]
        for store in ("elasticsearch", "lake")
    ]

    expected = sorted({_name(item) for item in _ROWS if _EXPECTED[number](item)})
    assert sorted(item["id"] for item in answers[0]) == expected
    # One row of one inference has no score in the server.
    assert [item["id"] for item in answers[0]] == [item["id"] for item in answers[1]]


@pytest.mark.parametrize("store", ["elasticsearch", "lake"])
def test_what_is_exported_aggregates_as_the_server_does(
    stored: ElasticServer, folder: Path, store: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    answer = _ask(stored, _queries()[10])["aggregations"]["versions"]["buckets"]

    _run(folder, store, _commands()[10])
    (sql,) = _SQL.findall(_GUIDE.read_text())
    relation = duckdb.sql(sql)
    assert relation is not None
    rows = relation.fetchall()

    assert rows == [
        (
            bucket["key"],
            bucket["doc_count"],
            bucket["distance"]["min"],
            pytest.approx(bucket["distance"]["sum"]),
            pytest.approx(bucket["late"]["value"]),
        )
        for bucket in sorted(answer, key=lambda bucket: str(bucket["key"]))
    ]
