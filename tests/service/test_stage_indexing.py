"""The indexing stage: nobody waits for its server, and nothing is lost or there twice."""

import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.adapters.elastic_fake import FakeServer
from tests.adapters.elastic_fake_search import SearchingServer
from tests.service.conftest import Folder

from sidelight.adapters import (
    ElasticExpiry,
    ElasticSearch,
    ElasticStore,
    Inferences,
    MissingExtraError,
    ScoreReader,
    SeldonOptions,
)
from sidelight.adapters import _elastic_bulk as bulk_module
from sidelight.adapters._elastic_client import Answer, UnreachableError
from sidelight.logger import Commit, Document
from sidelight.payloads import Alarm
from sidelight.service._api_feedback import FEEDBACK_TYPE
from sidelight.service._deployments import put_all_settings
from sidelight.service._detection_results import alarm_document
from sidelight.service._holds import Holds
from sidelight.service._indexing import open_indexing
from sidelight.service._indexing_work import Troubles
from sidelight.service._ingest_client import event_batch
from sidelight.service._search_upkeep import SEARCH_ERASURES, SearchRetention
from sidelight.service._settings import Settings, load_settings
from sidelight.service._settings_deployment import DeploymentSettings, ReferenceSettings
from sidelight.service._settings_elasticsearch import ElasticsearchSettings
from sidelight.service._stage import DETECTION, INDEXING, LABEL_CHANGES, REPLY_CHANGES, STORING
from sidelight.service._stage_decoding import DecodingStage
from sidelight.service._stage_indexing import IndexingStage
from sidelight.service._stages import groups_of, indexing_stage
from sidelight.service.errors import ConfigurationError

_MOST_STEPS = 200


