"""Tensors as bytes: the binary extension of the Open Inference Protocol, and raw contents of gRPC.

A body of the extension is a JSON object followed by the bytes of those tensors that say
``parameters.binary_data_size``, back to back in the order of the tensors.

References: Triton server, docs/protocol/extension_binary_data.md; Open Inference Protocol,
open_inference_grpc.proto (``raw_input_contents``).
"""

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from math import prod
from typing import Any, Final, Literal

from sidelight.logger._json_values import read_json, write_json
from sidelight.logger.errors import TensorError

MAX_HEAD_BYTES: Final = 4 << 20
"""No JSON head in front of tensors is longer."""

# One character of the struct module for each datatype whose elements have one size.
_FORMATS: Final = {
    "BOOL": "?",
    "UINT8": "B",
    "UINT16": "H",
    "UINT32": "I",
    "UINT64": "Q",
    "INT8": "b",
    "INT16": "h",
    "INT32": "i",
    "INT64": "q",
    "FP16": "e",
    "FP32": "f",
    "FP64": "d",
}
_BFLOAT: Final = "BF16"
_BYTES: Final = "BYTES"
_LENGTH: Final = struct.Struct("<I")
_TENSORS: Final[tuple[Literal["inputs", "outputs"], ...]] = ("inputs", "outputs")
_MAX_RANK: Final = 32
_WHITE: Final = b" \t\r\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class BinaryBody:
    """A body of the extension, taken apart.

    Parameters
    ----------
    head : dict
        The JSON object; it belongs to whoever asked for it.
    head_bytes : int
        Length of that object's text, the value of ``Inference-Header-Content-Length``.
    key : "inputs" or "outputs"
        Where the tensors stand that have bytes; ``inputs`` when none has.
    chunks : tuple of (bytes or None)
        One for each tensor under ``key``; None where the values stand in the JSON.
    is_strict : bool
        Whether that text is JSON for strict parsers, without ``NaN`` and the like.

    """

    head: dict[str, Any]
    head_bytes: int
    key: Literal["inputs", "outputs"]
    chunks: tuple[bytes | None, ...]
    is_strict: bool = True


def split(body: bytes, head_bytes: int | None = None) -> BinaryBody:
    r"""Take a body of the extension apart.

    Parameters
    ----------
    body : bytes
        The whole of it.
    head_bytes : int, optional
        What the header ``Inference-Header-Content-Length`` says; None when it was lost: then the
        leading JSON value is looked for.

    Raises
    ------
    TensorError
        When there is no JSON object in front, or the sizes of the tensors are not what follows.

    Examples
    --------
    >>> head = b'{"inputs":[{"name":"x","datatype":"UINT8","parameters":{"binary_data_size":2}}]}'
    >>> split(head + b"\x01\x02").chunks
    (b'\x01\x02',)

    """
    if is_lost := head_bytes is None:
        head_bytes = _end_of_json(body)
    elif not 0 <= head_bytes <= min(len(body), MAX_HEAD_BYTES):
        raise TensorError(
            "length of the JSON in front of the tensors",
            expected=f"at most {min(len(body), MAX_HEAD_BYTES)} bytes",
            got=str(head_bytes),
        )
    head, is_strict = _object(body[:head_bytes])
    sizes = {key: _sizes(head.get(key)) for key in _TENSORS}
    carrying = [key for key in _TENSORS if any(size is not None for size in sizes[key])]
    if len(carrying) > 1:
        raise TensorError(
            "tensors", expected="bytes of inputs or of outputs", got="both in one body"
        )
    key = carrying[0] if carrying else "inputs"
    if is_lost:
        head_bytes += _white_bytes(body, head_bytes, sum(size or 0 for size in sizes[key]))
    chunks: list[bytes | None] = []
    position = head_bytes
    for size in sizes[key]:
        chunks.append(None if size is None else body[position : position + size])
        position += size or 0
    if position != len(body):
        raise TensorError(
            "bytes behind the JSON",
            expected=f"{position - head_bytes}, the sum of binary_data_size",
            got=str(len(body) - head_bytes),
        )
    return BinaryBody(
        head=head, head_bytes=head_bytes, key=key, chunks=tuple(chunks), is_strict=is_strict
    )


