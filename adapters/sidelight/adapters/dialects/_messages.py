"""Messages of Seldon Core 1 and TF-Serving, built from descriptors when first imported.

They live in a descriptor pool of their own: the generated modules of ``seldon-core`` and
``tensorflow`` register the same names in the default pool. Only what is read here is declared;
other fields stay in the messages unread.

References: SeldonIO/seldon-core, docs "Prediction API"; tensorflow, ``tensor.proto``;
tensorflow/serving, ``predict.proto``.
"""

from collections.abc import Iterable
from typing import Any, Final

from google.protobuf import any_pb2, struct_pb2
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
)
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

# Name, number, type. "*" before a type repeats it, "?" makes it one of a choice, "%" the values
# of a map from text; a dot begins the name of a message.
_Field = tuple[str, int, str]

_TENSORFLOW: Final[dict[str, tuple[_Field, ...]]] = {
    "Dimension": (("size", 1, "int64"), ("name", 2, "string")),
    "TensorShapeProto": (("dim", 2, "*.tensorflow.Dimension"), ("unknown_rank", 3, "bool")),
    "TensorProto": (
        ("dtype", 1, "int32"),
        ("tensor_shape", 2, ".tensorflow.TensorShapeProto"),
        ("tensor_content", 4, "bytes"),
        ("float_val", 5, "*float"),
        ("double_val", 6, "*double"),
        ("int_val", 7, "*int32"),
        ("string_val", 8, "*bytes"),
        ("int64_val", 10, "*int64"),
        ("bool_val", 11, "*bool"),
        ("half_val", 13, "*int32"),
        ("uint32_val", 16, "*uint32"),
        ("uint64_val", 17, "*uint64"),
    ),
    "Version": (("value", 1, "int64"),),
    "ModelSpec": (
        ("name", 1, "string"),
        ("version", 2, ".tensorflow.Version"),
        ("signature_name", 3, "string"),
    ),
    "PredictRequest": (
        ("model_spec", 1, ".tensorflow.ModelSpec"),
        ("inputs", 2, "%.tensorflow.TensorProto"),
    ),
    "PredictResponse": (
        ("outputs", 1, "%.tensorflow.TensorProto"),
        ("model_spec", 2, ".tensorflow.ModelSpec"),
    ),
}
_SELDON: Final[dict[str, tuple[_Field, ...]]] = {
    "Status": (
        ("code", 1, "int32"),
        ("info", 2, "string"),
        ("reason", 3, "string"),
        ("status", 4, "int32"),
    ),
    "Meta": (
        ("puid", 1, "string"),
        ("tags", 2, "%.google.protobuf.Value"),
        ("routing", 3, "%int32"),
        ("requestPath", 4, "%string"),
    ),
    "Tensor": (("shape", 1, "*int32"), ("values", 2, "*double")),
    "DefaultData": (
        ("names", 1, "*string"),
        ("tensor", 2, "?.seldon.protos.Tensor"),
        ("ndarray", 3, "?.google.protobuf.ListValue"),
        ("tftensor", 4, "?.tensorflow.TensorProto"),
    ),
    "SeldonMessage": (
        ("status", 1, ".seldon.protos.Status"),
        ("meta", 2, ".seldon.protos.Meta"),
        ("data", 3, "?.seldon.protos.DefaultData"),
        ("binData", 4, "?bytes"),
        ("strData", 5, "?string"),
        ("jsonData", 6, "?.google.protobuf.Value"),
        ("customData", 7, "?.google.protobuf.Any"),
    ),
    "Feedback": (
        ("request", 1, ".seldon.protos.SeldonMessage"),
        ("response", 2, ".seldon.protos.SeldonMessage"),
        ("reward", 3, "float"),
        ("truth", 4, ".seldon.protos.SeldonMessage"),
    ),
}


def _file(name: str, package: str, messages: dict[str, tuple[_Field, ...]]) -> FileDescriptorProto:
    file = FileDescriptorProto(name=f"sidelight/{name}", package=package, syntax="proto3")
    for title, fields in messages.items():
        _add_fields(file.message_type.add(name=title), f"{package}.{title}", fields)
    return file


def _add_fields(message: DescriptorProto, path: str, fields: Iterable[_Field]) -> None:
    for name, number, kind in fields:
        field = message.field.add(name=name, number=number)
        field.label = FieldDescriptorProto.LABEL_OPTIONAL
        mark = kind[0] if kind[0] in "*?%" else ""
        inner = kind.removeprefix(mark)
        if mark == "%":
            inner = f".{path}.{_add_entry(message, path, name, inner)}"
        if mark in {"*", "%"}:
            field.label = FieldDescriptorProto.LABEL_REPEATED
        if mark == "?":
            if not message.oneof_decl:
                message.oneof_decl.add(name="data_oneof")
            field.oneof_index = 0
        if inner.startswith("."):
            field.type = FieldDescriptorProto.TYPE_MESSAGE
            field.type_name = inner
        else:
            field.type = getattr(FieldDescriptorProto, f"TYPE_{inner.upper()}")


def _add_entry(message: DescriptorProto, path: str, name: str, value: str) -> str:
    """Declare a map: on the wire it is repeated pairs of key 1 and value 2."""
    title = f"{name[0].upper()}{name[1:]}Entry"
    entry = message.nested_type.add(name=title)
    entry.options.map_entry = True
    _add_fields(entry, f"{path}.{title}", (("key", 1, "string"), ("value", 2, value)))
    return title


def _pool() -> DescriptorPool:
    pool = DescriptorPool()
    for known in (struct_pb2, any_pb2):
        pool.AddSerializedFile(known.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(_file("tensor.proto", "tensorflow", _TENSORFLOW).SerializeToString())
    seldon = _file("seldon.proto", "seldon.protos", _SELDON)
    seldon.dependency.extend(
        ["google/protobuf/struct.proto", "google/protobuf/any.proto", "sidelight/tensor.proto"]
    )
    pool.AddSerializedFile(seldon.SerializeToString())
    return pool


_POOL: Final = _pool()


# The runtime makes these classes, so no type checker knows their fields.
def _message(name: str) -> Any:
    return GetMessageClass(_POOL.FindMessageTypeByName(name))


TensorProto: Final = _message("tensorflow.TensorProto")
PredictRequest: Final = _message("tensorflow.PredictRequest")
PredictResponse: Final = _message("tensorflow.PredictResponse")
SeldonMessage: Final = _message("seldon.protos.SeldonMessage")
Feedback: Final = _message("seldon.protos.Feedback")