class GatedServer(FakeServer):
    """A server that answers nobody while its gate is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.gate.set()
        self.asked = threading.Event()

    def request(self, *arguments: Any) -> Answer:
        self.asked.set()
        assert self.gate.wait(100)
        return super().request(*arguments)


class IndexedFolder(Folder):
    """A data folder with a fourth stage."""

    def __init__(self, data: Path) -> None:
        self.server = GatedServer()
        super().__init__(data)
        self.journals._groups = frozenset({STORING, DETECTION, INDEXING})

    def begin(self) -> None:
        super().begin()
        self.decoding = DecodingStage(
            self.journals,
            self.documents,
            orphan_after_s=60.0,
            max_inflated_bytes=1 << 20,
            notes_label_changes=True,
        )
        self.stages[0] = self.decoding
        troubles = Troubles()
        store = ElasticStore(self.server, on_trouble=troubles.add)
        scores = ScoreReader(self.data, self.documents)
        self.indexing = IndexingStage(self.journals, self.documents, scores, store, troubles)

    def index(self) -> None:
        """Let the fourth stage work until nothing is left; wait for its thread, not for time."""
        idle = 0
        for _ in range(_MOST_STEPS):
            self.now_ns += 10**9
            if self.indexing._result is not None:
                self.indexing._result.exception(100)
            worked = self.indexing.step(self.now_ns)
            idle = 0 if worked or self.indexing._result is not None else idle + 1
            if idle == 2:
                return
        pytest.fail("the indexing stage does not come to an end")

    def lag(self) -> int:
        end = self.journals.ends("inferences").get(0, 0)
        return end - self.journals.positions(INDEXING, "inferences").get(0, 0)

    def feedback(self, request_id: str, **labels: Any) -> None:
        item = {
            "deployment": "prod/flights",
            "request_id": request_id,
            "row": 0,
            "labels": labels,
            "time": f"2013-01-01T00:00:{len(labels):02d}Z",
        }
        headers = {"content-type": "application/cloudevents-batch+json"}
        self.put(headers, event_batch(FEEDBACK_TYPE, [item]))

    def close(self) -> None:
        self.server.gate.set()
        self.indexing.close()
        super().close()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[IndexedFolder]:
    monkeypatch.setattr(bulk_module, "_SHORTEST_S", 0.0)
    monkeypatch.setattr(bulk_module, "_LONGEST_S", 0.0)
    made = IndexedFolder(tmp_path)
    yield made
    made.close()


def test_every_row_becomes_a_document(folder: IndexedFolder) -> None:
    folder.ask([[1, "m"], [2, "f"]], version="7")
    folder.ask([[3, "m"]])

    folder.work()
    folder.index()

    sources = list(folder.server.sources().values())
    assert sorted(source["features"]["age"] for source in sources) == [1, 2, 3]
    assert sorted(source["outputs"]["late"] for source in sources) == [1.0, 2.0, 3.0]
    assert {source["version"] for source in sources} == {"7", None}
    assert folder.lag() == 0
    assert folder.counter("indexed_documents_total", outcome="stored") == 3


def test_rows_wait_for_the_detectors_whose_scores_go_with_them(folder: IndexedFolder) -> None:
    folder.ask([[1, "m"]])
    folder.stages.remove(folder.detection)
    folder.work()

    folder.index()
    before = dict(folder.server.found)
    folder.stages.append(folder.detection)
    folder.work()
    folder.index()

    assert before == {}
    assert len(folder.server.sources()) == 1


def test_what_the_detectors_found_is_in_the_document(folder: IndexedFolder) -> None:
    reference = ReferenceSettings(first_rows=50)
    known = DeploymentSettings(name="prod/flights", reference=reference)
    put_all_settings(folder.documents, (known,))
    for number in range(80):
        folder.ask([[number % 7, "mf"[number % 2]]])
    folder.work()
    folder.ask([[9_000, "m"]])
    folder.work()
    folder.index()

    sources = sorted(folder.server.sources().values(), key=lambda source: source["time_us"])
    scores = [source["outlier_score"] for source in sources]
    assert sources[-1]["outlier"] is True
    assert sources[-1]["outlier_p_value"] is not None
    assert scores[-1] == max(score for score in scores if score is not None)
    # The reference itself has none.
    assert scores[0] is None


def test_a_server_that_does_not_answer_delays_nobody_else(folder: IndexedFolder) -> None:
    folder.server.gate.clear()
    folder.ask([[1, "m"]])
    folder.work()

    folder.now_ns += 10**9
    assert folder.indexing.step(folder.now_ns)
    assert folder.server.asked.wait(100)
    for _ in range(80):
        folder.ask([[2, "f"]])
        folder.work()
        assert not folder.indexing.step(folder.now_ns)

    positions = {
        group: folder.journals.positions(group, "inferences")[0] for group in (STORING, DETECTION)
    }
    end = folder.journals.ends("inferences")[0]
    assert set(positions.values()) == {end}
    assert folder.lag() == end
    folder.server.gate.set()
    folder.index()
    assert folder.lag() == 0
    assert len(folder.server.sources()) == 81


def test_documents_of_seldons_logger_are_written_beside_ours(folder: IndexedFolder) -> None:
    folder.indexing.close()
    store = ElasticStore(folder.server, seldon=SeldonOptions())
    scores = ScoreReader(folder.data, folder.documents)
    folder.indexing = IndexingStage(folder.journals, folder.documents, scores, store, Troubles())
    folder.decoding._notes_replies = True
    folder.ask([[1, "m"], [2, "f"]])
    reply = {
        "ce-specversion": "1.0",
        "ce-type": "org.kubeflow.serving.inference.outlier",
        "ce-source": "org.kubeflow.serving.od",
        "ce-id": "r000000",
        "ce-namespace": "prod",
        "ce-inferenceservicename": "flights",
    }
    folder.put(reply, b'{"data": {"is_outlier": [0, 1]}}')

    folder.work()
    folder.index()

    found = {
        name: source
        for (index, name), (_, source) in folder.server.found.items()
        if index == "inference-log-inferenceservice-prod-flights-unknown-endpoint"
    }
    assert sorted(found) == ["r000000-item-0", "r000000-item-1"]
    assert found["r000000-item-1"]["request"]["elements"] == {"age": 2, "sex": "f"}
    assert found["r000000-item-1"]["outlier"]["data"] == {"is_outlier": 1}
    assert folder.documents.find(REPLY_CHANGES) == []
    assert folder.lag() == 0


def _erase(folder: IndexedFolder, inference_id: str) -> None:
    value = {"deployment": "prod/flights", "id": inference_id}
    key = f"prod/flights|{inference_id}"
    folder.documents.put(
        [Document(collection=SEARCH_ERASURES, key=key, deployment="prod/flights", value=value)]
    )


def _ids(folder: IndexedFolder) -> list[str]:
    return sorted(source["inference_id"] for source in folder.server.sources().values())


def test_replies_whose_inference_never_came_are_erased_by_their_request(
    folder: IndexedFolder,
) -> None:
    folder.indexing.close()
    store = ElasticStore(folder.server, seldon=SeldonOptions())
    scores = ScoreReader(folder.data, folder.documents)
    folder.indexing = IndexingStage(folder.journals, folder.documents, scores, store, Troubles())
    folder.decoding._notes_replies = True
    # Two that stay, one of them of another deployment with the same request.
    for name, request_id in (("flights", "r1"), ("flights", "r2"), ("other", "r1")):
        reply = {
            "ce-specversion": "1.0",
            "ce-type": "org.kubeflow.serving.inference.outlier",
            "ce-source": "org.kubeflow.serving.od",
            "ce-id": request_id,
            "ce-namespace": "prod",
            "ce-inferenceservicename": name,
        }
        folder.put(reply, b'{"data": {"is_outlier": [1]}}')
    folder.work()
    folder.index()
    assert len(folder.server.found) == 3

    value = {"deployment": "prod/flights", "request_id": "r1"}
    key = "prod/flights|request|r1"
    folder.documents.put([Document(collection=SEARCH_ERASURES, key=key, value=value)])
    folder.index()

    assert sorted(folder.server.found) == [
        ("inference-log-inferenceservice-prod-flights-unknown-endpoint", "r2"),
        ("inference-log-inferenceservice-prod-other-unknown-endpoint", "r1"),
    ]
    assert folder.documents.find(SEARCH_ERASURES) == []


def test_what_is_erased_is_deleted_and_then_done(folder: IndexedFolder) -> None:
    folder.ask([[1, "m"], [2, "f"]])
    folder.ask([[3, "m"]])
    folder.work()
    folder.index()
    gone, *kept = sorted(set(_ids(folder)))

    _erase(folder, gone)
    folder.index()

    assert sorted(set(_ids(folder))) == kept
    assert folder.documents.find(SEARCH_ERASURES) == []


def test_rows_of_what_is_erased_that_still_wait_are_never_written(folder: IndexedFolder) -> None:
    folder.ask([[1, "m"]])
    folder.ask([[2, "f"]])
    folder.work()
    gone, kept = sorted(item.id for item in Inferences(folder.data, folder.documents).find()[0])
    written: list[str] = []

    def refuses(source: Mapping[str, Any]) -> bool:
        written.append(source["inference_id"])
        return False

    folder.server.refuses = refuses
    _erase(folder, gone)
    folder.index()

    assert set(written) == {kept}
    assert _ids(folder) == [kept]
    assert folder.documents.find(SEARCH_ERASURES) == []


def test_an_erasure_waits_for_a_server_that_does_not_answer(folder: IndexedFolder) -> None:
    folder.ask([[1, "m"]])
    folder.work()
    folder.index()
    folder.server.gate.clear()
    folder.server.asked.clear()

    _erase(folder, _ids(folder)[0])
    folder.now_ns += 10**9
    assert folder.indexing.step(folder.now_ns)
    assert folder.server.asked.wait(100)
    assert not folder.indexing.step(folder.now_ns)
    waiting = folder.documents.find(SEARCH_ERASURES)
    folder.server.gate.set()
    folder.index()

    assert len(waiting) == 1
    assert folder.documents.find(SEARCH_ERASURES) == []
    assert folder.server.sources() == {}


def test_work_that_was_not_committed_is_done_again_and_is_there_once(
    folder: IndexedFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.ask([[1, "m"]])
    folder.work()
    commit = folder.journals.commit

    def killed(_: Commit) -> None:
        raise SystemExit

    monkeypatch.setattr(folder.journals, "commit", killed)
    with pytest.raises(SystemExit):
        folder.index()
    monkeypatch.setattr(folder.journals, "commit", commit)
    folder.indexing.close()
    folder.begin()
    folder.index()

    assert len(folder.server.sources()) == 1
    assert folder.counter("indexed_documents_total", outcome="already") == 1
    assert folder.lag() == 0


def test_labels_before_and_after_their_rows_are_joined(folder: IndexedFolder) -> None:
    folder.feedback("r000000", late=True)
    folder.work()
    folder.index()
    folder.ask([[1, "m"]])
    folder.ask([[2, "f"]])
    folder.work()
    folder.index()

    folder.feedback("r000001", late=False, why="snow")
    folder.work()
    folder.index()

    labels = {
        source["request_id"]: source.get("labels") for source in folder.server.sources().values()
    }
    assert labels == {"r000000": {"late": True}, "r000001": {"late": False, "why": "snow"}}
    assert folder.documents.find(LABEL_CHANGES) == []


def test_a_label_that_comes_while_its_row_is_sent_is_joined(folder: IndexedFolder) -> None:
    folder.ask([[1, "m"]])
    folder.work()
    folder.server.gate.clear()
    folder.now_ns += 10**9
    folder.indexing.step(folder.now_ns)
    assert folder.server.asked.wait(100)

    folder.feedback("r000000", late=True)
    folder.work()
    folder.server.gate.set()
    folder.index()

    (source,) = folder.server.sources().values()
    assert source["labels"] == {"late": True}


def test_an_alarm_is_stored_again_only_when_it_changed(
    folder: IndexedFolder, make_alarm: Callable[..., Any]
) -> None:
    folder.ask([[1, "m"]])
    folder.documents.put([alarm_document(make_alarm(state="open"))])
    folder.work()
    folder.index()
    n_requests = len(folder.server.requests)
    folder.index()
    again = len(folder.server.requests) - n_requests

    folder.documents.put([alarm_document(make_alarm(state="ended"))])
    folder.index()

    assert again == 0
    assert folder.server.found["sidelight-alarms", "alarm"][1]["state"] == "ended"
    folder.ask([[2, "f"]], minutes=-5)
    folder.work()
    folder.index()
    marks = [source["alarms"] for source in folder.server.sources().values()]
    assert marks == [["alarm"], ["alarm"]]


def test_alarms_that_retention_has_deleted_go_from_the_server(
    folder: IndexedFolder, make_alarm: Callable[..., Any]
) -> None:
    folder.ask([[1, "m"]])
    folder.documents.put([alarm_document(make_alarm(id=name)) for name in ("old", "young")])
    folder.work()
    folder.index()
    folder.documents.put([Document(collection="alarms", key="old")])
    folder.now_ns += 60 * 10**9
    folder.index()

    alarms = [name for index, name in folder.server.found if index == "sidelight-alarms"]
    assert alarms == ["young"]
    assert [key for key, _ in folder.journals.scan(INDEXING, b"alarm|")] == [b"alarm|young"]
    # Nothing is deleted twice, and what comes back is there again.
    n_requests = len(folder.server.requests)
    folder.now_ns += 60 * 10**9
    folder.index()
    assert len(folder.server.requests) == n_requests
    folder.documents.put([alarm_document(make_alarm(id="old"))])
    folder.index()
    assert ("sidelight-alarms", "old") in folder.server.found


@pytest.fixture
def make_alarm() -> Callable[..., Any]:
    def make(**values: Any) -> Alarm:
        return Alarm(
            **{
                "id": "alarm",
                "deployment": "prod/flights",
                "version": None,
                "kind": "drift",
                "detector": "d",
                "state": "open",
                "since": "2012-12-31T00:00:00Z",
                "raised_at": "2013-01-01T00:00:00Z",
                "raised_at_row": 1,
                "ended_at": None,
                "features": (),
                "log10_evidence": 9.0,
                **values,
            }
        )

    return make


def test_what_had_to_be_sent_again_is_counted_while_the_server_is_down(
    folder: IndexedFolder,
) -> None:
    folder.ask([[1, "m"]])
    folder.work()
    folder.server.faults = [UnreachableError("x"), Answer(429, {})]

    folder.index()

    assert folder.counter("indexing_retries_total", reason="unreachable") == 1
    assert folder.counter("indexing_retries_total", reason="throttled") == 1


def test_records_are_kept_until_they_are_indexed(folder: IndexedFolder) -> None:
    for _ in range(70):
        folder.ask([[1, "m"]])
        folder.work()
    kept = folder.journals.read_inferences("nobody", max_records=1, max_bytes=1)[0].first

    folder.index()
    left = folder.journals.read_inferences("nobody", max_records=1, max_bytes=1)

    assert kept == 0
    assert left == []


def test_a_template_that_is_refused_is_tried_again(
    folder: IndexedFolder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    request = folder.server.request
    monkeypatch.setattr(folder.server, "request", lambda *_: Answer(400, {}))
    folder.ask([[1, "m"]])
    folder.work()
    folder.now_ns += 10**9
    folder.indexing.step(folder.now_ns)
    assert folder.indexing._result is not None
    folder.indexing._result.exception(100)
    assert not folder.indexing.step(folder.now_ns)
    assert "expected the template to be taken" in caplog.text

    monkeypatch.setattr(folder.server, "request", request)
    folder.now_ns += 10 * 10**9
    folder.index()

    assert len(folder.server.sources()) == 1


def test_without_a_search_server_nothing_of_it_is_noted_or_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(data=tmp_path)

    def never(*_: Any) -> None:
        pytest.fail("opened")

    monkeypatch.setattr("sidelight.service._indexing.open_indexing", never)

    assert groups_of(settings) == (STORING, DETECTION)
    assert indexing_stage(settings, None, None) is None  # type: ignore[arg-type]


def test_a_missing_client_or_secret_is_said_at_start(
    folder: IndexedFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "elasticsearch", None)
    settings = ElasticsearchSettings(url="http://127.0.0.1:9")
    with pytest.raises(MissingExtraError, match="sidelight\\[elasticsearch\\]"):
        open_indexing(settings, Settings(data=folder.data), folder.journals, folder.documents)

    secret = ElasticsearchSettings(
        url="http://127.0.0.1:9", username="u", password_from="env:NOT_THERE"
    )
    with pytest.raises(ConfigurationError, match=r"store\.elasticsearch\.password_from"):
        open_indexing(secret, Settings(data=folder.data), folder.journals, folder.documents)


@pytest.mark.parametrize(
    ("wrong", "key"),
    [
        ("{url: 'ftp://x'}", "url"),
        ("{url: 'http://u:hidden@x'}", "url"),
        ("{url: 'http://x', username: u}", "elasticsearch"),
        ("{url: 'http://x', api_key_from: hidden, flavour: opensearch}", "elasticsearch"),
        ("{url: 'http://x', index_prefix: A}", "index_prefix"),
        ("{url: 'http://x', password_from: {hidden: 1}}", "password_from"),
    ],
)
def test_settings_that_cannot_be_used_are_refused_by_their_key(
    tmp_path: Path, wrong: str, key: str
) -> None:
    config = tmp_path / "sidelight.yaml"
    config.write_text(f"store: {{elasticsearch: {wrong}}}")

    with pytest.raises(ConfigurationError) as caught:
        load_settings(config, {})

    assert f"store.elasticsearch{'' if key == 'elasticsearch' else '.' + key}" in str(caught.value)
    assert "hidden" not in str(caught.value)


def test_rows_past_the_retention_of_their_deployment_go_but_those_on_hold(
    folder: IndexedFolder,
) -> None:
    server = SearchingServer()
    expiry = ElasticExpiry(ElasticSearch(server, "sidelight"))
    settings = Settings.model_validate({"data": folder.data, "retention": "1d"})
    folder.indexing.close()
    folder.indexing = IndexingStage(
        folder.journals,
        folder.documents,
        ScoreReader(folder.data, folder.documents),
        ElasticStore(server),
        Troubles(),
        SearchRetention(folder.documents, settings, expiry),
    )
    # The clock of the folder stands in 2001, the minutes count from 2013.
    year = 365 * 24 * 60
    until_us = 788_918_400_000_000  # 1995-01-01
    Holds(folder.data).add("prod/flights", to_us=until_us, reason="case 17", by="court")
    for age, years in enumerate((0, -13, -20)):
        folder.ask([[age, "m"]], minutes=years * year)

    folder.work()
    folder.index()

    assert sorted(source["features"]["age"] for source in server.sources().values()) == [0, 2]
    assert folder.counter("expired_rows_total", table="search") == 1