def join(body: BinaryBody) -> tuple[bytes, int]:
    """Put a body of the extension together; return it and the length of its JSON.

    ``binary_data_size`` of the tensors is written from the chunks.

    Raises
    ------
    TensorError
        When there is not one chunk, or None, for each tensor.

    """
    items, chunks = body.head.get(body.key) or [], body.chunks
    if len(items) != len(chunks):
        raise TensorError(
            "chunks", expected=f"one for each of {len(items)} tensors", got=str(len(chunks))
        )
    tensors = [_sized(item, chunk) for item, chunk in zip(items, chunks, strict=True)]
    head = {**body.head, body.key: tensors} if items else body.head
    text = write_json(head, is_strict=body.is_strict)
    return text + b"".join(chunk for chunk in chunks if chunk is not None), len(text)


def decode(datatype: str, data: bytes, n_elements: int | None = None) -> list[Any]:
    r"""Return the elements of a tensor, row-major.

    Parameters
    ----------
    datatype : str
        One of the protocol's: ``BOOL``, ``INT8`` ... ``UINT64``, ``FP16``, ``BF16``, ``FP32``,
        ``FP64``, ``BYTES``.
    data : bytes
        Little-endian; of ``BYTES`` each element behind its length (32 bits).
    n_elements : int, optional
        How many there must be, of the shape.

    Returns
    -------
    list of bool, int, float or bytes

    Raises
    ------
    TensorError
        When the datatype is not known or the bytes are not that many elements.

    Examples
    --------
    >>> decode("FP32", b"\x00\x00\x80\x3f", 1)
    [1.0]
    >>> decode("BYTES", b"\x02\x00\x00\x00hi")
    [b'hi']

    """
    values: list[Any]
    if datatype == _BYTES:
        values = _strings(data, n_elements)
    else:
        size = element_bytes(datatype)
        count, rest = divmod(len(data), size)
        if rest or n_elements not in (None, count):
            wanted = f"{n_elements * size}" if n_elements is not None else f"a multiple of {size}"
            raise TensorError(f"bytes of a {datatype} tensor", expected=wanted, got=str(len(data)))
        if datatype == _BFLOAT:
            # The upper half of a float of 32 bits.
            words = struct.unpack(f"<{count}H", data)
            data = struct.pack(f"<{count}I", *[word << 16 for word in words])
            datatype = "FP32"
        values = list(struct.unpack(f"<{count}{_FORMATS[datatype]}", data))
    return values


def encode(datatype: str, values: Sequence[Any]) -> bytes:
    r"""Return the bytes of a tensor's elements, the inverse of ``decode``.

    Text is written as UTF-8. Floats are rounded to the datatype; ``BF16`` to nearest, ties to
    even.

    Raises
    ------
    TensorError
        When the datatype is not known or a value does not fit it.

    Examples
    --------
    >>> encode("INT16", [1, -1])
    b'\x01\x00\xff\xff'

    """
    try:
        if datatype == _BYTES:
            texts = [value.encode() if isinstance(value, str) else bytes(value) for value in values]
            return b"".join(chain.from_iterable((_LENGTH.pack(len(text)), text) for text in texts))
        element_bytes(datatype)
        if datatype == _BFLOAT:
            return struct.pack(f"<{len(values)}H", *[_bfloat(value) for value in values])
        return struct.pack(f"<{len(values)}{_FORMATS[datatype]}", *values)
    except (struct.error, OverflowError, TypeError, ValueError) as error:
        if isinstance(error, TensorError):
            raise
        # The value itself stays out of the message: it may be a secret.
        raise TensorError(
            "value of a tensor", expected=datatype, got="one that does not fit"
        ) from None


