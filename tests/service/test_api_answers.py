"""Every route: its documented shape, its pages, and what it says to a wrong question."""

import json
import math
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from prometheus_client.parser import text_string_to_metric_families

from sidelight.service import _api_deployments, _api_operation
from sidelight.service._deployments import put_settings
from sidelight.service._run_folder import RunFolder
from sidelight.service._settings_deployment import read_deployment

_INFERENCE = {
    *("id", "deployment", "version", "component", "request_id", "time", "latency_ms", "status"),
    *("protocol", "rows", "orphan", "synthetic", "tags", "raw"),
}
_VERDICT = {
    *("deployment", "version", "detector", "feature", "time", "rows", "state", "distance"),
    *("p_value", "log10_evidence", "threshold", "reason"),
}
_ALARM = {
    *("id", "deployment", "version", "kind", "detector", "state", "since", "raised_at"),
    *("raised_at_row", "ended_at", "features", "log10_evidence"),
}
_DEPLOYMENT = {
    *("name", "versions", "schema", "reference", "rows_seen", "first_seen", "last_seen", "model"),
}


def _drifting(folder: Any, *deployments: str) -> None:
    """Send traffic that changes, so that there are verdicts and alarms."""
    settings = {"reference": {"first_rows": 250}, "detection": {"window_rows": 250}}
    for name in deployments:
        put_settings(folder.documents, read_deployment(name, settings))
        rng = np.random.default_rng(0)
        for number in range(24):
            values = rng.normal(size=50) + (4.0 if number > 11 else 0.0)
            folder.ask([[float(value), "f"] for value in values], deployment=name, version="v1")
    folder.work()


def test_inference_has_the_documented_members(folder: Any, api: Any) -> None:
    folder.ask([[30.5, "f"], [41.0, "m"]], version="v7", request_id="r-1", minutes=3)
    folder.work()

    (found,) = api.items("/v1/inferences")

    assert found.keys() == _INFERENCE
    assert found["deployment"] == "prod/flights"
    assert (found["version"], found["request_id"], found["status"]) == ("v7", "r-1", 200)
    assert (found["latency_ms"], found["protocol"], found["orphan"]) == (12.5, "v2-json", None)
    assert found["time"].startswith("2013-01-01T00:03:00")
    assert found["synthetic"] is False
    assert found["raw"].keys() == {"request_ref", "response_ref"}
    assert [row["features"] for row in found["rows"]] == [
        {"age": 30.5, "sex": "f"},
        {"age": 41.0, "sex": "m"},
    ]
    assert [row["outputs"] for row in found["rows"]] == [{"late": 30.5}, {"late": 41.0}]
    assert all(
        row.keys() >= {"features", "outputs", "labels", "outlier_score"} for row in found["rows"]
    )
    assert api.get(f"/v1/inferences/{found['id']}").json() == found
    assert quote(found["id"], safe="") == found["id"]


def test_deployments_come_in_pages(folder: Any, api: Any) -> None:
    names = [f"prod/model-{number}" for number in range(7)]
    for name in names:
        folder.ask([[30.5, "f"]], deployment=name)
    folder.work()

    assert [item["name"] for item in api.items("/v1/deployments")] == names
    assert [item["name"] for item in api.pages("/v1/deployments", limit=3)] == names
    assert [item["name"] for item in api.pages("/v1/deployments", limit=7)] == names


def test_what_nobody_foresaw_is_a_problem_document(
    api: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: object) -> list[str]:
        raise ZeroDivisionError("secret of a row")

    monkeypatch.setattr(_api_deployments, "deployment_names", broken)

    found = api.problem("GET", "/v1/deployments")

    assert (found["status"], found["title"]) == (500, "internal error")
    assert "secret" not in str(found)


def test_deployment_has_the_documented_members(folder: Any, api: Any) -> None:
    folder.ask([[30.5, "f"]], version="v7", minutes=3)
    folder.work()

    (found,) = api.items("/v1/deployments")

    assert found.keys() >= _DEPLOYMENT
    assert (found["name"], found["versions"], found["rows_seen"]) == ("prod/flights", ["v7"], 1)
    assert found["reference"] == {"rows": 1, "digest": None, "complete": False}
    assert found["model"] is None
    columns = {column["name"]: column for column in found["schema"]["columns"]}
    assert all(
        column.keys() == {"name", "kind", "role", "categories"} for column in columns.values()
    )
    assert {name: (item["kind"], item["role"]) for name, item in columns.items()} == {
        "age": ("numeric", "feature"),
        "sex": ("categorical", "feature"),
        "late": ("numeric", "output"),
    }
    assert api.get("/v1/deployments/prod/flights").json() == found


