"""V2 over gRPC: the same tensor says the same as protobuf and as JSON; garbage says so."""

import base64
import contextlib
import gzip
import json
import math
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidelight.adapters.dialects import DIALECTS, Half, Side, Undecodable, read_payload
from sidelight.adapters.dialects._v2_grpc import OpenInferenceMessages
from sidelight.logger._binary_tensors import encode
from sidelight.logger._grpc_frames import frame
from sidelight.logger._open_inference import (
    InferInputTensor,
    ModelInferRequest,
    ModelInferResponse,
    ModelStreamInferResponse,
)

_FIELDS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP16": "fp32_contents",
    "BF16": "fp32_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
_WHOLE = {
    f"{sign}INT{bits}": (0 if sign else -(2 ** (bits - 1)), 2 ** (bits - (not sign)) - 1)
    for sign in ("", "U")
    for bits in (8, 16, 32, 64)
}
_FLOATS = {"BF16": 16, "FP16": 16, "FP32": 32, "FP64": 64}


def decode(data: bytes, side: Side = "request") -> Half:
    return OpenInferenceMessages().decode(data, side)


def reason_of(data: bytes, side: Side = "request") -> str:
    with pytest.raises(Undecodable) as caught:
        decode(data, side)
    return caught.value.reason


def values_of(datatype: str) -> st.SearchStrategy[Any]:
    if datatype in _WHOLE:
        return st.integers(*_WHOLE[datatype])
    if datatype == "BOOL":
        return st.booleans()
    if datatype == "BYTES":
        return st.text(max_size=8)
    if datatype == "BF16":
        # The upper half of a float is one that it holds exactly.
        return st.integers(0, 0x7F7F).map(
            lambda word: struct.unpack("<f", struct.pack("<I", word << 16))[0]
        )
    return st.floats(width=_FLOATS[datatype], allow_nan=False, allow_infinity=False)  # type: ignore[arg-type] # 16, 32 or 64


@st.composite
def tensors(draw: st.DrawFn) -> tuple[str, str, list[int], list[Any]]:
    datatype = draw(st.sampled_from(sorted(_FIELDS)))
    shape = draw(st.lists(st.integers(0, 3), max_size=3))
    count = math.prod(shape)
    values = draw(st.lists(values_of(datatype), min_size=count, max_size=count))
    return draw(st.text(max_size=4)), datatype, shape, values


def as_json(items: list[tuple[str, str, list[int], list[Any]]], key: str) -> bytes:
    return json.dumps(
        {
            "id": "7",
            "model_version": "v3",
            key: [
                {"name": name, "datatype": datatype, "shape": shape, "data": values}
                for name, datatype, shape, values in items
            ],
        }
    ).encode()


def as_message(
    items: list[tuple[str, str, list[int], list[Any]]], message: Any, *, is_raw: bool
) -> bytes:
    body = message(id="7", model_version="v3")
    tensors = body.inputs if message is ModelInferRequest else body.outputs
    raw = body.raw_input_contents if message is ModelInferRequest else body.raw_output_contents
    for name, datatype, shape, values in items:
        tensor = tensors.add(name=name, datatype=datatype, shape=shape)
        if is_raw:
            raw.append(encode(datatype, values))
        else:
            texts = [value.encode() if isinstance(value, str) else value for value in values]
            tensor.contents.SetInParent()
            getattr(tensor.contents, _FIELDS[datatype]).extend(texts)
    return bytes(body.SerializeToString())


@given(st.lists(tensors(), min_size=1, max_size=3), st.booleans(), st.booleans(), st.booleans())
@settings(deadline=None)
def test_a_message_says_what_its_json_says(
    items: list[tuple[str, str, list[int], list[Any]]],
    is_raw: bool,  # noqa: FBT001 - hypothesis passes by position
    is_response: bool,  # noqa: FBT001 - as above
    is_framed: bool,  # noqa: FBT001 - as above
) -> None:
    side: Side = "response" if is_response else "request"
    message = ModelInferResponse if is_response else ModelInferRequest
    expected = read_payload(as_json(items, "outputs" if is_response else "inputs"), side, DIALECTS)
    data = as_message(items, message, is_raw=is_raw)
    half = decode(frame(data) if is_framed else data, side)

    assert half.layout.protocol == "v2-grpc"
    assert half.layout.to_json([str(n) for n in range(99)]) == {
        **expected.layout.to_json([str(n) for n in range(99)]),
        "protocol": "v2-grpc",
    }
    assert (half.rows, half.facts, half.reason) == (expected.rows, expected.facts, None)
    for got, wanted in zip(half.values, expected.values, strict=True):
        assert repr(got) == repr(wanted) or got == wanted


