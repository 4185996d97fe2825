import json
import math
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidelight.logger._binary_tensors import (
    BinaryBody,
    count_of,
    decode,
    element_bytes,
    encode,
    join,
    split,
)
from sidelight.logger.errors import TensorError

NUMPY = {
    "BOOL": "?",
    "UINT8": "u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "INT8": "i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
}


def tensor(name: str, size: int | None = None, **rest: Any) -> dict[str, Any]:
    parameters = {} if size is None else {"parameters": {"binary_data_size": size}}
    return {"name": name, "shape": [1], "datatype": "BYTES", **parameters, **rest}


def body_of(head: dict[str, Any], *chunks: bytes) -> bytes:
    return json.dumps(head).encode() + b"".join(chunks)


def test_chunks_follow_in_the_order_of_the_tensors_that_have_bytes() -> None:
    head = {"inputs": [tensor("a", 2), tensor("b", data=[1]), tensor("c", 0), tensor("d", 3)]}

    found = split(body_of(head, b"\xff{", b"}]\x00"))

    assert found.chunks == (b"\xff{", None, b"", b"}]\x00")
    assert found.head == head
    assert found.key == "inputs"


def test_the_bytes_of_an_answer_belong_to_its_outputs() -> None:
    found = split(body_of({"model_name": "m", "outputs": [tensor("y", 1)]}, b"z"))

    assert (found.key, found.chunks) == ("outputs", (b"z",))


def test_outputs_that_are_asked_for_in_binary_have_no_bytes_in_the_request() -> None:
    asked = {"name": "y", "parameters": {"binary_data": True}}
    head = {"inputs": [tensor("x", 1)], "outputs": [asked]}

    assert split(body_of(head, b"z")).chunks == (b"z",)


@pytest.mark.parametrize("is_given", [True, False])
@pytest.mark.parametrize("space", [b"", b"  \n"])
def test_white_space_around_the_json_is_not_of_the_tensors(space: bytes, is_given: bool) -> None:  # noqa: FBT001
    text = space + json.dumps({"inputs": [tensor("x", 1)]}).encode() + space

    body = split(text + b"z", len(text) if is_given else None)

    assert (body.chunks, body.head_bytes) == ((b"z",), len(text))


def test_tensors_that_look_like_white_space_are_tensors() -> None:
    text = json.dumps({"inputs": [tensor("x", 2)]}).encode()

    assert split(text + b" \n").chunks == (b" \n",)
    assert split(text + b"\n \n").chunks == (b" \n",)


@pytest.mark.parametrize(
    ("body", "head_bytes"),
    [
        pytest.param(b"", None, id="empty"),
        pytest.param(b"\x00\x01", None, id="no JSON"),
        pytest.param(b"[1]", None, id="no object"),
        pytest.param(b"{}z", None, id="bytes of nothing"),
        pytest.param(b"{}", 3, id="head beyond the body"),
        pytest.param(b"{}", -1, id="negative head"),
        pytest.param(b"abc", 0, id="no head at all"),
        pytest.param(b'{"inputs":7}', None, id="no list"),
        pytest.param(b'{"inputs":[7]}', None, id="no tensor"),
        pytest.param(b"[" * 100_000, None, id="deep"),
        pytest.param(body_of({"inputs": [tensor("x", 2)]}, b"z"), None, id="too few"),
        pytest.param(body_of({"inputs": [tensor("x", 1)]}, b"zz"), None, id="too many"),
        pytest.param(body_of({"inputs": [tensor("x", -1)]}), None, id="negative size"),
        pytest.param(body_of({"inputs": [tensor("x", 1 << 80)]}), None, id="huge size"),
        pytest.param(
            body_of({"inputs": [tensor("x", size=True)]}, b"z"), None, id="a size that is true"
        ),
        pytest.param(
            body_of({"inputs": [tensor("x", 1)], "outputs": [tensor("y", 1)]}, b"zz"),
            None,
            id="both sides",
        ),
    ],
)
def test_what_contradicts_itself_is_refused(body: bytes, head_bytes: int | None) -> None:
    with pytest.raises(TensorError, match="expected"):
        split(body, head_bytes)


names = st.text(max_size=8)
chunks = st.lists(st.none() | st.binary(max_size=40), min_size=1, max_size=5)


