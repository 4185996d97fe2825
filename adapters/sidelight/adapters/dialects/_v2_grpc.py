"""Open Inference Protocol (KServe V2) over gRPC: its protobuf messages, bare or in gRPC frames.

Reference: kserve/open-inference-protocol, specification/protocol/inference_grpc.md.
"""

import base64
from collections.abc import Iterator, Sequence
from itertools import chain
from math import prod
from typing import Any, Final

from google.protobuf.message import DecodeError

from sidelight.adapters.dialects._failures import failed
from sidelight.adapters.dialects._half import Half, Layout, Side, Undecodable
from sidelight.adapters.dialects._tables import MAX_RANK, RawTensor, table
from sidelight.adapters.dialects._v2 import DATATYPES
from sidelight.logger import InflateError, inflate
from sidelight.logger._binary_tensors import decode as elements
from sidelight.logger._grpc_frames import Frame, frames
from sidelight.logger._grpc_message import streamed
from sidelight.logger._open_inference import (
    ModelInferRequest,
    ModelInferResponse,
    ModelStreamInferResponse,
)
from sidelight.logger.errors import TensorError

_MEDIA: Final = frozenset(
    {
        "application/protobuf",
        "application/x-protobuf",
        "application/vnd.google.protobuf",
        "application/grpc",
        "application/grpc+proto",
    }
)
# What a caller says of protobuf says nothing: these are other people's messages.
_FOREIGN: Final = frozenset({"seldon", "tensorflow"})
_PROTOCOLS: Final = frozenset({"v2", "kfserving", "oip"})
_JSON_STARTS: Final = (b"{", b"[")

# The field of a tensor's typed contents that the protocol names, then what servers write instead:
# Seldon's gateway widens half floats, MLServer puts them into bytes.
_CONTENTS: Final[dict[str, tuple[str, ...]]] = {
    "BOOL": ("bool_contents",),
    "BYTES": ("bytes_contents",),
    "FP16": ("fp32_contents",),
    "BF16": ("fp32_contents",),
    "FP32": ("fp32_contents", "fp64_contents"),
    "FP64": ("fp64_contents", "fp32_contents"),
    **dict.fromkeys(("INT8", "INT16", "INT32"), ("int_contents", "int64_contents")),
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), ("uint_contents", "uint64_contents")),
    "INT64": ("int64_contents", "int_contents"),
    "UINT64": ("uint64_contents", "uint_contents"),
}
_TRUE: Final = ("true", "True")
_NO_OUTPUTS: Final = Layout("v2-grpc")
# 0x00 and four bytes of a schema's id: the framing of schema registries on Kafka.
_REGISTRY_HEAD: Final = 5


class OpenInferenceMessages:
    """V2 requests and responses as protobuf."""

    def claims(self, data: bytes, *, media: str, protocol: str) -> bool:
        """Whether a body is read as one of these messages.

        Parameters
        ----------
        data : bytes
            The body, not compressed.
        media : str
            Content type without parameters, lower case; "" when there was none.
        protocol : str
            What the event says (``ce-protocol``); "" when it says nothing.

        """
        # A sender that copies the content type of the other half may call JSON protobuf.
        if protocol in _FOREIGN or data[:1] in _JSON_STARTS:
            return False
        return protocol in _PROTOCOLS or media in _MEDIA

    def decode(self, data: bytes, side: Side, *, max_inflated_bytes: int = 64 << 20) -> Half:
        """Read one message, or the frames of a streamed answer as one table.

        Raises
        ------
        Undecodable
            When it is no such message or contradicts itself.

        """
        halves = [_half(message, side) for message in _messages(data, max_bytes=max_inflated_bytes)]
        if not halves:
            raise Undecodable("not_protobuf")
        return halves[0] if len(halves) == 1 else _joined(halves)


def _messages(data: bytes, *, max_bytes: int) -> Iterator[bytes]:
    """Take off the framing: field number zero does not exist, so no message begins with 0 or 1."""
    if data[:1] not in (b"\x00", b"\x01"):
        return iter((data,))
    try:
        parts = list(frames(data))
    except ValueError:
        return iter((_without_schema(data),))
    return _all_inflated(parts, max_bytes)


def _all_inflated(parts: Sequence[Frame], max_bytes: int) -> Iterator[bytes]:
    # The bound is that of the body: a thousand small frames must not each inflate to it.
    left = max_bytes
    for part in parts:
        message = _inflated(part, left)
        left -= len(message) if part.is_compressed else 0
        yield message


def _inflated(part: Frame, max_bytes: int) -> bytes:
    if not part.is_compressed:
        return part.message
    # The frame does not say how; gzip is known by its magic, and zlib is what else gRPC has.
    coding = "gzip" if part.message[:2] == b"\x1f\x8b" else "deflate"
    try:
        return inflate(part.message, coding, max_bytes=max_bytes)
    except InflateError as error:
        raise Undecodable(f"encoding_{error.reason}") from None


def _without_schema(data: bytes) -> bytes:
    """Take off a registry's head: the id, then the place of the message in its file."""
    if data[0] == 0 and len(data) > _REGISTRY_HEAD:
        # A count and as many places, zigzag numbers of one byte each; 0 stands for one place, 0.
        count = data[_REGISTRY_HEAD] // 2
        if count < len(data):
            return data[_REGISTRY_HEAD + 1 + count :]
    raise Undecodable("not_protobuf")


