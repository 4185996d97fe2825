"""TensorFlow's ``TensorProto``, as a message or as its JSON."""

import struct
from math import prod
from typing import Any, Final

from google.protobuf.json_format import ParseDict, ParseError

from sidelight.adapters.dialects._half import Undecodable
from sidelight.adapters.dialects._messages import TensorProto
from sidelight.adapters.dialects._tables import MAX_RANK, RawTensor
from sidelight.adapters.dialects._v2 import texts
from sidelight.logger._binary_tensors import decode as elements
from sidelight.logger.errors import TensorError

# Number of TensorFlow's DataType -> its name there, ours, and the field of its values.
_TYPES: Final = {
    1: ("DT_FLOAT", "FP32", "float_val"),
    2: ("DT_DOUBLE", "FP64", "double_val"),
    3: ("DT_INT32", "INT32", "int_val"),
    4: ("DT_UINT8", "UINT8", "int_val"),
    5: ("DT_INT16", "INT16", "int_val"),
    6: ("DT_INT8", "INT8", "int_val"),
    7: ("DT_STRING", "BYTES", "string_val"),
    9: ("DT_INT64", "INT64", "int64_val"),
    10: ("DT_BOOL", "BOOL", "bool_val"),
    14: ("DT_BFLOAT16", "BF16", "half_val"),
    17: ("DT_UINT16", "UINT16", "int_val"),
    19: ("DT_HALF", "FP16", "half_val"),
    22: ("DT_UINT32", "UINT32", "uint32_val"),
    23: ("DT_UINT64", "UINT64", "uint64_val"),
}
_NUMBERS: Final = {name: number for number, (name, _, _) in _TYPES.items()}
_DTYPE: Final = "dtype"
_WORDS: Final = "half_val"
_MAX_WORD: Final = 0xFFFF

# TensorFlow lets the last value stand for all that follow it. Ours is the bound.
_MAX_FILLED: Final = 1 << 16


def of_json(name: str | None, value: Any) -> RawTensor:
    """Read the JSON form of the message: ``dtype``, ``tensorShape``, ``floatVal`` and so on.

    Raises
    ------
    Undecodable
        When it is none.

    """
    if type(value) is not dict:
        raise Undecodable("tensor")
    dtype = value.get(_DTYPE)
    body = {**value, _DTYPE: _NUMBERS.get(dtype, dtype) if type(dtype) is str else dtype}
    try:
        message = ParseDict(body, TensorProto(), ignore_unknown_fields=True)
    except (ParseError, ValueError, TypeError, AttributeError, RecursionError):
        raise Undecodable("tensor") from None
    return of_message(name, message)


def of_message(name: str | None, message: Any) -> RawTensor:
    """Read the message.

    Raises
    ------
    Undecodable
        When its datatype is none of V2's, or its values are not as many as its shape says.

    """
    if message.dtype not in _TYPES or message.tensor_shape.unknown_rank:
        raise Undecodable("datatype")
    _, datatype, field = _TYPES[message.dtype]
    shape = tuple(dimension.size for dimension in message.tensor_shape.dim)
    if len(shape) > MAX_RANK or any(size < 0 for size in shape):
        raise Undecodable("shape")
    data = _values(message, datatype, field, prod(shape))
    return RawTensor(
        name, datatype, shape, texts(data) if datatype == "BYTES" else data, nested=False
    )


def _values(message: Any, datatype: str, field: str, count: int) -> list[Any]:
    try:
        if message.tensor_content:
            return elements(datatype, message.tensor_content, count)
        data = list(getattr(message, field))
        if field == _WORDS:
            if any(not 0 <= word <= _MAX_WORD for word in data):
                raise Undecodable("values")
            data = elements(datatype, struct.pack(f"<{len(data)}H", *data))
    except TensorError:
        raise Undecodable("shape") from None
    if 0 < len(data) < count <= _MAX_FILLED:
        data += data[-1:] * (count - len(data))
    if len(data) != count:
        raise Undecodable("shape")
    return data