@given(chunks, st.sampled_from(["inputs", "outputs"]), st.booleans(), names)
def test_what_was_joined_is_split_into_the_same(
    parts: list[bytes | None],
    key: Any,
    is_strict: bool,  # noqa: FBT001 - hypothesis gives it
    name: str,
) -> None:
    items = [tensor(name, data=[1]) if part is None else tensor(name, 0) for part in parts]
    head: dict[str, Any] = {"id": name, key: items}
    if not is_strict:
        head["parameters"] = {"x": math.inf, "y": 1 << 70}

    body, head_bytes = join(
        BinaryBody(head=head, head_bytes=0, key=key, chunks=tuple(parts), is_strict=is_strict)
    )

    for found in (split(body), split(body, head_bytes)):
        assert [part for part in found.chunks if part is not None] == [
            part for part in parts if part is not None
        ]
        assert found.head_bytes == head_bytes
        assert found.head["id"] == name
        assert found.head.get("parameters") == head.get("parameters")


def test_joining_needs_a_chunk_for_each_tensor() -> None:
    with pytest.raises(TensorError):
        join(BinaryBody(head={}, head_bytes=0, key="inputs", chunks=(b"",)))


@pytest.mark.parametrize("datatype", NUMPY)
@given(data=st.binary(max_size=64))
def test_numbers_are_read_as_numpy_reads_them_and_written_back(datatype: str, data: bytes) -> None:
    size = element_bytes(datatype)
    data = data[: len(data) // size * size]
    if datatype == "BOOL":
        data = bytes(byte & 1 for byte in data)
    expected = np.frombuffer(data, dtype=NUMPY[datatype])

    values = decode(datatype, data, len(expected))

    np.testing.assert_array_equal(np.array(values, dtype=NUMPY[datatype]), expected)
    assert decode(datatype, encode(datatype, values)) == pytest.approx(values, nan_ok=True)


@given(st.lists(st.binary(max_size=9), max_size=9))
def test_strings_of_bytes_come_back(values: list[bytes]) -> None:
    assert decode("BYTES", encode("BYTES", values), len(values)) == values


@given(st.binary(max_size=40))
def test_garbage_is_read_or_refused(data: bytes) -> None:
    for datatype in (*NUMPY, "BF16", "BYTES", "WORD"):
        try:
            decode(datatype, data)
        except TensorError:
            continue


@given(st.integers(0, 0xFFFF))
def test_a_brain_float_is_the_upper_half_of_a_float(word: int) -> None:
    (value,) = decode("BF16", struct.pack("<H", word), 1)

    (same,) = struct.unpack("<f", struct.pack("<I", word << 16))
    assert value == same or math.isnan(value)
    (back,) = decode("BF16", encode("BF16", [value]))
    assert back == value or math.isnan(back)


def test_brain_floats_are_rounded_to_nearest_and_ties_to_even() -> None:
    step = 2.0**-7

    values = [1 + 0.4 * step, 1 + 0.6 * step, 1 + 0.5 * step, 1 + 1.5 * step, -3.0]

    assert decode("BF16", encode("BF16", values)) == [1, 1 + step, 1, 1 + 2 * step, -3]


@pytest.mark.parametrize(
    ("datatype", "value"),
    [
        pytest.param("INT8", 128, id="too large"),
        pytest.param("INT8", "q9", id="text"),
        pytest.param("FP32", 1e300, id="overflow"),
        pytest.param("BF16", 3.4e38 * 10, id="overflow of a brain float"),
        pytest.param("BYTES", 7.5, id="a number"),
        pytest.param("WORD", 7, id="unknown datatype"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_without_being_told(datatype: str, value: Any) -> None:
    with pytest.raises(TensorError) as caught:
        encode(datatype, [value])

    assert str(value) not in str(caught.value)


@pytest.mark.parametrize("shape", [None, [-1], [1.0], ["1"], [True], [1] * 33])
def test_a_shape_is_a_list_of_sizes(shape: Any) -> None:
    with pytest.raises(TensorError, match="shape"):
        count_of(shape)


def test_a_wrong_number_of_elements_is_refused() -> None:
    with pytest.raises(TensorError, match="expected 12, got 8"):
        decode("FP32", bytes(8), 3)
    with pytest.raises(TensorError, match="expected 2 elements, got 1"):
        decode("BYTES", encode("BYTES", [b"a"]), 2)