def test_verdicts_and_alarms_have_the_documented_members(folder: Any, api: Any) -> None:
    _drifting(folder, "prod/flights")

    verdicts = api.pages("/v1/verdicts", limit=1000)
    alarms = api.items("/v1/alarms")

    assert verdicts
    assert alarms
    assert all(verdict.keys() == _VERDICT for verdict in verdicts)
    assert {verdict["state"] for verdict in verdicts} <= {"ok", "drift", "insufficient"}
    assert all(alarm.keys() == _ALARM for alarm in alarms)
    (alarm,) = [alarm for alarm in alarms if alarm["kind"] == "drift"]
    assert (alarm["state"], alarm["version"], alarm["ended_at"]) == ("open", "v1", None)
    shares = [feature["share"] for feature in alarm["features"]]
    assert shares == sorted(shares, reverse=True)
    assert all(item.keys() == {"name", "distance", "share"} for item in alarm["features"])


@pytest.mark.parametrize("order", ["time", "-time"])
@pytest.mark.parametrize("limit", [1, 3, 7])
def test_each_inference_is_on_one_page(folder: Any, api: Any, order: str, limit: int) -> None:
    # Several of one moment: a cursor must not rest on the time alone.
    asked = [folder.ask([[1, "f"]], minutes=number // 4) for number in range(15)]
    folder.work()

    found = api.pages("/v1/inferences", order=order, limit=limit)

    times = [item["time"] for item in found]
    assert sorted(item["request_id"] for item in found) == sorted(asked)
    assert times == sorted(times, reverse=order == "-time")


@pytest.mark.parametrize("order", ["time", "-time"])
@pytest.mark.parametrize("limit", [1, 4, 5])
def test_each_verdict_and_alarm_is_on_one_page(
    folder: Any, api: Any, order: str, limit: int
) -> None:
    _drifting(folder, "prod/flights", "prod/others")
    for path in ("/v1/verdicts", "/v1/alarms"):
        whole = api.items(path, order=order, limit=1000)

        paged = api.pages(path, order=order, limit=limit)

        assert len(whole) > 1
        assert paged == whole
        time = "time" if path == "/v1/verdicts" else "raised_at"
        times = [item[time] for item in whole]
        assert times == sorted(times, reverse=order == "-time")


def test_verdicts_are_filtered_by_each_parameter(folder: Any, api: Any) -> None:
    _drifting(folder, "prod/flights", "prod/others")
    everything = api.items("/v1/verdicts", limit=1000)
    for name, value in (
        ("deployment", "prod/others"),
        ("detector", "kolmogorov_smirnov"),
        ("feature", "age"),
        ("state", "drift"),
    ):
        found = api.pages("/v1/verdicts", **{name: value}, limit=3)

        assert found == [item for item in everything if item[name] == value]
        assert found
    assert api.items("/v1/verdicts", feature="no such feature") == []


def test_acknowledged_alarm_is_shown_so_and_an_ended_one_stays_ended(folder: Any, api: Any) -> None:
    _drifting(folder, "prod/flights")
    alarm = next(item for item in api.items("/v1/alarms") if item["kind"] == "drift")

    answer = api.post(f"/v1/alarms/{alarm['id']}/acknowledge")

    assert answer.json() == alarm | {"state": "acknowledged"}
    assert api.post(f"/v1/alarms/{alarm['id']}/acknowledge").json()["state"] == "acknowledged"
    assert alarm["id"] in {item["id"] for item in api.items("/v1/alarms", state="acknowledged")}
    assert alarm["id"] not in {item["id"] for item in api.items("/v1/alarms", state="open")}
    rng = np.random.default_rng(5)
    for _ in range(40):
        folder.ask([[float(value), "f"] for value in rng.normal(size=50)], version="v1")
    folder.work()
    (ended,) = [item for item in api.items("/v1/alarms") if item["id"] == alarm["id"]]
    assert (ended["state"], bool(ended["ended_at"])) == ("ended", True)
    assert api.post(f"/v1/alarms/{alarm['id']}/acknowledge").json() == ended


def test_export_streams_everything_that_matches(folder: Any, api: Any) -> None:
    for number in range(5):
        folder.ask([[number, "f"]], minutes=number)
    folder.work()

    lines = api.get("/v1/inferences/export", where="features.age >= 2").text.splitlines()
    table = api.get("/v1/inferences/export", format="csv")

    assert [json.loads(line)["rows"][0]["features"]["age"] for line in lines] == [2, 3, 4]
    assert table.headers["content-type"].startswith("text/csv")
    assert len(table.text.splitlines()) == 6


def test_from_is_included_and_to_is_not(folder: Any, api: Any) -> None:
    for number in range(4):
        folder.ask([[number, "f"]], minutes=number)
    folder.work()
    bounds = {"from": "2013-01-01T00:01:00Z", "to": "2013-01-01T04:03:00+04:00"}

    found = api.items("/v1/inferences", **bounds, order="time")

    assert [item["rows"][0]["features"]["age"] for item in found] == [1, 2]


@pytest.mark.parametrize(
    ("path", "parameters", "said"),
    [
        pytest.param("/v1/inferences", {"dployment": "a/b"}, "dployment", id="unknown-parameter"),
        pytest.param("/v1/verdicts", {"where": "status = 1"}, "where", id="not-of-this-route"),
        pytest.param("/v1/deployments", {"where": "a = 1"}, "where", id="where-of-deployments"),
        pytest.param("/v1/deployments", {"limit": "0"}, "limit", id="limit-of-deployments"),
        pytest.param("/v1/deployments", {"cursor": "b"}, "cursor", id="cursor-of-deployments"),
        pytest.param("/v1/alarms", {"limit": ["2", "3"]}, "limit", id="given-twice"),
        pytest.param("/healthz", {"limit": "3"}, "limit", id="route-without-parameters"),
        pytest.param("/v1/inferences/export", {"limit": "0"}, "limit", id="export-limit"),
        pytest.param("/v1/inferences/export", {"cursor": "a"}, "cursor", id="export-cursor"),
        pytest.param("/v1/inferences", {"where": "features.age >"}, "where", id="syntax"),
        pytest.param("/v1/inferences", {"where": "features.height > 1"}, "height", id="column"),
        pytest.param("/v1/inferences", {"where": "age > 1; drop table x"}, "where", id="no-sql"),
        pytest.param("/v1/inferences", {"where": "features.age > 'x'"}, "age", id="type"),
        pytest.param("/v1/inferences", {"from": "yesterday"}, "from", id="from"),
        pytest.param("/v1/inferences", {"to": "2013-13-01"}, "to", id="to"),
        pytest.param("/v1/inferences", {"cursor": "!!"}, "cursor", id="cursor"),
        pytest.param("/v1/verdicts", {"cursor": "WzFd"}, "cursor", id="cursor-of-verdicts"),
        pytest.param("/v1/alarms", {"cursor": "é"}, "cursor", id="cursor-of-alarms"),
        pytest.param("/v1/inferences", {"limit": "0"}, "limit", id="limit-0"),
        pytest.param("/v1/inferences", {"limit": "1001"}, "limit", id="limit-1001"),
        pytest.param("/v1/alarms", {"limit": "x"}, "limit", id="limit-no-number"),
        pytest.param("/v1/verdicts", {"limit": "1001"}, "limit", id="limit-of-verdicts"),
        pytest.param("/v1/inferences", {"order": "age"}, "order", id="order"),
        pytest.param("/v1/alarms", {"state": "closed"}, "state", id="state"),
        pytest.param("/v1/inferences/export", {"format": "xml"}, "format", id="format"),
        pytest.param("/v1/inferences/export", {"where": "nonsense"}, "nonsense", id="export-where"),
    ],
)
def test_wrong_question_is_answered_with_what_is_wrong(
    folder: Any, api: Any, path: str, parameters: dict[str, str], said: str
) -> None:
    folder.ask([[1, "f"]])
    folder.work()

    problem = api.problem("GET", path, params=parameters)

    assert problem["status"] == 400
    assert said in problem["detail"]
    assert problem["expected"]
    assert problem["got"]


@pytest.mark.parametrize("name", ["flights", "", "/flights", "prod/"])
@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/v1/inferences", None),
        ("GET", "/v1/inferences/export", None),
        ("GET", "/v1/verdicts", None),
        ("GET", "/v1/alarms", None),
        ("GET", "/v1/erasures", None),
        ("POST", "/v1/erasures", {"where": "features.age = 1", "reason": "x"}),
        ("POST", "/v1/explanations", {"instances": [[1, "f"]]}),
        ("POST", "/v1/feedback", {"request_id": "r1", "labels": {"y": 1}}),
    ],
)
def test_name_without_a_namespace_is_no_empty_answer(
    api: Any, method: str, path: str, body: dict[str, Any] | None, name: str
) -> None:
    given: dict[str, Any] = {"params": {"deployment": name}}
    if body is not None:
        item = {**body, "deployment": name}
        given = {"json": [item] if path.endswith("feedback") else item}
    problem = api.problem(method, path, **given)

    assert (problem["status"], problem["expected"]) == (400, "namespace/name")
    assert problem["got"] == repr(name)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/inferences/ffffffffffffffffffffffffffffffff"),
        ("GET", "/v1/inferences/no%20such%2Fthing"),
        ("GET", "/v1/deployments/prod/nothing"),
        ("DELETE", "/v1/deployments/prod/nothing"),
        ("POST", "/v1/alarms/nothing/acknowledge"),
        ("GET", "/v1/explanations/nothing"),
        ("GET", "/v1/nothing"),
        ("GET", "/v2/models/m"),
    ],
)
def test_what_is_not_there_is_404(api: Any, method: str, path: str) -> None:
    assert api.problem(method, path)["status"] == 404


