import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidelight.service.demo import DATATYPES, FEATURES, InferError
from sidelight.service.demo._inference_protocol import decode_infer, encode_answer, encode_infer

ROW: dict[str, Any] = {
    "hour": 17,
    "carrier": "UA",
    "origin": "EWR",
    "distance": 1400,
    "temp": 39.0,
    "humid": None,
    "wind_speed": 12.7,
    "precip": 0.0,
    "pressure": None,
    "visib": 10.0,
}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=10,
)


def request(n_rows: int = 1) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(encode_infer("a", {k: [v] * n_rows for k, v in ROW.items()}))
    return body


def changed(tensor: str, **values: Any) -> dict[str, Any]:
    body = request()
    next(item for item in body["inputs"] if item["name"] == tensor).update(values)
    return body


def decode(body: object) -> Any:
    return decode_infer(json.dumps(body).encode())


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                name: st.integers(0, 5000)
                if datatype == "INT64"
                else st.none() | st.text()
                if datatype == "BYTES"
                else st.none() | st.floats(-1e6, 1e6)
                for name, datatype in DATATYPES.items()
            }
        ),
        min_size=1,
        max_size=5,
    )
)
def test_what_is_encoded_is_decoded(rows: list[dict[str, Any]]) -> None:
    columns = {name: [row[name] for row in rows] for name in FEATURES}

    decoded = decode_infer(encode_infer("x", columns))

    assert decoded.columns == columns
    assert (decoded.id, decoded.n_rows) == ("x", len(rows))


@pytest.mark.parametrize(
    ("shape", "data"),
    [
        pytest.param([2], [1, 2], id="flat"),
        pytest.param([2, 1], [1, 2], id="column"),
        pytest.param([2, 1], [[1], [2]], id="nested"),
        pytest.param([2, 1, 1], [[[1]], [[2]]], id="nested-deeper"),
    ],
)
def test_flat_and_nested_data_are_the_same(shape: list[int], data: list[Any]) -> None:
    body = request(2)
    body["inputs"][0].update(shape=shape, data=data)

    assert decode(body).columns["hour"] == [1, 2]


def test_other_numeric_datatypes_are_taken() -> None:
    assert decode(changed("hour", datatype="FP32", data=[5.0])).columns["hour"] == [5.0]


def test_a_request_may_ask_for_one_output_and_carry_parameters() -> None:
    body = request() | {"outputs": [{"name": "late"}], "parameters": {"content_type": "pd"}}

    answer = json.loads(encode_answer(decode(body), np.array([0.7]), 0.3))

    assert answer == {
        "model_name": "flights",
        "model_version": "1",
        "id": "a",
        "outputs": [{"name": "late", "shape": [1, 1], "datatype": "BOOL", "data": [True]}],
    }


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param([], "object", id="list"),
        pytest.param({}, "inputs", id="empty"),
        pytest.param({"inputs": []}, "each of hour", id="no-tensors"),
        pytest.param({"inputs": [request()["inputs"][0]]}, "each of hour", id="one-tensor"),
        pytest.param(
            {"inputs": request()["inputs"] + request()["inputs"][:1]}, "got hour", id="twice"
        ),
        pytest.param(changed("temp", name="heat"), "got heat", id="unknown-name"),
        pytest.param(changed("temp", datatype="BYTES"), "FP64", id="text-for-number"),
        pytest.param(changed("carrier", datatype="FP64"), "BYTES", id="number-for-text"),
        pytest.param(changed("temp", data=["warm"]), "FP64 values", id="word"),
        pytest.param(changed("temp", data=[True]), "FP64 values", id="bool"),
        pytest.param(changed("hour", data=[5.5]), "INT64 values", id="fraction"),
        pytest.param(changed("hour", data=[None]), "INT64 values", id="null-for-integer"),
        pytest.param(changed("hour", data=[10**400]), "finite", id="huge"),
        pytest.param(changed("carrier", data=[7]), "strings", id="number-as-text"),
        pytest.param(changed("temp", data=[1.0, 2.0]), "1 values, got 2", id="too-many"),
        pytest.param(changed("temp", shape=[2, 1], data=[1.0, 2.0]), "one length", id="uneven"),
        pytest.param(changed("temp", shape=[]), r"\[n\]", id="no-shape"),
        pytest.param(changed("temp", shape=[-1, 1]), r"\[n\]", id="negative"),
        pytest.param(changed("temp", shape=[1, 2]), r"\[n\]", id="two-columns"),
        pytest.param(changed("temp", data=[[1.0], 2.0]), "evenly", id="mixed-nesting"),
        pytest.param(request() | {"id": 7}, "id", id="numeric-id"),
        pytest.param(request() | {"outputs": [{"name": "p"}]}, "probability", id="no-such-output"),
        pytest.param(request(0), "1 to", id="no-rows"),
    ],
)
def test_what_the_model_cannot_answer_is_said(body: object, expected: str) -> None:
    with pytest.raises(InferError, match=expected) as caught:
        decode(body)

    assert caught.value.status == 400


@given(st.binary(max_size=200) | json_values.map(lambda value: json.dumps(value).encode()))
def test_no_body_is_more_than_refused(body: bytes) -> None:
    with pytest.raises(InferError):
        decode_infer(body)


@given(
    tensor=st.sampled_from(FEATURES),
    key=st.sampled_from(["name", "shape", "datatype", "data"]),
    value=json_values,
)
def test_a_request_with_one_thing_replaced_is_read_or_refused(
    tensor: str, key: str, value: object
) -> None:
    try:
        decoded = decode(changed(tensor, **{key: value}))
    except InferError:
        return
    assert {len(values) for values in decoded.columns.values()} == {decoded.n_rows}


def test_deep_nesting_is_refused_and_breaks_nothing() -> None:
    body = json.dumps(changed("temp", data="DEEP")).replace('"DEEP"', "[" * 9999 + "]" * 9999)

    with pytest.raises(InferError):
        decode_infer(body.encode())
