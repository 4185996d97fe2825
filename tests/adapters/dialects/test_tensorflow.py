"""TF-Serving: classify and regress, gRPC, and columns of differing length."""

import json
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidelight.adapters.dialects import DIALECTS, Half, Side, read_payload
from sidelight.adapters.dialects._messages import PredictRequest, PredictResponse
from sidelight.payloads import Event

numbers = st.floats(allow_nan=False, allow_infinity=False)


def read(body: object, side: Side = "request", protocol: str = "") -> Half:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    event = Event(id="1", source="/s", type="t", extensions={"protocol": protocol})
    return read_payload(data, side, DIALECTS, event=event)


def by_name(half: Half) -> dict[str | None, list[Any]]:
    names = [tensor.name for tensor in half.layout.tensors]
    return dict(zip(names, half.values, strict=True))


def test_the_context_belongs_to_each_example_that_does_not_say_otherwise() -> None:
    body = {
        "signature_name": "classify",
        "context": {"lang": "en", "x": 9},
        "examples": [{"x": 1.0}, {"lang": "de"}],
    }

    half = read(body)

    assert by_name(half) == {"x": [1.0, 9], "lang": ["en", "de"]}
    assert dict(half.layout.extra) == {"signature_name": "classify"}


@pytest.mark.parametrize("key", ["result", "results"])
@pytest.mark.parametrize(
    ("items", "expected"),
    [
        pytest.param([0.5, 1], {None: [0.5, 1]}, id="regression"),
        pytest.param(
            [[["a", 0.2], ["b", 0.8]], [["b", 0.7], ["a", 0.3]]],
            {"a": [0.2, 0.3], "b": [0.8, 0.7]},
            id="classes in any order",
        ),
        pytest.param([[["a", 1]], [["b", 1]]], {None: [["a", 1], ["b", 1]]}, id="other classes"),
        pytest.param([{"a": 1}, "b"], {}, id="something else"),
        pytest.param([[["a"]], [[1, 2]]], {}, id="no pairs"),
    ],
)
def test_results_have_a_row_for_each_example(
    key: str, items: list[Any], expected: dict[str | None, list[Any]]
) -> None:
    half = read({key: items}, "response")

    assert half.layout.protocol == "tf-results"
    if half.layout.tensors[0].datatype == "JSON":
        assert len(half.values[0]) == half.rows == len(items)
    else:
        assert by_name(half) == expected


def test_scores_without_labels_are_known_by_their_place() -> None:
    half = read({"results": [[["", 0.2], ["", 0.8]], [["", 0.7], ["", 0.3]]]}, "response")

    assert half.values == ([0.2, 0.7], [0.8, 0.3])


@pytest.mark.parametrize(
    "body", [{"examples": [1]}, {"examples": [{"x": 1}], "context": [1]}], ids=["row", "context"]
)
def test_examples_that_are_no_objects_stay_opaque(body: dict[str, Any]) -> None:
    assert read(body).reason == "shape"


def test_a_wide_context_of_many_examples_stays_opaque() -> None:
    context = {str(number): 1 for number in range(4000)}

    assert read({"examples": [{}] * 1000, "context": context}).reason == "sparse"


def test_columns_of_differing_length_are_one_row_of_lists() -> None:
    half = read({"inputs": {"a": [[1, 2], [3, 4]], "b": [1, 2, 3], "c": 7}})

    assert (half.rows, half.layout.whole) == (1, True)
    assert by_name(half) == {"a": [[1, 2, 3, 4]], "b": [[1, 2, 3]], "c": [7]}


def test_a_number_said_once_is_not_repeated_for_millions_of_rows() -> None:
    body = {"inputs": {"a": [0] * 20_000, **{str(number): 1 for number in range(1000)}}}

    assert read(body).reason == "sparse"


@given(st.integers(1, 3), st.integers(1, 3), st.data())
@settings(deadline=None)
def test_grpc_reads_like_columns_of_json(rows: int, width: int, data: st.DataObject) -> None:
    row = st.lists(numbers, min_size=width, max_size=width)
    table = data.draw(st.lists(row, min_size=rows, max_size=rows))
    flat = [value for line in table for value in line]
    message = PredictRequest()
    message.model_spec.name = "m"
    message.model_spec.version.value = 3
    message.model_spec.signature_name = "s"
    tensor = message.inputs["x"]
    tensor.dtype = 2
    for size in (rows, width):
        tensor.tensor_shape.dim.add(size=size)
    tensor.tensor_content = struct.pack(f"<{len(flat)}d", *flat)

    half = read(message.SerializeToString(), protocol="tensorflow")

    expected = read({"inputs": {"x": table}})
    assert (half.layout.protocol, half.values) == ("tf-grpc", expected.values)
    assert half.facts == {"model": "m", "version": "3"}


def test_an_answer_over_grpc_has_its_tensors_in_one_order() -> None:
    message = PredictResponse()
    for name, value in (("b", 2.0), ("a", 1.0)):
        message.outputs[name].dtype = 1
        message.outputs[name].tensor_shape.dim.add(size=1)
        message.outputs[name].float_val.append(value)

    half = read(message.SerializeToString(), "response", "tensorflow")

    assert by_name(half) == {"a": [1.0], "b": [2.0]}


def test_a_message_without_tensors_stays_opaque() -> None:
    assert read(b"\x0a\x03\x0a\x01m", protocol="tensorflow").reason == "no_tensors"


def test_no_results_are_one_row_of_nothing() -> None:
    half = read({"results": []}, "response")

    assert (half.rows, half.facts, half.values) == (1, {"empty": True}, ())


@pytest.mark.parametrize(
    ("tensor", "reason"),
    [
        ({"dtype": "DT_HALF", "halfVal": [70000]}, "values"),
        ({"dtype": "DT_FLOAT", "tensorContent": "AAAA"}, "shape"),
        ({"dtype": "DT_FLOAT", "tensorShape": {"unknownRank": True}}, "datatype"),
        ({"dtype": "DT_FLOAT", "tensorShape": {"dim": [{"size": 1}] * 40}}, "shape"),
        ({"dtype": "DT_FLOAT", "tensorShape": {"dim": [{"size": -1}]}}, "shape"),
        ([1], "tensor"),
        ("x", "tensor"),
    ],
)
def test_tensors_that_contradict_themselves_stay_opaque(tensor: Any, reason: str) -> None:
    assert read({"data": {"tftensor": tensor}}).reason == reason
