"""Both major versions of the client against Elasticsearch 9: the same answers as the lake's."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.services.elastic_server import CLIENT_8, CLIENT_9, ElasticServer, client

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
        timeout=120,
    )

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"same": 24}
