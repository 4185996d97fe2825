"""Payloads of the first dialects, round trips, and what becomes of everything else."""

import gzip
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidelight.adapters.dialects import DIALECTS, Half, Side, read_payload
from sidelight.payloads import Event


def read(body: object, side: Side = "request") -> Half:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return read_payload(data, side, DIALECTS)


def v2(*tensors: dict[str, Any], **rest: Any) -> Half:
    return read({"inputs": list(tensors), **rest})


def tensor(shape: list[Any], data: Any, datatype: str = "FP64", **rest: Any) -> dict[str, Any]:
    return {"name": "x", "shape": shape, "datatype": datatype, "data": data, **rest}


@pytest.mark.parametrize(
    ("shape", "data", "rows", "columns"),
    [
        pytest.param([], [1.0], 1, 1, id="scalar"),
        pytest.param([3], [1, 2, 3], 3, 1, id="vector"),
        pytest.param([3, 1], [1, 2, 3], 3, 1, id="column"),
        pytest.param([2, 3], [1, 2, 3, 4, 5, 6], 2, 3, id="table"),
        pytest.param([2, 2], [[1, 2], [3, 4]], 2, 2, id="nested"),
        pytest.param([1, 2, 2], [1, 2, 3, 4], 1, 1, id="image"),
    ],
)
def test_shapes_become_rows_and_columns(
    shape: list[int], data: list[Any], rows: int, columns: int
) -> None:
    half = v2(tensor(shape, data))

    assert (half.reason, half.rows) == (None, rows)
    assert half.layout.tensors[0].n_columns == columns


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        pytest.param(tensor([2], [1.0]), "shape", id="too few values"),
        pytest.param(tensor([-1, 2], [1, 2]), "shape", id="negative"),
        pytest.param(tensor([10**30, 10**30], [1]), "shape", id="huge"),
        pytest.param(tensor([1] * 40, [1]), "shape", id="rank"),
        pytest.param(tensor([True], [1]), "shape", id="boolean size"),
        pytest.param(tensor([2, 2], [[1, 2], 3, 4]), "shape", id="mixed nesting"),
        pytest.param(tensor([1], [1], "FLOAT"), "datatype", id="datatype"),
        pytest.param(
            {"name": "x", "shape": [1], "datatype": "INT8", "parameters": {"binary_data_size": 1}},
            "binary_tensor",
            id="binary",
        ),
    ],
)
def test_contradictions_come_back_opaque_with_the_reason(item: dict[str, Any], reason: str) -> None:
    half = v2(item)

    assert (half.layout.protocol, half.reason, half.rows) == ("opaque", reason, 1)
    assert json.loads(half.values[0][0]) == {"inputs": [item]}


def test_too_many_columns_come_back_opaque() -> None:
    assert v2(*[tensor([1, 1000], [0] * 1000)] * 5).reason == "columns"


def test_wide_rows_are_one_embedding() -> None:
    half = v2(tensor([2, 2000], [0] * 4000))

    assert half.layout.tensors[0].is_list
    assert [len(row) for row in half.values[0]] == [2000, 2000]


def test_tensors_without_dimensions_are_repeated_for_each_row() -> None:
    half = v2(tensor([2], [1, 2]), tensor([], [7]))

    assert half.values == ([1, 2], [7, 7])


def test_different_leading_dimensions_are_one_row_of_lists() -> None:
    half = v2(tensor([2, 2], [1, 2, 3, 4]), tensor([3], [5, 6, 7]))

    assert (half.rows, half.layout.whole) == (1, True)
    assert half.values == ([[1, 2, 3, 4]], [[5, 6, 7]])


def test_no_rows_are_one_row_of_nothing() -> None:
    half = v2(tensor([0, 2], []))

    assert (half.rows, half.values, half.facts["empty"]) == (1, ([None, None],), True)


def test_equal_layouts_are_the_same_object() -> None:
    assert v2(tensor([1, 2], [1, 2])).layout is v2(tensor([2, 2], [1, 2, 3, 4])).layout
    assert v2(tensor([1], [1])).layout is not v2(tensor([1], [1], "FP32")).layout


def test_a_body_says_version_id_and_whether_it_is_synthetic() -> None:
    half = v2(tensor([1], [1]), id="7", model_version="v3", parameters={"bias_ignore": "true"})

    assert half.facts == {"id": "7", "version": "v3", "synthetic": True}


numbers = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**63), 2**63 - 1)


@given(st.integers(0, 4), st.lists(st.integers(0, 4), max_size=3), st.data())
@settings(deadline=None)
def test_v2_data_reads_back_flat_or_nested(rows: int, rest: list[int], data: st.DataObject) -> None:
    shape = [rows, *rest]
    flat = data.draw(st.lists(numbers, min_size=math.prod(shape), max_size=math.prod(shape)))
    nested = np.array(flat, dtype=object).reshape(shape).tolist()

    one, other = v2(tensor(shape, flat)), v2(tensor(shape, nested))

    assert one.values == other.values
    if rows:
        values = one.values[0]
        if one.layout.tensors[0].is_list:
            values = [value for row in values for value in row]
        assert (one.rows, values) == (rows, flat)


# Beyond 64 bits JSON's numbers are doubles here, as for most parsers.
scalars = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text(max_size=4)
)


@given(st.lists(st.dictionaries(st.text(max_size=2), scalars, min_size=1), min_size=1, max_size=4))
def test_v1_objects_read_back_by_name(rows: list[dict[str, Any]]) -> None:
    half = read({"instances": rows})

    assert half.rows == len(rows)
    for place, tensor_ in enumerate(half.layout.tensors):
        for row, value in zip(rows, half.values[place], strict=True):
            sent = row.get(tensor_.name or "")
            if tensor_.datatype != "JSON":
                assert value == sent or (value != value and sent != sent)  # noqa: PLR0124 - NaN
            elif sent is not None:
                assert value == sent or math.isnan(json.loads(value)) or json.loads(value) == sent


