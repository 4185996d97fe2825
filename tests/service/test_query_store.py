"""Which store answers, as it is configured; and what is said where rows are elsewhere."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from sidelight.adapters import ElasticInferences, EmbeddedDocuments, EmbeddedJournals, Inferences
from sidelight.service import _indexing as indexing
from sidelight.service._cli import app
from sidelight.service._query_store import note_store, open_query_store, refuse_without_lake
from sidelight.service._settings import Settings, load_settings
from sidelight.service.errors import ConfigurationError

_SERVER = {"url": "http://127.0.0.1:9"}


class Client:
    """A client that nobody asks."""

    def close(self) -> None:
        pass


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr("sidelight.service._query_store.connect_elastic", lambda _: Client())

    def make(**store: Any) -> Settings:
        path = tmp_path / "sidelight.yaml"
        path.write_text(json.dumps({"data": str(tmp_path / "data"), "store": store}))
        return load_settings(path, {})

    return make


@pytest.fixture
def documents(tmp_path: Path) -> Iterator[EmbeddedDocuments]:
    EmbeddedJournals(tmp_path / "data", groups=()).close()
    made = EmbeddedDocuments(tmp_path / "data")
    yield made
    made.close()


@pytest.mark.parametrize(
    ("store", "kind"),
    [
        ({}, Inferences),
        ({"elasticsearch": _SERVER}, Inferences),
        ({"elasticsearch": _SERVER, "queries": "lake"}, Inferences),
        ({"elasticsearch": _SERVER, "queries": "elasticsearch"}, ElasticInferences),
        ({"elasticsearch": _SERVER, "lake": False}, ElasticInferences),
    ],
)
def test_the_lake_answers_unless_another_is_asked_for_or_there_is_none(
    settings: Any, documents: EmbeddedDocuments, store: dict[str, Any], kind: type
) -> None:
    opened = open_query_store(settings(**store), documents)

    assert type(opened) is kind
    opened.close()


@pytest.mark.parametrize(
    "store",
    [
        {"lake": False},
        {"queries": "elasticsearch"},
        {"queries": "lake", "lake": False, "elasticsearch": _SERVER},
    ],
)
def test_a_store_that_is_not_there_is_refused(settings: Any, store: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="store: expected"):
        settings(**store)


def test_rows_that_are_elsewhere_are_said_and_not_shown_as_none(
    settings: Any, documents: EmbeddedDocuments, tmp_path: Path
) -> None:
    refuse_without_lake(documents)
    note_store(settings(lake=False, elasticsearch=_SERVER), documents)

    with pytest.raises(ConfigurationError, match="search server"):
        refuse_without_lake(documents)
    done = CliRunner().invoke(app, ["query", "--data", str(tmp_path / "data")])
    assert (done.exit_code, done.stdout) == (2, "")
    assert "--config" in done.stderr

    note_store(settings(), documents)
    refuse_without_lake(documents)


@pytest.mark.parametrize(
    "content", ["{", "[]", "{}", '{"requests": [], "responses": [1]}', '{"requests": {}}']
)
def test_a_prediction_schema_that_is_none_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "schema.json"
    path.write_text(content)

    with pytest.raises(ConfigurationError, match=r"schema\.json"):
        indexing._schema(path)


def test_a_prediction_schema_is_read(tmp_path: Path) -> None:
    path = tmp_path / "schema.json"
    path.write_text('{"requests": [{"name": "a"}], "responses": []}')

    assert indexing._schema(path) == {"requests": [{"name": "a"}], "responses": []}
