"""Columns from the signatures of MLmodel files that MLflow 3.17 wrote, and from forged ones."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sidelight.adapters import mlflow_schema
from sidelight.payloads import Schema
from sidelight.payloads.errors import SchemaError

_FOLDER = Path(__file__).parent / "mlmodel"


def signature(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((_FOLDER / f"{name}.yaml").read_text())["signature"]
    return found


def said(schema: Schema) -> tuple[dict[str, str], dict[str, str]]:
    features: dict[str, str] = {column.name: column.kind for column in schema.features}
    return features, {column.name: column.kind for column in schema.outputs}


@pytest.mark.parametrize(
    ("name", "features", "outputs"),
    [
        (
            "columns",
            {
                "carrier": "categorical",
                "distance": "numeric",
                "temp": "numeric",
                "night": "boolean",
                "departed": "timestamp",
                "gusts": "numeric",
                "pixels": "image",
            },
            {"late": "numeric", "why": "categorical"},
        ),
        (
            "sklearn",
            dict.fromkeys(
                ["sepal length (cm)", "sepal.width", 'petal "a"', "größe"],
                "numeric",
            ),
            {"y": "numeric"},
        ),
        (
            "tensor",
            dict.fromkeys(["f0", "f1", "f2", "f3"], "numeric"),
            dict.fromkeys(["y0", "y1"], "numeric"),
        ),
        (
            "named_tensors",
            {
                "image": "image",
                "age": "numeric",
                "position_0": "numeric",
                "position_1": "numeric",
                "position_2": "numeric",
                "flag": "boolean",
                "word": "categorical",
            },
            {f"y{number}": "numeric" for number in range(10)},
        ),
        (
            "nested",
            {
                "embedding": "embedding",
                "words": "text",
                "address": "text",
                "weights": "text",
                "rest": "text",
                "amount": "numeric",
            },
            {"y": "categorical"},
        ),
        ("unnamed", {"f0": "categorical"}, {"y": "numeric"}),
    ],
)
def test_what_mlflow_wrote_is_read(
    name: str, features: dict[str, str], outputs: dict[str, str]
) -> None:
    schema = mlflow_schema(signature(name))

    assert said(schema) == (features, outputs)
    assert Schema.from_json(schema.to_json()) == schema


def test_a_tensor_of_any_width_says_too_little() -> None:
    with pytest.raises(SchemaError, match="fixed number of columns"):
        mlflow_schema(signature("any_width"))


@pytest.mark.parametrize(
    ("inputs", "path"),
    [
        pytest.param(None, "signature.inputs", id="none"),
        pytest.param("[", "signature.inputs", id="no JSON"),
        pytest.param("[" * 100_000, "signature.inputs", id="deep"),
        pytest.param({"type": "long"}, "signature.inputs", id="no list"),
        pytest.param([1], "signature.inputs[0]", id="no object"),
        pytest.param([{"type": "complex"}], "signature.inputs[0].type", id="type"),
        pytest.param([{"type": ["long"]}], "signature.inputs[0].type", id="type of a list"),
        pytest.param([{"type": "long", "name": 1}], "signature.inputs[0].name", id="name"),
        pytest.param([{"type": "tensor"}], "signature.inputs[0].tensor-spec", id="no tensor"),
        pytest.param(
            [{"type": "tensor", "tensor-spec": {"dtype": "complex64", "shape": [-1]}}],
            "signature.inputs[0].tensor-spec.dtype",
            id="dtype",
        ),
        pytest.param(
            [{"type": "tensor", "tensor-spec": {"dtype": "int8", "shape": [-1, 10**12]}}],
            "signature.inputs[0].tensor-spec.shape",
            id="huge",
        ),
        pytest.param(
            [{"type": "tensor", "tensor-spec": {"dtype": "int8", "shape": [-1, "4"]}}],
            "signature.inputs[0].tensor-spec.shape",
            id="shape",
        ),
        pytest.param(
            [{"type": "tensor", "tensor-spec": {"dtype": "int8", "shape": [-1, 90_000]}}] * 2,
            "signature.inputs",
            id="many",
        ),
        pytest.param(
            [{"type": "long", "name": "a"}, {"type": "double", "name": "a"}], "columns", id="twice"
        ),
    ],
)
def test_what_is_no_signature_is_named(inputs: Any, path: str) -> None:
    with pytest.raises(SchemaError) as caught:
        mlflow_schema({"inputs": inputs})

    assert caught.value.path == path


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "name", "tensor-spec", "shape", "dtype", "items"]) | st.text(),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(inputs=_json, outputs=_json, as_text=st.booleans())
def test_anything_is_a_schema_or_an_error_of_schemas(
    inputs: Any,
    outputs: Any,
    as_text: bool,  # noqa: FBT001 - drawn
) -> None:
    value = {"inputs": inputs, "outputs": outputs}
    if as_text:
        value = {name: json.dumps(item) for name, item in value.items()}

    try:
        schema = mlflow_schema(value)
    except SchemaError:
        return
    assert schema.columns
