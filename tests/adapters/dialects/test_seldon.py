"""Seldon Core 1: each kind of data as JSON and as protobuf, against encoders of the tests' own."""

import base64
import gzip
import json
import math
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidelight.adapters.dialects import DIALECTS, Half, Side, read_payload
from sidelight.payloads import Event

numbers = st.floats(allow_nan=False, allow_infinity=False)
names_of_columns = st.lists(
    st.text("abcde", min_size=1, max_size=4), min_size=1, max_size=4, unique=True
)


def read(body: object, side: Side = "request", protocol: str = "seldon") -> Half:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    event = Event(id="1", source="/s", type="t", extensions={"protocol": protocol})
    return read_payload(data, side, DIALECTS, event=event)


def columns(half: Half) -> list[list[Any]]:
    return [
        values[place :: tensor.n_columns]
        for tensor, values in zip(half.layout.tensors, half.values, strict=True)
        for place in range(tensor.n_columns)
    ]


def table(half: Half) -> list[list[Any]]:
    return [list(row) for row in zip(*columns(half), strict=True)]


def names(half: Half) -> list[str | None]:
    return [tensor.name for tensor in half.layout.tensors]


# An encoder of protobuf that shares nothing with the runtime.


def varint(number: int) -> bytes:
    number &= (1 << 64) - 1
    out = b""
    while number > 0x7F:
        out += bytes([number & 0x7F | 0x80])
        number >>= 7
    return out + bytes([number])


def field(number: int, value: bytes | int | str) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def double(number: int, value: float) -> bytes:
    return varint(number << 3 | 1) + struct.pack("<d", value)


def proto_value(value: Any) -> bytes:
    if value is None:
        return field(1, 0)
    if isinstance(value, bool):
        return field(4, int(value))
    if isinstance(value, int | float):
        return double(2, value)
    if isinstance(value, str):
        return field(3, value)
    if isinstance(value, dict):
        entries = (field(1, key) + field(2, proto_value(item)) for key, item in value.items())
        return field(5, b"".join(field(1, entry) for entry in entries))
    return field(6, b"".join(field(1, proto_value(item)) for item in value))


def default_data(kind: int, body: bytes, names: list[str]) -> bytes:
    return field(3, b"".join(field(1, name) for name in names) + field(kind, body))


def tensor_message(rows: list[list[float]]) -> bytes:
    shape = b"".join(varint(size) for size in (len(rows), len(rows[0])))
    values = b"".join(struct.pack("<d", value) for row in rows for value in row)
    return field(1, shape) + field(2, values)


def tf_message(dtype: int, shape: list[int], content: bytes) -> bytes:
    dims = b"".join(field(2, field(1, size)) for size in shape)
    return field(1, dtype) + field(2, dims) + field(4, content)


@given(names_of_columns, st.integers(1, 4), st.data())
@settings(deadline=None)
def test_all_forms_of_a_table_of_numbers_read_the_same(
    labels: list[str], rows: int, data: st.DataObject
) -> None:
    row = st.lists(numbers, min_size=len(labels), max_size=len(labels))
    sent = data.draw(st.lists(row, min_size=rows, max_size=rows))
    flat = [value for line in sent for value in line]
    shape = [rows, len(labels)]
    content = struct.pack(f"<{len(flat)}d", *flat)
    dims = {"dim": [{"size": str(size)} for size in shape]}
    forms: list[object] = [
        {"data": {"names": labels, "ndarray": sent}},
        {"data": {"names": labels, "tensor": {"shape": shape, "values": flat}}},
        {
            "data": {
                "names": labels,
                "tftensor": {"dtype": "DT_DOUBLE", "tensorShape": dims, "doubleVal": flat},
            }
        },
        {
            "data": {
                "names": labels,
                "tftensor": {
                    "dtype": "DT_DOUBLE",
                    "tensorShape": dims,
                    "tensorContent": base64.b64encode(content).decode(),
                },
            }
        },
        default_data(2, tensor_message(sent), labels),
        default_data(3, b"".join(field(1, proto_value(line)) for line in sent), labels),
        default_data(4, tf_message(2, shape, content), labels),
    ]

    for form in forms:
        half = read(form)
        assert half.reason is None
        assert names(half) == labels
        assert table(half) == sent


cells = st.none() | st.booleans() | numbers | st.text(max_size=3)


@given(st.lists(st.lists(cells, min_size=2, max_size=2), min_size=1, max_size=4))
@settings(deadline=None)
def test_rows_of_mixed_values_keep_each_value(rows: list[list[Any]]) -> None:
    sent = default_data(3, b"".join(field(1, proto_value(row)) for row in rows), ["a", "b"])

    plain, message = read({"data": {"names": ["a", "b"], "ndarray": rows}}), read(sent)

    assert names(plain) == names(message) == ["a", "b"]
    assert table(plain) == table(message)
    for place, tensor in enumerate(plain.layout.tensors):
        if tensor.datatype != "JSON":
            assert [row[place] for row in table(plain)] == [row[place] for row in rows]


