"""The few fields that are read without parsing agree with what protobuf says of any message."""

import struct

from hypothesis import given
from hypothesis import strategies as st

from sidelight.logger._grpc_message import Called, Streamed, called, called_by_spec, streamed
from sidelight.logger._open_inference import (
    ModelInferRequest,
    ModelInferResponse,
    ModelStreamInferResponse,
)

_TEXT = st.text(max_size=80)


@given(_TEXT, _TEXT, _TEXT, st.binary(max_size=50))
def test_model_version_and_id_are_read_from_the_beginning(
    model: str, version: str, number: str, raw: bytes
) -> None:
    request = ModelInferRequest(model_name=model, model_version=version, id=number)
    request.parameters["priority"].int64_param = 1
    request.inputs.add(name="x", datatype="UINT8", shape=[len(raw)])
    request.raw_input_contents.append(raw)
    wire = request.SerializeToString()

    assert called(wire) == Called(model.encode(), version.encode(), number.encode())
    # Cut behind these fields, as what is kept of a large request may be.
    assert called(wire[: len(wire) - len(raw)])[:2] == (model.encode(), version.encode())


@given(st.binary(max_size=100))
def test_garbage_is_read_as_far_as_it_goes(data: bytes) -> None:
    assert all(isinstance(part, bytes) for part in (*called(data), *called_by_spec(data)))
    assert isinstance(streamed(data).message, bytes)


def test_names_longer_than_any_name_are_left_out() -> None:
    wire = ModelInferRequest(model_name="m" * 257, model_version="1").SerializeToString()

    assert called(wire) == Called(b"", b"1", b"")


def test_the_spec_of_tensorflow_serving_names_model_and_version() -> None:
    version = b"\x08\xac\x02"  # Int64Value 300
    spec = b"\x0a\x04half" + b"\x12" + bytes([len(version)]) + version + b"\x1a\x03sig"
    inputs = b"\x12\x02\x0a\x00"

    assert called_by_spec(b"\x0a" + bytes([len(spec)]) + spec + inputs) == Called(b"half", b"300")
    assert called_by_spec(inputs) == Called()


@given(
    _TEXT, st.from_regex(r"[0-9]{0,4}|v[0-9]+|[a-z-]{0,12}", fullmatch=True), _TEXT, st.booleans()
)
def test_an_answer_of_a_stream_is_known_with_and_without_its_wrapping(
    model: str,
    version: str,
    number: str,
    is_last: bool,  # noqa: FBT001 - hypothesis passes by position
) -> None:
    answer = ModelInferResponse(model_name=model, model_version=version, id=number)
    if is_last:
        answer.parameters["triton_final_response"].bool_param = True
    answer.outputs.add(name="y", datatype="FP32", shape=[1])
    answer.raw_output_contents.append(struct.pack("<f", 1.5))
    bare = answer.SerializeToString()
    wrapped = ModelStreamInferResponse(infer_response=answer).SerializeToString()

    expected = Streamed(bare, number.encode(), is_last)
    assert streamed(bare) == expected
    assert streamed(wrapped) == expected


def test_the_last_answer_of_triton_may_be_empty() -> None:
    answer = ModelInferResponse(model_name="words", model_version="1", id="7")
    answer.parameters["triton_final_response"].bool_param = True
    wrapped = ModelStreamInferResponse(infer_response=answer).SerializeToString()

    assert streamed(wrapped) == Streamed(answer.SerializeToString(), b"7", is_last=True)


def test_an_error_in_a_stream_keeps_its_text_and_its_request() -> None:
    alone = ModelStreamInferResponse(error_message="no").SerializeToString()
    named = ModelStreamInferResponse(
        error_message="no", infer_response=ModelInferResponse(id="7")
    ).SerializeToString()

    assert streamed(alone) == Streamed(alone, is_error=True)
    assert streamed(named) == Streamed(named, b"7", is_error=True)


def test_a_version_that_is_no_message_is_a_version() -> None:
    for version in ("1", "2", "10", "v1", "latest", "é"):
        bare = ModelInferResponse(model_name="m", model_version=version).SerializeToString()
        assert streamed(bare) == Streamed(bare)