def element_bytes(datatype: str) -> int:
    """Return the size of one element; ``BYTES`` has none.

    Raises
    ------
    TensorError
        When the datatype is not known or has no fixed size.

    """
    if datatype == _BFLOAT:
        return 2
    if form := _FORMATS.get(datatype):
        return struct.calcsize(f"<{form}")
    raise TensorError("datatype", expected="one of the Open Inference Protocol", got=datatype[:20])


def count_of(shape: Any) -> int:
    """Return how many elements a shape declares.

    Raises
    ------
    TensorError
        When it is no list of sizes.

    """
    if not isinstance(shape, (list, tuple)) or len(shape) > _MAX_RANK:
        raise TensorError("shape", expected=f"a list of at most {_MAX_RANK} sizes", got="another")
    if any(type(size) is not int or size < 0 for size in shape):
        raise TensorError("shape", expected="sizes of 0 and more", got="another")
    return prod(shape)


def _sized(tensor: Mapping[str, Any], chunk: bytes | None) -> dict[str, Any]:
    sized = dict(tensor)
    parameters = dict(sized.get("parameters") or {})
    parameters.pop("binary_data_size", None)
    if chunk is not None:
        parameters["binary_data_size"] = len(chunk)
        sized.pop("data", None)
    if parameters or "parameters" in sized:
        sized["parameters"] = parameters
    return sized


def _end_of_json(body: bytes) -> int:
    # Latin-1 gives every byte one character, so that places stay what they are; the characters
    # that structure JSON are ASCII.
    try:
        text = body[:MAX_HEAD_BYTES].decode("latin-1")
        begin = len(text) - len(text.lstrip(_WHITE.decode()))
        _, end = json.JSONDecoder().raw_decode(text, begin)
    except (ValueError, RecursionError):
        raise TensorError("body", expected="a JSON object in front", got="none") from None
    return end


def _white_bytes(body: bytes, end: int, n_tensors: int) -> int:
    """Return how much white space stands behind the JSON, before tensors of that many bytes."""
    n_more = len(body) - end - n_tensors
    return n_more if n_more > 0 and not body[end : end + n_more].strip(_WHITE) else 0


def _object(text: bytes) -> tuple[dict[str, Any], bool]:
    try:
        head, is_strict = read_json(text)
    except ValueError:
        raise TensorError("body", expected="a JSON object in front", got="no JSON") from None
    if not isinstance(head, dict):
        raise TensorError("JSON in front of the tensors", expected="an object", got="another value")
    return head, is_strict


def _sizes(items: Any) -> list[int | None]:
    if items is None:
        return []
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise TensorError("tensors", expected="a list of objects", got="another value")
    return [_size(item.get("parameters")) for item in items]


def _size(parameters: Any) -> int | None:
    if not isinstance(parameters, dict) or "binary_data_size" not in parameters:
        return None
    size = parameters["binary_data_size"]
    if type(size) is not int or size < 0:
        raise TensorError("binary_data_size", expected="an integer of 0 and more", got="another")
    return size


def _strings(data: bytes, n_elements: int | None) -> list[bytes]:
    texts = []
    position, end = 0, len(data)
    while position < end:
        start = position + _LENGTH.size
        if start > end:
            raise TensorError("BYTES tensor", expected="a length of 4 bytes", got="its beginning")
        (length,) = _LENGTH.unpack_from(data, position)
        position = start + length
        if position > end:
            raise TensorError("BYTES element", expected=f"{length} bytes", got=str(end - start))
        texts.append(data[start:position])
    if n_elements not in (None, len(texts)):
        raise TensorError("BYTES tensor", expected=f"{n_elements} elements", got=str(len(texts)))
    return texts


def _bfloat(value: float) -> int:
    word: int = struct.unpack("<I", struct.pack("<f", value))[0]
    if value != value:  # noqa: PLR0124 - not a number, whose payload must not be rounded away
        return (word >> 16) | 0x40
    return (word + 0x7FFF + ((word >> 16) & 1)) >> 16