def test_wrong_method_is_405(api: Any) -> None:
    assert api.problem("DELETE", "/v1/alarms")["status"] == 405


def test_where_says_at_which_character_it_is_wrong(folder: Any, api: Any) -> None:
    folder.ask([[1, "f"]])
    folder.work()

    problem = api.problem("GET", "/v1/inferences", params={"where": "status = 200 and and"})

    assert any(character.isdigit() for character in problem["detail"])


def test_labels_join_their_row_whatever_comes_first(folder: Any, api: Any) -> None:
    early = {"deployment": "prod/flights", "request_id": "r-1", "row": 1, "labels": {"late": True}}
    assert api.post("/v1/feedback", early).json() == {"accepted": 1}
    folder.work()
    folder.ask([[1, "f"], [2, "m"]], request_id="r-1")
    folder.work()
    later = [
        early | {"labels": {"late": False, "minutes": 3}, "time": "2999-01-01T00:00:00Z"},
        early | {"labels": {"late": True}, "time": "2001-01-01T00:00:00Z"},
    ]
    assert api.post("/v1/feedback", later).json() == {"accepted": 2}
    folder.work()

    (found,) = api.items("/v1/inferences")

    assert [row["labels"] for row in found["rows"]] == [{}, {"late": False, "minutes": 3}]
    assert len(api.items("/v1/inferences", where="labels.minutes = 3")) == 1
    assert folder.counter("labels_total", deployment="flights") == 4
    assert folder.counter("events_received_total", deployment="flights", kind="feedback") == 3


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param({"request_id": ""}, id="empty-id"),
        pytest.param({"labels": {}}, id="no-labels"),
        pytest.param({"labels": {"a": "\ud800"}}, id="half-a-surrogate"),
        pytest.param({"row": -1}, id="row"),
        pytest.param({"row": 1 << 31}, id="row-that-no-inference-has"),
        pytest.param({"deployment": "flights"}, id="no-namespace"),
        pytest.param({"time": "yesterday"}, id="time"),
        pytest.param({"lables": {}}, id="unknown-key"),
        pytest.param({"\ud800": 1}, id="unknown-key-that-is-no-text"),
    ],
)
def test_wrong_feedback_is_refused_whole(folder: Any, api: Any, wrong: dict[str, Any]) -> None:
    good = {"deployment": "prod/flights", "request_id": "r-1", "labels": {"late": True}}
    body = json.dumps([good, good | wrong]).encode()
    before = folder.writer.end

    problem = api.problem(
        "POST", "/v1/feedback", content=body, headers={"content-type": "application/json"}
    )

    assert problem["status"] == 400
    assert problem["detail"].startswith("body.1")
    assert problem.keys() >= {"expected", "got", "hint"}
    assert "Value error" not in problem["expected"]
    assert folder.writer.end == before


