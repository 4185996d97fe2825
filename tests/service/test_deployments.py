"""Deployments as people configure them: through the file or the API, the same in the end."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidelight.detectors import DetectorError
from sidelight.service._deployments import get_settings, put_all_settings, put_settings
from sidelight.service._settings import load_settings
from sidelight.service._settings_deployment import DeploymentSettings, read_deployment
from sidelight.service._watched import detection_settings
from sidelight.service.errors import ConfigurationError

_SCHEMA = {
    "columns": [
        {"name": "height", "kind": "numeric", "role": "feature", "categories": None},
        {"name": "eyes", "kind": "categorical", "role": "feature", "categories": ["b", "g"]},
    ]
}
_MODEL = {
    "url": "http://127.0.0.1:1/",
    "name": "m",
    "protocol": "v1",
    "versions": {"1": "http://x"},
}


@pytest.mark.parametrize(
    ("value", "path"),
    [
        pytest.param({"refrence": {}}, "refrence", id="unknown"),
        pytest.param({"reference": {"first_rows": 0}}, "reference.first_rows", id="too-few"),
        pytest.param({"detection": {"window_rows": 100}}, "detection.window_rows", id="window"),
        pytest.param({"model": {"url": "ftp://x", "name": "m"}}, "model.url", id="scheme"),
        pytest.param({"model": {"url": "http://x"}}, "model.name", id="missing"),
        pytest.param({"model": _MODEL | {"protocol": "v9"}}, "model.protocol", id="protocol"),
        pytest.param({"retention": 365}, "retention", id="no-unit"),
        pytest.param({"schema": {"columns": 1}}, "schema", id="schema"),
        pytest.param({"schema": {"columns": [{"kind": "text"}]}}, "schema", id="column"),
        pytest.param({"schema": 1}, "schema", id="schema-no-object"),
    ],
)
def test_wrong_key_is_named_with_its_path_and_nothing_is_kept(
    api: Any, value: dict[str, Any], path: str
) -> None:
    problem = api.problem("PUT", "/v1/deployments/prod/flights", json=value)

    assert problem["status"] == 400
    assert problem["detail"].startswith(path)
    assert problem.keys() >= {"hint"}
    assert (", got " in problem["detail"]) is ("got" in problem)
    assert api.problem("GET", "/v1/deployments/prod/flights")["status"] == 404


def test_what_was_put_is_shown_and_replaces_what_was_there(api: Any) -> None:
    path = "/v1/deployments/prod/flights"
    full = {"model": _MODEL, "schema": _SCHEMA, "retention": "1.5d", "name": "ignored/here"}

    shown = api.put(path, full).json()

    assert shown["name"] == "prod/flights"
    assert shown["model"] == _MODEL | {"url": "http://127.0.0.1:1"}
    assert shown["schema"] == _SCHEMA
    assert shown["retention"] == "129600s"
    assert api.get(path).json() == shown
    assert api.put(path, {}).json()["model"] is None
    assert api.get(path).json()["schema"] == {"columns": []}


def test_schema_is_shown_with_all_its_members(api: Any) -> None:
    shown = api.put("/v1/deployments/a/b", {"schema": {"columns": [{"name": "x"}]}}).json()

    (column,) = shown["schema"]["columns"]
    assert column.keys() == {"name", "kind", "role", "categories"}


def test_registered_schema_wins_over_what_traffic_shows(folder: Any, api: Any) -> None:
    api.put("/v1/deployments/prod/flights", {"schema": _SCHEMA})
    folder.half("request", {"instances": [[1.5, "b"]]}, request_id="r")
    folder.half("response", {"predictions": [1]}, request_id="r")
    folder.work()

    (found,) = api.items("/v1/inferences")

    assert found["rows"][0]["features"] == {"height": 1.5, "eyes": "b"}
    assert api.get("/v1/deployments/prod/flights").json()["schema"] == _SCHEMA


def test_deleted_deployment_forgets_its_reference_and_keeps_its_inferences(
    folder: Any, api: Any
) -> None:
    path = "/v1/deployments/prod/flights"
    api.put(path, {"reference": {"first_rows": 50}})
    for number in range(60):
        folder.ask([[number, "f"]])
    folder.work()
    assert api.get(path).json()["reference"]["complete"] is True

    assert api.request("DELETE", path).status_code == 204

    assert api.problem("GET", path)["status"] == 404
    assert api.items("/v1/deployments") == []
    assert len(api.items("/v1/inferences")) == 60
    # What comes later begins a deployment anew, with a reference of its own.
    folder.decoding.reset()
    folder.begin()
    folder.ask([[1, "f"]])
    folder.work()
    again = api.get(path).json()
    assert (again["rows_seen"], again["reference"]["rows"]) == (1, 1)
    assert again["reference"]["complete"] is False


def test_file_and_api_end_in_the_same_place(folder: Any, api: Any, tmp_path: Any) -> None:
    config = tmp_path / "sidelight.yaml"
    config.write_text(
        "deployments:\n- {name: prod/file, retention: 2h, detection: {window_rows: 500}}\n"
    )
    put_all_settings(folder.documents, load_settings(config, {}).deployments)

    api.put("/v1/deployments/prod/api", {"retention": "2h", "detection": {"window_rows": 500}})

    first, second = (get_settings(folder.documents, name) for name in ("prod/file", "prod/api"))
    assert first.model_dump(exclude={"name"}) == second.model_dump(exclude={"name"})
    assert (first.retention, first.detection.window_rows) == (7200.0, 500)


_SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "reference": st.fixed_dictionaries({"first_rows": st.integers(-5, 10**7)}),
        "retention": st.integers(1, 1000).map(lambda n: f"{n}d"),
        "model": st.just(_MODEL),
        "schema": st.just(_SCHEMA),
        "detection": st.fixed_dictionaries(
            {},
            optional={
                "enabled": st.booleans(),
                "false_alarm_probability": st.floats(-1, 2),
                "window_rows": st.integers(-1, 20).map(lambda n: n * 125),
                "drift_threshold": st.floats(-1, 200),
                "outlier_p_value": st.floats(-1, 2),
            },
        ),
    },
)


class _Memory:
    """Documents in a dict."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, str], Any] = {}

    def get(self, collection: str, key: str) -> Any:
        return self.values.get((collection, key))

    def put(self, documents: Any) -> None:
        for document in documents:
            self.values[document.collection, document.key] = document.value


@given(_SETTINGS)
def test_what_is_accepted_is_kept_whole_and_detectors_take_it(value: dict[str, Any]) -> None:
    try:
        settings = read_deployment("a/b", value)
    except ConfigurationError as error:
        named = error.detail.startswith(tuple(value))
        assert named
        return
    memory: Any = _Memory()

    put_settings(memory, settings)

    assert get_settings(memory, "a/b") == settings
    try:
        detection_settings(settings)
    except DetectorError as error:
        pytest.fail(f"accepted by the service and refused by the detectors: {error}")


def test_nobody_configured_means_defaults(folder: Any) -> None:
    assert get_settings(folder.documents, "a/b") == DeploymentSettings(name="a/b")