@given(st.binary(max_size=200), st.sampled_from(["request", "response"]))
def test_garbage_raises_nothing_but_undecodable(data: bytes, side: Side) -> None:
    with contextlib.suppress(Undecodable):
        decode(data, side)


@given(st.lists(tensors(), min_size=1, max_size=2), st.data())
@settings(deadline=None)
def test_a_damaged_message_raises_nothing_but_undecodable(
    items: list[tuple[str, str, list[int], list[Any]]], data: st.DataObject
) -> None:
    whole = bytearray(frame(as_message(items, ModelInferRequest, is_raw=data.draw(st.booleans()))))
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(whole[: data.draw(st.integers(0, len(whole)))])
    with contextlib.suppress(Undecodable):
        decode(cut)


def one(**fields: Any) -> bytes:
    rest = {key: fields.pop(key) for key in ("raw_input_contents",) if key in fields}
    tensor = {"name": "x", "datatype": "FP32", "shape": [1], **fields}
    return bytes(ModelInferRequest(inputs=[InferInputTensor(**tensor)], **rest).SerializeToString())


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(b"", "no_tensors", id="empty"),
        pytest.param(b"\xff\xff", "not_protobuf", id="no protobuf"),
        pytest.param(b"\x00\x00\x00\x00\x09short", "not_protobuf", id="cut frame"),
        pytest.param(b"\x00", "not_protobuf", id="cut head of a frame"),
        pytest.param(b"\x01\x00\x00\x00\x02ab", "encoding_truncated", id="compressed garbage"),
        pytest.param(one(), "shape", id="no contents"),
        pytest.param(one(raw_input_contents=[b"\0" * 5]), "shape", id="half an element"),
        pytest.param(one(raw_input_contents=[b"\0" * 8]), "shape", id="too much"),
        pytest.param(one(raw_input_contents=[b"\0" * 4] * 2), "shape", id="too many tensors"),
        pytest.param(one(shape=[-1], raw_input_contents=[b""]), "shape", id="negative"),
        pytest.param(one(shape=[1] * 33, raw_input_contents=[b"\0" * 4]), "shape", id="rank"),
        pytest.param(one(shape=[2**62, 2**62]), "shape", id="huge"),
        pytest.param(one(datatype="FLOAT", raw_input_contents=[b""]), "datatype", id="datatype"),
        pytest.param(
            one(datatype="BYTES", raw_input_contents=[b"\xff\xff\xff\xff"]), "shape", id="length"
        ),
    ],
)
def test_contradictions_have_a_reason(data: bytes, reason: str) -> None:
    assert reason_of(data) == reason


def test_half_floats_are_read_from_whichever_field_a_server_writes() -> None:
    halves = struct.pack("<2e", 0.5, -2.0)
    widened = one(datatype="FP16", shape=[2], contents={"fp32_contents": [0.5, -2.0]})
    joined = one(datatype="FP16", shape=[2], contents={"bytes_contents": [halves]})
    single = one(datatype="FP16", shape=[2], contents={"bytes_contents": [halves[:2], halves[2:]]})
    raw = one(datatype="FP16", shape=[2], raw_input_contents=[halves])

    assert [decode(data).values for data in (widened, joined, single, raw)] == [([0.5, -2.0],)] * 4


def test_bytes_that_are_no_text_are_base64_all_of_them() -> None:
    data = one(datatype="BYTES", shape=[2], contents={"bytes_contents": [b"\xff\x00", b"text"]})

    assert decode(data).values == (["/wA=", base64.b64encode(b"text").decode()],)


def test_typed_and_raw_contents_may_be_mixed_as_mlserver_takes_them() -> None:
    request = ModelInferRequest()
    request.inputs.add(name="a", datatype="INT32", shape=[2]).contents.int_contents.extend([1, 2])
    request.inputs.add(name="b", datatype="UINT8", shape=[2])
    request.raw_input_contents.append(b"\x03\x04")

    assert decode(request.SerializeToString()).values == ([1, 2], [3, 4])


