"""Messages of the Open Inference Protocol: the wire, what they do not know, their own pool."""

import base64
import json
import os
import subprocess
import sys

import pytest
from google.protobuf import descriptor_pool

from sidelight.logger._open_inference import (
    InferParameter,
    InferTensorContents,
    ModelInferRequest,
    ModelInferResponse,
    ModelStreamInferResponse,
)

# As MLServer's clients write it: two typed tensors with parameters, one of FP64.
_TYPED = base64.b64decode(
    "CgZpbmNvbWUSATEaBXJlcS05IhQKDGNvbnRlbnRfdHlwZRIEGgJwZCoVCgNhZ2USBUlOVDMyGgECKgQSAicyKjMK"
    "A2pvYhIFQllURVMaAQIiFQoMY29udGVudF90eXBlEgUaA3N0cioLQgR0ZWNoQgNtZ3IqIgoDYmFsEgRGUDY0GgEC"
    "KhI6EAAAAAAA/aBAAAAAAAAA8L8="
)


def test_a_request_of_a_known_client_reads_with_every_field() -> None:
    request = ModelInferRequest.FromString(_TYPED)

    assert (request.model_name, request.model_version, request.id) == ("income", "1", "req-9")
    assert request.parameters["content_type"].string_param == "pd"
    assert [(item.name, item.datatype, list(item.shape)) for item in request.inputs] == [
        ("age", "INT32", [2]),
        ("job", "BYTES", [2]),
        ("bal", "FP64", [2]),
    ]
    assert list(request.inputs[0].contents.int_contents) == [39, 50]
    assert list(request.inputs[1].contents.bytes_contents) == [b"tech", b"mgr"]
    assert list(request.inputs[2].contents.fp64_contents) == [2174.5, -1.0]
    assert request.SerializeToString(deterministic=True) == _TYPED


@pytest.mark.parametrize(
    "message",
    [
        ModelInferRequest,
        ModelInferResponse,
        ModelStreamInferResponse,
        InferTensorContents,
        InferParameter,
    ],
)
def test_unknown_fields_survive_a_round_trip(message: type) -> None:
    unknown = bytes.fromhex("a2062068") + b"idden value of a later version\x00"  # field 100

    assert message.FromString(unknown).SerializeToString() == unknown  # type: ignore[attr-defined] # made by the runtime


def test_unknown_fields_of_a_parameter_survive_too() -> None:
    value = bytes.fromhex("1a01619a0603787979")
    entry = b"\x0a\x01k\x12" + bytes([len(value)]) + value
    wire = b"\x22" + bytes([len(entry)]) + entry

    assert ModelInferRequest.FromString(wire).SerializeToString() == wire


def test_the_default_pool_knows_nothing_of_them() -> None:
    with pytest.raises(KeyError):
        descriptor_pool.Default().FindMessageTypeByName("inference.ModelInferRequest")


_SCRIPT = """
import json, sys
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.internal import api_implementation
def theirs():
    pool = descriptor_pool.Default()
    file = descriptor_pb2.FileDescriptorProto(
        name="grpc_service.proto", package="inference", syntax="proto3")
    message = file.message_type.add(name="ModelInferRequest")
    message.field.add(name="model_name", number=1, type=9, label=1)
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(
        pool.FindMessageTypeByName("inference.ModelInferRequest"))
def ours():
    from sidelight.logger._open_inference import ModelInferRequest
    return ModelInferRequest
order = (theirs, ours) if sys.argv[1] == "after" else (ours, theirs)
one, other = order[0](), order[1]()
wire = one(model_name="m").SerializeToString()
print(json.dumps([api_implementation.Type(), one is other, other.FromString(wire).model_name]))
"""


@pytest.mark.parametrize("runtime", ["upb", "python"])
@pytest.mark.parametrize("order", ["before", "after"])
def test_a_generated_module_with_the_same_names_may_be_loaded_beside(
    runtime: str, order: str
) -> None:
    found = subprocess.run(
        [sys.executable, "-P", "-c", _SCRIPT, order],
        env={**os.environ, "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": runtime},
        capture_output=True,
        check=True,
    )

    assert json.loads(found.stdout) == [runtime, False, "m"]
