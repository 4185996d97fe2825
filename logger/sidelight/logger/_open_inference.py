"""Messages of the Open Inference Protocol over gRPC, built from descriptors when first imported.

They live in a descriptor pool of their own: the generated modules of ``tritonclient``, ``kserve``
and ``mlserver`` each register the same names in the default pool, and only one of them can.
Fields that a server's own copy of the protocol has beyond these stay in the messages unread.

Reference: kserve/open-inference-protocol, specification/protocol/inference_grpc.md;
``ModelStreamInferResponse`` is Triton's, with the same numbers in MLServer's copy.
"""

from collections.abc import Iterable
from typing import Any, Final

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
)
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

_PACKAGE: Final = "inference"

# Name, number, type; "*" before a type repeats it, a dot before it names a message.
_Field = tuple[str, int, str]

_SCALARS: Final = {
    name: getattr(FieldDescriptorProto, f"TYPE_{name.upper()}")
    for name in (
        *("bool", "int32", "int64", "uint32", "uint64"),
        *("float", "double", "string", "bytes"),
    )
}
_PARAMETERS: Final = "parameters"

_TENSOR: Final[tuple[_Field, ...]] = (
    ("name", 1, "string"),
    ("datatype", 2, "string"),
    ("shape", 3, "*int64"),
    (_PARAMETERS, 4, "map"),
    ("contents", 5, ".InferTensorContents"),
)
_HEAD: Final[tuple[_Field, ...]] = (
    ("model_name", 1, "string"),
    ("model_version", 2, "string"),
    ("id", 3, "string"),
    (_PARAMETERS, 4, "map"),
)
_MESSAGES: Final[dict[str, tuple[_Field, ...]]] = {
    "InferTensorContents": (
        ("bool_contents", 1, "*bool"),
        ("int_contents", 2, "*int32"),
        ("int64_contents", 3, "*int64"),
        ("uint_contents", 4, "*uint32"),
        ("uint64_contents", 5, "*uint64"),
        ("fp32_contents", 6, "*float"),
        ("fp64_contents", 7, "*double"),
        ("bytes_contents", 8, "*bytes"),
    ),
    "InferInputTensor": _TENSOR,
    "InferOutputTensor": _TENSOR,
    "InferRequestedOutputTensor": (("name", 1, "string"), (_PARAMETERS, 2, "map")),
    "ModelInferRequest": (
        *_HEAD,
        ("inputs", 5, "*.InferInputTensor"),
        ("outputs", 6, "*.InferRequestedOutputTensor"),
        ("raw_input_contents", 7, "*bytes"),
    ),
    "ModelInferResponse": (
        *_HEAD,
        ("outputs", 5, "*.InferOutputTensor"),
        ("raw_output_contents", 6, "*bytes"),
    ),
    "ModelStreamInferResponse": (
        ("error_message", 1, "string"),
        ("infer_response", 2, ".ModelInferResponse"),
    ),
}
_CHOICES: Final[tuple[_Field, ...]] = (
    ("bool_param", 1, "bool"),
    ("int64_param", 2, "int64"),
    ("string_param", 3, "string"),
    ("double_param", 4, "double"),
    ("uint64_param", 5, "uint64"),
)


def _file() -> FileDescriptorProto:
    file = FileDescriptorProto(
        name="sidelight/open_inference.proto", package=_PACKAGE, syntax="proto3"
    )
    parameter = file.message_type.add(name="InferParameter")
    parameter.oneof_decl.add(name="parameter_choice")
    _add_fields(parameter, _CHOICES)
    for field in parameter.field:
        field.oneof_index = 0
    for name, fields in _MESSAGES.items():
        _add_fields(file.message_type.add(name=name), fields)
    return file


def _add_fields(message: DescriptorProto, fields: Iterable[_Field]) -> None:
    for name, number, kind in fields:
        field = message.field.add(name=name, number=number)
        if kind == "map":
            _make_map(message, field)
            continue
        repeated, inner = kind.startswith("*"), kind.removeprefix("*")
        field.label = (
            FieldDescriptorProto.LABEL_REPEATED if repeated else FieldDescriptorProto.LABEL_OPTIONAL
        )
        if inner.startswith("."):
            field.type = FieldDescriptorProto.TYPE_MESSAGE
            field.type_name = f".{_PACKAGE}{inner}"
        else:
            field.type = _SCALARS[inner]


def _make_map(message: DescriptorProto, field: FieldDescriptorProto) -> None:
    """Declare the parameters: on the wire a map is repeated pairs of key 1 and value 2."""
    entry = message.nested_type.add(name="ParametersEntry")
    entry.options.map_entry = True
    _add_fields(entry, (("key", 1, "string"), ("value", 2, ".InferParameter")))
    field.label = FieldDescriptorProto.LABEL_REPEATED
    field.type = FieldDescriptorProto.TYPE_MESSAGE
    field.type_name = f".{_PACKAGE}.{message.name}.{entry.name}"


_POOL: Final = DescriptorPool()
_POOL.AddSerializedFile(_file().SerializeToString())


# The runtime makes these classes, so no type checker knows their fields.
def _message(name: str) -> Any:
    return GetMessageClass(_POOL.FindMessageTypeByName(f"{_PACKAGE}.{name}"))


InferParameter: Final = _message("InferParameter")
InferTensorContents: Final = _message("InferTensorContents")
InferInputTensor: Final = _message("InferInputTensor")
InferOutputTensor: Final = _message("InferOutputTensor")
InferRequestedOutputTensor: Final = _message("InferRequestedOutputTensor")
ModelInferRequest: Final = _message("ModelInferRequest")
ModelInferResponse: Final = _message("ModelInferResponse")
ModelStreamInferResponse: Final = _message("ModelStreamInferResponse")