def test_parameters_say_content_type_and_whether_it_is_synthetic() -> None:
    request = ModelInferRequest.FromString(one(contents={"fp32_contents": [1]}))
    request.parameters["content_type"].string_param = "pd"
    request.parameters["bias_ignore"].string_param = "true"
    request.inputs[0].parameters["content_type"].string_param = "np"
    half = decode(request.SerializeToString())

    assert half.layout.extra == (("content_type", "pd"),)
    assert half.layout.tensors[0].content_type == "np"
    assert half.facts == {"synthetic": True}

    request.parameters["content_type"].int64_param = 1
    request.parameters["bias_ignore"].bool_param = False
    half = decode(request.SerializeToString())
    assert (half.layout.extra, half.facts) == ((), {})


def output(*values: float, number: str = "1", name: str = "y") -> Any:
    response = ModelInferResponse(id=number, model_version="2")
    tensor = response.outputs.add(name=name, datatype="FP64", shape=[len(values)])
    tensor.contents.fp64_contents.extend(values)
    return response


def test_several_answers_are_the_rows_of_one_table() -> None:
    body = b"".join(frame(item.SerializeToString()) for item in (output(1, 2), output(), output(3)))
    half = decode(body, "response")

    assert (half.rows, half.values) == (3, ([1.0, 2.0, 3.0],))
    assert half.facts == {"id": "1", "version": "2"}


def test_answers_that_are_no_one_table_are_not_decoded() -> None:
    body = b"".join(frame(item.SerializeToString()) for item in (output(1), output(2, name="z")))

    assert reason_of(body, "response") == "frames"


def test_answers_of_streams_are_read_inside_of_tritons_wrapping() -> None:
    wrapped = ModelStreamInferResponse(infer_response=output(1.5)).SerializeToString()

    assert decode(wrapped, "response").values == ([1.5],)
    assert decode(frame(wrapped), "response").values == ([1.5],)
    error = ModelStreamInferResponse(error_message="no").SerializeToString()
    assert decode(error, "response").facts == {"error": "no"}


def test_a_step_may_be_asked_with_the_answer_of_the_one_before() -> None:
    raw = ModelInferResponse(raw_output_contents=[struct.pack("<d", 2.5)])
    raw.outputs.add(name="y", datatype="FP64", shape=[1])

    assert decode(raw.SerializeToString(), "request").values == ([2.5],)


@pytest.mark.parametrize("head", [b"\x00\x00\x00\x00\x07\x00", b"\x00\x00\x00\x00\x07\x02\x04"])
def test_the_head_of_a_schema_registry_is_taken_off(head: bytes) -> None:
    assert decode(head + one(contents={"fp32_contents": [4]})).values == ([4.0],)


@pytest.mark.parametrize("pack", [gzip.compress], ids=["gzip"])
def test_compressed_frames_are_inflated(pack: Any) -> None:
    inner = pack(one(contents={"fp32_contents": [4]}))
    data = b"\x01" + struct.pack(">I", len(inner)) + inner

    assert decode(data).values == ([4.0],)
    with pytest.raises(Undecodable, match="encoding_too_large"):
        OpenInferenceMessages().decode(data, "request", max_inflated_bytes=4)


@pytest.mark.parametrize(
    ("data", "media", "protocol", "expected"),
    [
        (b"\x0a", "application/protobuf", "", True),
        (b"\x00", "application/grpc", "", True),
        (b"\x0a", "application/grpc+proto", "", True),
        (b"\x0a", "", "v2", True),
        (b"\x0a", "application/octet-stream", "v2", True),
        (b"\x0a", "application/protobuf", "seldon", False),
        (b"\x0a", "application/protobuf", "tensorflow", False),
        (b"{", "application/protobuf", "v2", False),
        (b"\x0a", "application/octet-stream", "", False),
    ],
)
def test_a_body_is_claimed_by_what_is_said_of_it(
    data: bytes,
    media: str,
    protocol: str,
    expected: bool,  # noqa: FBT001 - a parameter
) -> None:
    assert OpenInferenceMessages().claims(data, media=media, protocol=protocol) is expected


@pytest.mark.parametrize("length", [1, 9, 32, 91, 123, 200])
def test_a_name_of_any_length_is_no_json(length: int) -> None:
    request = ModelInferRequest.FromString(one(contents={"fp32_contents": [4]}))
    request.model_name = "m" * length
    half = read_payload(request.SerializeToString(), "request", DIALECTS)

    assert (half.layout.protocol, half.values) == ("v2-grpc", ([4.0],))