def _half(message: bytes, side: Side) -> Half:
    # A chained step is asked with the outputs of the one before it.
    other: Side = "response" if side == "request" else "request"
    try:
        return _read(message, side)
    except Undecodable as error:
        try:
            return _read(message, other)
        except Undecodable:
            raise error from None


def _read(message: bytes, side: Side) -> Half:
    try:
        if side == "request":
            body = ModelInferRequest.FromString(message)
            return _table(body, body.inputs, body.raw_input_contents)
        answer = streamed(message)
        if answer.is_error:
            return failed(ModelStreamInferResponse.FromString(message).error_message)
        body = ModelInferResponse.FromString(answer.message)
        if _is_empty(body, answer.message):
            return Half(_NO_OUTPUTS, 1, (), {**_facts(body), "empty": True})
        return _table(body, body.outputs, body.raw_output_contents)
    except DecodeError:
        raise Undecodable("not_protobuf") from None


def _table(body: Any, tensors: Sequence[Any], raw: Sequence[bytes]) -> Half:
    if not tensors:
        raise Undecodable("no_tensors")
    facts = _facts(body)
    if any(_is_true(item.parameters.get("bias_ignore")) for item in (body, *tensors)):
        facts["synthetic"] = True
    content_type = _text(body.parameters.get("content_type"))
    extra = () if content_type is None else (("content_type", content_type),)
    chunks = _chunks(tensors, raw)
    read = [_tensor(tensor, chunk) for tensor, chunk in zip(tensors, chunks, strict=True)]
    return table("v2-grpc", read, facts, extra)


def _facts(body: Any) -> dict[str, Any]:
    named = {"model": body.model_name, "version": body.model_version, "id": body.id}
    return {name: value for name, value in named.items() if value}


def _is_empty(body: Any, message: bytes) -> bool:
    """Return whether an answer has no outputs, as a detector's until it has seen enough.

    Other people's messages may look like the beginning of one; they have fields that it has not.
    """
    is_named = bool(body.model_name) and (body.id or body.model_version or body.parameters)
    return bool(is_named) and not body.outputs and body.ByteSize() == len(message) and _is_all(body)


def _is_all(body: Any) -> bool:
    known = type(body)()
    known.MergeFrom(body)
    known.DiscardUnknownFields()
    return bool(known.ByteSize() == body.ByteSize())


def _chunks(tensors: Sequence[Any], raw: Sequence[bytes]) -> list[bytes | None]:
    """Return the raw contents of each tensor, None where they are typed.

    The protocol forbids a mix; MLServer takes one, and then raw contents are of the tensors that
    have no others.
    """
    if len(raw) == len(tensors):
        return [
            None if not chunk and tensor.HasField("contents") else chunk
            for tensor, chunk in zip(tensors, raw, strict=True)
        ]
    rest = iter(raw)
    chunks = [None if tensor.HasField("contents") else next(rest, None) for tensor in tensors]
    if next(rest, None) is not None:
        raise Undecodable("shape")
    return chunks


def _tensor(tensor: Any, chunk: bytes | None) -> RawTensor:
    datatype = tensor.datatype
    if datatype not in DATATYPES:
        raise Undecodable("datatype")
    shape = tuple(tensor.shape)
    if len(shape) > MAX_RANK or any(size < 0 for size in shape):
        raise Undecodable("shape")
    count = prod(shape)
    try:
        data = (
            _typed(datatype, tensor.contents) if chunk is None else elements(datatype, chunk, count)
        )
    except TensorError:
        raise Undecodable("shape") from None
    if len(data) != count:
        raise Undecodable("shape")
    return RawTensor(
        tensor.name or None,
        datatype,
        shape,
        texts(data) if datatype == "BYTES" else data,
        nested=False,
        content_type=_text(tensor.parameters.get("content_type")),
    )


def _typed(datatype: str, contents: Any) -> list[Any]:
    for field in _CONTENTS[datatype]:
        if values := getattr(contents, field):
            return list(values)
    if datatype != "BYTES" and contents.bytes_contents:
        return elements(datatype, b"".join(contents.bytes_contents))
    return []


def texts(values: list[bytes]) -> list[str]:
    """Return the elements of a BYTES tensor: text as it is, all in base64 when one is no text."""
    try:
        return [value.decode() for value in values]
    except UnicodeDecodeError:
        return [base64.b64encode(value).decode("ascii") for value in values]


def _text(parameter: Any) -> str | None:
    if parameter is None or parameter.WhichOneof("parameter_choice") != "string_param":
        return None
    return str(parameter.string_param)


def _is_true(parameter: Any) -> bool:
    return parameter is not None and (parameter.bool_param or parameter.string_param in _TRUE)


def _joined(halves: list[Half]) -> Half:
    """Return the rows of several answers to one request as those of one."""
    first = halves[0]
    if first.layout.whole or any(half.layout is not first.layout for half in halves):
        raise Undecodable("frames")
    full = [half for half in halves if "empty" not in half.facts]
    if not full:
        return first
    return Half(
        first.layout,
        sum(half.rows for half in full),
        tuple(
            list(chain.from_iterable(half.values[place] for half in full))
            for place in range(len(first.layout.tensors))
        ),
        {key: value for key, value in first.facts.items() if key != "empty"},
    )