def test_wrong_feedback_of_one_object_is_named_once(api: Any) -> None:
    problem = api.problem("POST", "/v1/feedback", json={"deployment": "a/b", "labels": {"y": 1}})

    assert problem["detail"] == "body.0.request_id: Field required"


@pytest.mark.parametrize("value", [2**70, -(2**70), 1e300, None, [1], {"a": 1}, "é\u0000", "<b>"])
def test_any_json_value_may_be_a_label(folder: Any, api: Any, value: Any) -> None:
    folder.ask([[1, "f"]], request_id="r")
    label = {"deployment": "prod/flights", "request_id": "r", "labels": {"y": value}}

    assert api.post("/v1/feedback", label).status_code == 200
    folder.work()

    assert api.items("/v1/inferences")[0]["rows"][0]["labels"] == {"y": value}
    assert api.get("/").status_code == 200


def test_body_that_is_no_json_is_refused(api: Any) -> None:
    for path, method in (
        ("/v1/feedback", "POST"),
        ("/v1/explanations", "POST"),
        ("/v1/deployments/a/b", "PUT"),
    ):
        for body in (b"{", b"\xff", b"[1]", b"1", b"", b"[" * 100_000, b'"' + b"\\ud800" + b'"'):
            problem = api.problem(
                method, path, content=body, headers={"content-type": "application/json"}
            )
            assert problem["status"] == 400, (path, body[:10])


