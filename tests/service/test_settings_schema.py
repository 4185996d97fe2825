"""A deployment's schema from an MLflow model: file, folder, content, and what is written beside."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from sidelight.service._deployments import get_settings, put_settings
from sidelight.service._settings import load_settings
from sidelight.service._settings_deployment import read_deployment
from sidelight.service.errors import ConfigurationError

_MODELS = Path(__file__).parents[1] / "adapters" / "mlmodel"


def names(settings: Any) -> list[str]:
    return [column.name for column in settings.schema.columns]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Return the folder of a model."""
    folder = tmp_path / "model"
    folder.mkdir()
    shutil.copy(_MODELS / "columns.yaml", folder / "MLmodel")
    return folder


@pytest.mark.parametrize("place", ["", "MLmodel"])
def test_the_file_of_a_model_is_the_schema(tmp_path: Path, model: Path, place: str) -> None:
    config = tmp_path / "sidelight.yaml"
    config.write_text(
        f"deployments:\n  - name: prod/flights\n    schema: {{mlflow: '{model / place}'}}\n"
    )

    (deployment,) = load_settings(config, {}).deployments

    assert names(deployment)[:3] == ["carrier", "distance", "temp"]
    assert names(deployment)[-2:] == ["late", "why"]


def test_what_the_model_said_stays_when_its_file_goes(folder: Any, model: Path) -> None:
    put_settings(
        folder.documents, read_deployment("prod/flights", {"schema": {"mlflow": str(model)}})
    )
    shutil.rmtree(model)

    kept = get_settings(folder.documents, "prod/flights")

    assert "gusts" in names(kept)
    assert "mlflow" not in kept.schema_  # type: ignore[operator]


def test_the_api_takes_the_content(api: Any) -> None:
    signature = {"inputs": [{"name": "age", "type": "long"}, {"name": "sex", "type": "string"}]}
    for content in (signature, {"signature": {"inputs": json.dumps(signature["inputs"])}}):
        answer = api.put("/v1/deployments/prod/flights", {"schema": {"mlflow": content}})
        assert answer.status_code == 200
        columns = answer.json()["schema"]["columns"]
        assert [(item["name"], item["kind"]) for item in columns] == [
            ("age", "numeric"),
            ("sex", "categorical"),
        ]
    problem = api.problem(
        "PUT", "/v1/deployments/prod/flights", json={"schema": {"mlflow": {"inputs": "["}}}
    )
    assert problem["status"] == 400
    assert "signature.inputs" in problem["detail"]


def test_columns_beside_it_say_what_a_signature_cannot(model: Path) -> None:
    value = {
        "mlflow": str(model),
        "columns": [
            {"name": "why", "kind": "text", "role": "output"},
            {"name": "carrier", "kind": "categorical", "role": "protected", "categories": ["UA"]},
        ],
    }

    schema = read_deployment("prod/flights", {"schema": value}).schema

    assert schema is not None
    found = {column.name: column for column in schema.columns}
    assert (found["carrier"].role, found["carrier"].categories) == ("protected", ("UA",))
    assert (found["why"].kind, found["distance"].kind) == ("text", "numeric")
    assert next(iter(found)) == "carrier"


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"mlflow": "nowhere/MLmodel"}, "nowhere"),
        ({"mlflow": str(_MODELS / "none.yaml")}, "infer_signature"),
        ({"mlflow": str(_MODELS / "any_width.yaml")}, "fixed number of columns"),
        ({"mlflow": "/dev/zero"}, "/dev/zero"),
        ({"mlflow": 7}, "MLmodel"),
        ({"mlflow": {}}, "signature"),
        ({"mlflow": str(_MODELS / "unnamed.yaml"), "kind": 1}, "kind"),
        (
            {
                "mlflow": str(_MODELS / "unnamed.yaml"),
                "columns": [{"name": "x", "kind": "numeric"}],
            },
            "'x'",
        ),
    ],
)
def test_a_model_that_says_nothing_stops_the_start(schema: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read_deployment("prod/flights", {"schema": schema})

    assert str(caught.value).startswith("schema: ")
    assert said in str(caught.value)


def test_a_file_that_is_something_else_is_not_shown(tmp_path: Path) -> None:
    secret = tmp_path / "MLmodel"
    secret.write_text("secret: [sesame\n")

    with pytest.raises(ConfigurationError) as caught:
        read_deployment("prod/flights", {"schema": {"mlflow": str(secret)}})

    assert "sesame" not in str(caught.value)