@pytest.mark.parametrize(
    ("dtype", "code", "form", "values"),
    [
        (1, "DT_FLOAT", "f", [0.5, -2.0]),
        (3, "DT_INT32", "i", [1, -2]),
        (4, "DT_UINT8", "B", [1, 255]),
        (5, "DT_INT16", "h", [1, -2]),
        (6, "DT_INT8", "b", [1, -2]),
        (9, "DT_INT64", "q", [2**62, -2]),
        (10, "DT_BOOL", "?", [True, False]),
        (17, "DT_UINT16", "H", [1, 65535]),
        (19, "DT_HALF", "e", [0.5, -2.0]),
        (22, "DT_UINT32", "I", [1, 2**32 - 1]),
        (23, "DT_UINT64", "Q", [1, 2**64 - 1]),
    ],
)
def test_each_datatype_of_tensorflow_is_read(
    dtype: int, code: str, form: str, values: list[Any]
) -> None:
    content = struct.pack(f"<2{form}", *values)
    body = {
        "dtype": code,
        "tensorShape": {"dim": [{"size": "2"}]},
        "tensorContent": base64.b64encode(content).decode(),
    }

    for half in (
        read({"data": {"tftensor": body}}),
        read(default_data(4, tf_message(dtype, [2], content), [])),
    ):
        assert half.values == (values,)


def test_words_of_half_floats_are_read() -> None:
    words = np.array([0.5, -2.0], np.float16).view(np.uint16).tolist()
    body = {"dtype": "DT_HALF", "tensorShape": {"dim": [{"size": "2"}]}, "halfVal": words}

    assert read({"data": {"tftensor": body}}).values == ([0.5, -2.0],)


def test_texts_of_a_tftensor_are_texts() -> None:
    body = {
        "dtype": "DT_STRING",
        "tensorShape": {"dim": [{"size": "2"}]},
        "stringVal": [base64.b64encode(text.encode()).decode() for text in ("gut", "schön")],
    }

    assert read({"data": {"tftensor": body}}).values == (["gut", "schön"],)


def test_the_last_value_of_a_tftensor_stands_for_the_rest() -> None:
    body = {"dtype": "DT_FLOAT", "tensorShape": {"dim": [{"size": "3"}]}, "floatVal": [1, 2]}

    assert read({"data": {"tftensor": body}}).values == ([1.0, 2.0, 2.0],)


@pytest.mark.parametrize(
    ("body", "rows", "datatype", "values"),
    [
        pytest.param({"strData": "bad film"}, 1, "TEXT", ["bad film"], id="text"),
        pytest.param({"binData": "iVBO"}, 1, "B64", ["iVBO"], id="bytes"),
        pytest.param({"jsonData": {"a": [1]}}, 1, "JSON", ['{"a":[1]}'], id="document"),
        pytest.param({"jsonData": [1, 2]}, 2, "NUMBER", [1, 2], id="list"),
        pytest.param({"jsonData": 7}, 1, "NUMBER", [7], id="number"),
        pytest.param({"customData": {"@type": "x"}}, 1, "JSON", ['{"@type":"x"}'], id="custom"),
        pytest.param(field(5, "bad film"), 1, "TEXT", ["bad film"], id="text message"),
        pytest.param(field(4, b"\x89PN"), 1, "B64", ["iVBO"], id="bytes message"),
        pytest.param(
            field(6, proto_value({"a": [1.0]})), 1, "JSON", ['{"a":[1.0]}'], id="document message"
        ),
    ],
)
def test_other_data_are_one_feature(
    body: object, rows: int, datatype: str, values: list[Any]
) -> None:
    half = read(body)

    assert (half.rows, half.layout.tensors[0].datatype) == (rows, datatype)
    assert half.values == (values,)


def test_texts_in_a_list_are_rows() -> None:
    half = read({"data": {"names": ["review"], "ndarray": ["great", "awful"]}})

    assert (names(half), half.rows, half.values) == (["review"], 2, (["great", "awful"],))


def test_an_image_a_row_is_one_list() -> None:
    half = read({"data": {"names": ["image"], "ndarray": [[[1, 2], [3, 4]], [[5, 6], [7, 8]]]}})

    assert (half.rows, names(half)) == (2, ["image"])
    assert half.values == ([[1, 2, 3, 4], [5, 6, 7, 8]],)


def test_names_that_are_not_as_many_as_columns_name_nothing() -> None:
    half = read({"data": {"names": ["a"], "ndarray": [[1, 2]]}})

    assert (names(half), table(half)) == ([None], [[1, 2]])