def test_malformed_json_is_told_as_such(api: Any) -> None:
    json = {"content-type": "application/json"}
    problem = api.problem("POST", "/v1/feedback", content=b"[{]", headers=json)

    assert (problem["expected"], problem["got"]) == ("JSON", "other bytes")
    assert problem["detail"] == "body.2: expected JSON, got other bytes"


def test_what_was_expected_is_told_without_a_sentence_around_it(api: Any) -> None:
    asked = {"deployment": "a/b", "instances": [[1]], "method": "guess"}
    problem = api.problem("POST", "/v1/explanations", json=asked)

    assert (problem["expected"], problem["got"]) == ("'auto' or 'shapley'", "'guess'")


def test_metrics_count_what_was_sent(folder: Any, api: Any) -> None:
    for number in range(6):
        folder.ask([[number, "f"], [1.5, "m"]], version="v1")
    folder.ask([[1.5, "m"]], request_id="explain-1-0")
    folder.work()

    text = api.get("/metrics")
    samples = {
        (sample.name, sample.labels.get("deployment"), sample.labels.get("version")): sample.value
        for family in text_string_to_metric_families(text.text)
        for sample in family.samples
        if not sample.name.endswith("_bucket")
    }

    assert text.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert samples["sidelight_inferences_total", "flights", "v1"] == 6
    assert samples["sidelight_inference_rows_total", "flights", "v1"] == 12
    assert samples["sidelight_detector_rows_total", "flights", None] == 12
    assert samples["sidelight_reference_rows", "flights", None] == 12
    assert samples["sidelight_model_latency_seconds_count", "flights", None] == 6
    assert samples["sidelight_drift_alarm", "flights", None] == 0
    assert samples["sidelight_requests_total", None, None] in {1, 2}


def test_what_is_counted_is_found_and_the_other_way_round(folder: Any, api: Any) -> None:
    for number in range(9):
        folder.ask([[number, "f"]])
        for stage in folder.stages:
            folder.now_ns += 10**9
            stage.step(folder.now_ns)
            assert len(api.items("/v1/inferences")) == folder.counter("inferences_total")