@given(st.integers(1, 4), st.integers(1, 4), st.data())
def test_v1_lists_read_back_as_a_table(rows: int, width: int, data: st.DataObject) -> None:
    table = data.draw(
        st.lists(st.lists(numbers, min_size=width, max_size=width), min_size=rows, max_size=rows)
    )

    half = read({"instances": table})

    columns = [
        values[place :: tensor_.n_columns]
        for tensor_, values in zip(half.layout.tensors, half.values, strict=True)
        for place in range(tensor_.n_columns)
    ]
    assert [list(row) for row in zip(*columns, strict=True)] == table


@pytest.mark.parametrize(
    ("body", "form", "datatypes", "rows"),
    [
        ({"instances": [1, 2]}, "scalar", ["NUMBER"], 2),
        ({"instances": ["a"]}, "scalar", ["TEXT"], 1),
        ({"instances": [[1, "a"], [2, None]]}, "list", ["NUMBER", "TEXT"], 2),
        ({"instances": [[1, 2], [3]]}, "list", ["NUMBER"], 2),
        ({"instances": [[[1, 2]], [[3, 4]]]}, "list", ["NUMBER"], 2),
        ({"instances": [{"b64": "AA=="}]}, "scalar", ["B64"], 1),
        ({"instances": [1, "a", {"k": []}]}, "scalar", ["JSON"], 3),
        ({"instances": [{"a": 1}, {"b": True}]}, "object", ["NUMBER", "BOOL"], 2),
        ({"instances": []}, "scalar", ["NULL"], 1),
        ({"inputs": {"a": [1, 2], "b": [[1, 2], [3, 4]], "c": 7}}, "", ["NUMBER"] * 3, 2),
        ({"inputs": [[1, 2], [3]]}, "", ["NUMBER"], 2),
        ({"inputs": "text"}, "", ["TEXT"], 1),
    ],
)
def test_v1_forms(body: dict[str, Any], form: str, datatypes: list[str], rows: int) -> None:
    half = read(body)

    assert (half.reason, half.rows, half.layout.form) == (None, rows, form)
    assert [tensor_.datatype for tensor_ in half.layout.tensors] == datatypes


@pytest.mark.parametrize(
    "body", [{"instances": {"a": 1}}, {"inputs": {}}, {"inputs": {"a": [1, "b"]}}]
)
def test_v1_contradictions_come_back_opaque(body: dict[str, Any]) -> None:
    assert read(body).layout.protocol == "opaque"
    assert read(body).reason in {"shape", "columns", "values"}


@pytest.mark.parametrize(
    ("data", "reason", "form"),
    [
        pytest.param(b"a,b", "not_json", "text", id="text"),
        pytest.param(b"\xff\x00", "not_json", "base64", id="bytes"),
        pytest.param(b"a\x00b", "not_json", "base64", id="nul"),
        pytest.param(b'{"k": 1', "not_json", "text", id="broken JSON"),
        pytest.param(b'{"k": 1}', "unknown_json", "json", id="unknown JSON"),
        pytest.param(b"[1]", "unknown_json", "json", id="list"),
        pytest.param(
            b'{"instances":' + b"[" * 10_000 + b"]" * 10_000 + b"}", "too_deep", "text", id="deep"
        ),
        pytest.param(gzip.compress(b"[1, 2, 3]")[:-9], "encoding_truncated", "base64", id="cut"),
        pytest.param(b"\x1f\x8b\xff", "encoding_truncated", "base64", id="three bytes"),
        pytest.param(
            gzip.compress(b"x")[:10] + b"\xff" * 9, "encoding_damaged", "base64", id="bad"
        ),
        pytest.param(gzip.compress(bytes(65 << 20)), "encoding_too_large", "base64", id="bomb"),
    ],
)
def test_everything_else_is_one_opaque_value(data: bytes, reason: str, form: str) -> None:
    half = read(data)

    assert (half.layout.protocol, half.layout.form, half.reason) == ("opaque", form, reason)
    assert (half.rows, len(half.values[0])) == (1, 1)


def test_an_empty_body_is_no_error() -> None:
    assert (read(b"").reason, read(b"").rows, read(b"").values) == (None, 1, ())


def test_encodings_are_undone() -> None:
    body = json.dumps({"instances": [1]}).encode()

    assert read(gzip.compress(body)).values == ([1],)
    assert read(gzip.compress(body[:5]) + gzip.compress(body[5:])).values == ([1],)
    event = Event(id="1", source="/s", type="t", extensions={"contentencoding": "lzw"})
    half = read_payload(b"x\x9c!", "request", DIALECTS, event=event)
    assert half.reason == "encoding_coding"


def test_the_other_side_of_a_chain_is_read_too() -> None:
    body = {"outputs": [tensor([1], [1])]}

    assert read(body, "request").layout.protocol == "v2-json"


@given(st.binary(max_size=80))
def test_no_bytes_make_the_reader_raise(data: bytes) -> None:
    assert read(data).rows >= 1


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["inputs", "instances", "name", "shape", "datatype", "data", "b64"]),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)


@given(
    st.dictionaries(
        st.sampled_from(["inputs", "outputs", "instances", "predictions"]), json_values, max_size=2
    ),
    st.sampled_from(["request", "response"]),
)
@settings(max_examples=400, deadline=None)
def test_no_json_makes_the_reader_raise(body: dict[str, Any], side: Side) -> None:
    assert read(body, side).rows >= 1
