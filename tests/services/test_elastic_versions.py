"""Elasticsearch 9: both major versions of the client, answers as the lake's, a lifecycle policy."""

import json
import os
import subprocess
import sys
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.adapters.conftest import batch, row
from tests.services.elastic_server import CLIENT_8, CLIENT_9, ElasticServer, client, clients

from sidelight.adapters import ElasticConnection, ElasticStore, IndexOptions, connect_elastic

_ROUND = Path(__file__).with_name("elastic_round.py")


@pytest.fixture(scope="module")
def version_9(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ElasticServer]:
    server = ElasticServer("elasticsearch", tmp_path_factory.mktemp("nine"), version=9)
    server.start()
    yield server
    server.close()


def test_the_server_is_of_version_9(version_9: ElasticServer) -> None:
    assert version_9.ask("GET", "/")["version"]["number"].startswith("9.")


@pytest.mark.parametrize("version", [CLIENT_8, CLIENT_9])
def test_rows_go_in_and_come_out_with_either_client(
    version_9: ElasticServer, version: str, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, _ROUND, version_9.url, tmp_path / "data", version],
        env={**os.environ, "PYTHONPATH": str(client(version))},
        capture_output=True,
        check=False,
        text=True,
        timeout=480,
    )

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"same": 24}


@pytest.fixture
def indexed(version_9: ElasticServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[ElasticServer]:
    """Return the server with one row in it, under the names that are usual."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(clients())])
    store = ElasticStore(
        connect_elastic(ElasticConnection(url=version_9.url)),
        options=IndexOptions(replicas=0, delete_after="30d"),
    )
    store.write([batch([row("a")])])
    yield version_9
    store.close()


def test_the_lifecycle_policy_is_accepted_and_read_back(indexed: ElasticServer) -> None:
    told = indexed.ask("GET", "/_ilm/policy/sidelight-inferences")

    phases = told["sidelight-inferences"]["policy"]["phases"]
    assert {name: (phase["min_age"], phase["actions"]) for name, phase in phases.items()} == {
        "hot": ("0ms", {"set_priority": {"priority": 100}}),
        "warm": ("7d", {"set_priority": {"priority": 50}}),
        "delete": ("30d", {"delete": {"delete_searchable_snapshot": True}}),
    }


def test_every_index_of_inferences_names_the_lifecycle_policy(indexed: ElasticServer) -> None:
    told = indexed.ask("GET", "/sidelight-inferences-*/_settings?flat_settings=true")

    assert {index: of["settings"].get("index.lifecycle.name") for index, of in told.items()} == {
        "sidelight-inferences-prod-flights-2013-01-01": "sidelight-inferences"
    }


@pytest.mark.parametrize(
    "phases",
    [
        pytest.param({"hot": {"actions": {"burn": {}}}}, id="unknown action"),
        pytest.param({"hot": {"actions": {"delete": {}}}}, id="action of another phase"),
        pytest.param({"warm": {"min_age": "soon", "actions": {}}}, id="no age"),
    ],
)
def test_what_is_no_lifecycle_policy_is_refused(
    version_9: ElasticServer, phases: dict[str, Any]
) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        version_9.ask("PUT", "/_ilm/policy/other", {"policy": {"phases": phases}})

    assert refused.value.code == 400
    refused.value.close()