def test_text_for_what_json_has_no_number_for_is_a_number() -> None:
    half = read({"data": {"tensor": {"shape": [3], "values": [1, "NaN", "-Infinity"]}}})

    assert half.values[0][0] == 1
    assert math.isnan(half.values[0][1])
    assert half.values[0][2] == -math.inf


def test_meta_says_id_and_tags() -> None:
    meta = {"puid": "p1", "tags": {"tenant": "t1"}, "routing": {"ab": 1}}
    tags = field(1, "tenant") + field(2, proto_value("t1"))
    message = field(2, field(1, "p1") + field(2, tags) + field(3, field(1, "ab") + field(2, 1)))

    expected = {"id": "p1", "tags": {"tenant": "t1"}, "routing": {"ab": 1}}
    assert read({"strData": "x", "meta": meta}).facts == expected
    assert read(message + field(5, "x")).facts == expected


@pytest.mark.parametrize(
    "body",
    [
        {"status": {"code": 500, "info": "boom", "status": "FAILURE"}},
        field(1, field(1, 500) + field(2, "boom") + field(4, 1)),
    ],
    ids=["object", "message"],
)
def test_a_failure_is_no_prediction(body: object) -> None:
    half = read(body, "response")

    assert (half.layout.protocol, half.values) == ("error", ())
    assert half.facts["error"] == "500: boom"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        pytest.param({"data": {"tensor": {"shape": [2], "values": [1]}}}, "shape", id="too few"),
        pytest.param({"data": {"tensor": {"shape": [-1], "values": []}}}, "shape", id="negative"),
        pytest.param({"data": {"tensor": {"shape": [1], "values": {}}}}, "shape", id="no list"),
        pytest.param({"data": {"tensor": []}}, "shape", id="no tensor"),
        pytest.param({"data": {"ndarray": {"a": 1}}}, "shape", id="no rows"),
        pytest.param(
            {"data": {"tensor": {"shape": [10**9, 0], "values": []}}}, "sparse", id="empty rows"
        ),
        pytest.param({"data": {"tftensor": {"dtype": "DT_FLOAT"}}}, "shape", id="no values"),
        pytest.param({"data": {"tftensor": {"dtype": "DT_ODD"}}}, "tensor", id="unknown datatype"),
        pytest.param({"data": {"tftensor": {"dtype": 8}}}, "datatype", id="complex"),
        pytest.param({"data": {"tftensor": {"floatVal": "x"}}}, "tensor", id="no tensor proto"),
        pytest.param(
            {
                "data": {
                    "tftensor": {
                        "dtype": "DT_FLOAT",
                        "tensorShape": {"dim": [{"size": "1000000000"}]},
                        "floatVal": [1],
                    }
                }
            },
            "shape",
            id="one value for many",
        ),
        pytest.param({"strData": 1}, "values", id="no text"),
        pytest.param(b"\xff\xff", "not_protobuf", id="no message"),
        pytest.param(field(2, b""), "seldon", id="no data"),
    ],
)
def test_contradictions_come_back_opaque_with_the_reason(body: object, reason: str) -> None:
    half = read(body)

    assert (half.layout.protocol, half.reason, half.rows) == ("opaque", reason, 1)


def test_a_message_nested_too_deeply_is_no_message() -> None:
    value = proto_value(1.0)
    for _ in range(3000):
        value = field(6, field(1, value))

    assert read(field(6, value)).reason == "not_protobuf"


@given(st.binary(max_size=200), st.sampled_from(["seldon", "tensorflow", "v2", ""]))
def test_no_bytes_make_a_reader_of_messages_raise(data: bytes, protocol: str) -> None:
    assert read(data, protocol=protocol).rows >= 1


@given(st.integers(0, 60), st.sampled_from(["seldon", "tensorflow", "v2", ""]))
def test_a_message_that_was_cut_costs_nothing(length: int, protocol: str) -> None:
    whole = default_data(2, tensor_message([[1.0, 2.0], [3.0, 4.0]]), ["a", "b"])

    assert read(whole[:length], protocol=protocol).rows >= 1


def framed(*messages: bytes, compressed: bool = False) -> bytes:
    bodies = [gzip.compress(message) if compressed else message for message in messages]
    return b"".join(struct.pack(">BI", compressed, len(body)) + body for body in bodies)


@pytest.mark.parametrize("compressed", [False, True])
def test_a_message_in_a_frame_of_grpc_is_read(compressed: bool) -> None:  # noqa: FBT001
    message = default_data(2, tensor_message([[1.0, 2.0]]), ["a", "b"])

    assert table(read(framed(message, compressed=compressed))) == [[1.0, 2.0]]


@pytest.mark.parametrize("protocol", ["seldon", "tensorflow"])
def test_several_messages_are_not_one(protocol: str) -> None:
    message = field(5, "x")

    assert read(framed(message, message), protocol=protocol).reason == "frames"
    assert read(framed(message)[:-1], protocol=protocol).reason == "not_protobuf"