def test_readiness_names_the_part_that_is_missing(
    folder: Any, api: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A sign counts however long ago it was given.
    monkeypatch.setattr(_api_operation, "_STALE_S", math.inf)
    answer = api.get("/readyz")
    assert (answer.status_code, answer.json()["consumer"]) == (503, False)
    run = RunFolder(folder.data)
    run.create()
    run.mark("consumer")
    answer = api.get("/readyz")
    # Judgements may come later: nobody has to send elsewhere.
    assert (answer.status_code, answer.json()["detection"]) == (200, False)
    run.mark("detection")
    assert api.get("/readyz").json()["detection"] is True
    monkeypatch.setattr(_api_operation, "_STALE_S", -1.0)
    assert api.get("/readyz").json()["consumer"] is False
    folder.door.is_there = False
    assert api.get("/readyz").json()["door"] is False
    assert api.get("/healthz").json() == {"status": "ok"}


def test_console_shows_names_as_text_whatever_they_are(folder: Any, api: Any) -> None:
    name = "<script>alert(1)</script>"
    settings = {"reference": {"first_rows": 250}, "detection": {"window_rows": 250}}
    empty = api.get("/")
    assert empty.status_code == 200
    api.put(f"/v1/deployments/prod/{quote(name, safe='')}", settings)
    rng = np.random.default_rng(0)
    for number in range(24):
        values = rng.normal(size=50) + (4.0 if number > 11 else 0.0)
        folder.ask(
            [[float(value), "<img src=x onerror=1>"] for value in values],
            names=[name, '"><b>'],
            deployment="prod/<script>",
            version="<i>v1</i>",
        )
    folder.work()

    answer = api.get("/")

    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")
    for hostile in ("<script", "<img", "<b>", "<i>"):
        assert hostile not in answer.text
    assert "&lt;script&gt;" in answer.text


def test_openapi_names_every_documented_route(api: Any) -> None:
    description = api.get("/openapi.json").json()

    assert description["openapi"].startswith("3.")
    assert description["paths"].keys() >= {
        "/v1/deployments",
        "/v1/deployments/{namespace}/{name}",
        "/v1/inferences",
        "/v1/inferences/{inference_id}",
        "/v1/inferences/export",
        "/v1/feedback",
        "/v1/verdicts",
        "/v1/alarms",
        "/v1/alarms/{alarm_id}/acknowledge",
        "/v1/explanations",
        "/v1/explanations/{explanation_id}",
        "/metrics",
        "/healthz",
        "/readyz",
    }
    references = {
        reference.rpartition("/")[2]
        for reference in _values_of(description, "$ref")
        if reference.startswith("#/components/schemas/")
    }
    assert references <= description["components"]["schemas"].keys()


def _values_of(tree: Any, key: str) -> list[str]:
    if isinstance(tree, dict):
        here = [tree[key]] if key in tree else []
        return here + [item for value in tree.values() for item in _values_of(value, key)]
    if isinstance(tree, list):
        return [item for value in tree for item in _values_of(value, key)]
    return []


@pytest.mark.parametrize("name", ["a b", "é", "a/b/c", "?", "a'b\"c", "..x", "..", "a;b", "<b>"])
def test_deployment_of_any_name_is_reached_as_sent_and_as_shown(
    folder: Any, api: Any, name: str
) -> None:
    for side, data in (("request", {"instances": [[1]]}), ("response", {"predictions": [1]})):
        event = {
            "specversion": "1.0",
            "type": f"org.kubeflow.serving.inference.{side}",
            "source": "/x",
            "id": "r",
            "namespace": "prod",
            "inferenceservicename": name,
            "data": data,
        }
        folder.put({"content-type": "application/cloudevents+json"}, json.dumps(event).encode())
    folder.work()

    (shown,) = [item["name"] for item in api.items("/v1/deployments")]
    path = f"/v1/deployments/prod/{quote(name, safe='').replace('.', '%2E')}"

    # As shown, pasted into an address; quoted once more, as a client of HTTP does; and as sent.
    for address in (f"/v1/deployments/{shown}", f"/v1/deployments/{quote(shown)}", path):
        assert api.get(address).json()["rows_seen"] == 1, address
    for given in (shown, f"prod/{name}"):
        assert len(api.items("/v1/inferences", deployment=given)) == 1, given
    assert api.put(path, {"reference": {"first_rows": 100}}).json()["name"] == shown
    label = {"deployment": f"prod/{name}", "request_id": "r", "labels": {"y": 1}}
    assert api.post("/v1/feedback", label).status_code == 200
    folder.work()
    assert api.items("/v1/inferences")[0]["rows"][0]["labels"] == {"y": 1}
    assert api.request("DELETE", path).status_code == 204
    assert api.problem("GET", path)["status"] == 404


def test_reference_file_is_checked_when_it_is_put(api: Any, tmp_path: Path) -> None:
    path = tmp_path / "reference.parquet"
    missing = api.problem("PUT", "/v1/deployments/prod/a", json={"reference": {"file": str(path)}})
    path.write_bytes(b"age,sex\n1,f\n")
    other = api.problem("PUT", "/v1/deployments/prod/a", json={"reference": {"file": str(path)}})
    pq.write_table(pa.table({"age": pa.array([], pa.float64())}), path)
    empty = api.problem("PUT", "/v1/deployments/prod/a", json={"reference": {"file": str(path)}})
    pq.write_table(pa.table({"age": [1.0] * 50}), path)
    good = api.put("/v1/deployments/prod/a", {"reference": {"file": str(path)}})

    assert [found["status"] for found in (missing, other, empty)] == [400] * 3
    assert all("reference.file" in found["detail"] for found in (missing, other, empty))
    assert missing["expected"] == "a Parquet file"
    assert missing["got"] == f"no file at {path}"
    assert "first_rows" in missing["hint"]
    assert good.status_code == 200
