"""Redaction of Open Inference Protocol messages of gRPC, bare or in frames."""

import math
from collections.abc import Sequence
from typing import Any, Final

from google.protobuf.message import DecodeError

from sidelight.logger._binary_tensors import count_of, decode
from sidelight.logger._envelope_inflate import inflate
from sidelight.logger._grpc_frames import Frame, frame, frames
from sidelight.logger._open_inference import (
    ModelInferRequest,
    ModelInferResponse,
    ModelStreamInferResponse,
)
from sidelight.logger._redaction_rule import Half, RedactionRule
from sidelight.logger._redaction_tensors import (
    BYTES,
    Tensor,
    encoded,
    places_of,
    redact_tensor,
)
from sidelight.logger._redaction_values import Pseudonyms, number_text
from sidelight.logger.errors import RedactionError

# The field of the typed contents for each datatype, then what servers write instead.
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
_EXACT: Final = 1 << 53


def redact_messages(
    data: bytes,
    half: Half,
    rules: Sequence[RedactionRule],
    pseudonyms: Pseudonyms | None,
    *,
    max_inflated_bytes: int,
) -> bytes:
    """Return a body without what the rules are about.

    Values that were taken are NaN among floats and empty among ``BYTES``. Protobuf has no null:
    integers become ``FP64`` where that holds them exactly, and decimal text otherwise.

    Raises
    ------
    RedactionError, TensorError
        When it holds no such message, or one that contradicts itself.

    """
    # Field number zero does not exist, so no message begins with 0 or 1.
    if data[:1] not in (b"\x00", b"\x01"):
        return _redacted(data, half, rules, pseudonyms)
    try:
        parts = [_inflated(part, max_inflated_bytes) for part in frames(data)]
    except ValueError:
        raise RedactionError("unreadable") from None
    return b"".join(frame(_redacted(part, half, rules, pseudonyms)) for part in parts)


def _inflated(part: Frame, max_bytes: int) -> bytes:
    if not part.is_compressed:
        return part.message
    coding = "gzip" if part.message[:2] == b"\x1f\x8b" else "deflate"
    return inflate(part.message, coding, max_bytes=max_bytes)


def _redacted(
    data: bytes, half: Half, rules: Sequence[RedactionRule], pseudonyms: Pseudonyms | None
) -> bytes:
    if not data:
        return data
    try:
        message, body = _parsed(data, half)
    except DecodeError:
        raise RedactionError("unreadable") from None
    tensors, raw = (
        (body.inputs, body.raw_input_contents)
        if half == "request"
        else (body.outputs, body.raw_output_contents)
    )
    chunks = _chunks(tensors, raw)
    kept: list[tuple[Any, bytes | None]] = []
    for tensor, given in zip(tensors, chunks, strict=True):
        chunk = given
        for rule in rules:
            left = _without(tensor, chunk, rule, pseudonyms)
            if left is None:
                break
            chunk = left[0]
        else:
            kept.append((tensor, chunk))
    kept_tensors = [type(tensor).FromString(tensor.SerializeToString()) for tensor, _ in kept]
    del tensors[:]
    del raw[:]
    tensors.extend(kept_tensors)
    raw.extend(chunk for _, chunk in kept if chunk is not None)
    # What is not known here may hold anything.
    message.DiscardUnknownFields()
    return bytes(message.SerializeToString())


def _parsed(data: bytes, half: Half) -> tuple[Any, Any]:
    """Return the whole message, and the part of it that has the tensors."""
    if half == "request":
        message = ModelInferRequest.FromString(data)
        if message.inputs:
            return message, message
        raise RedactionError("unknown")
    message = ModelInferResponse.FromString(data)
    if message.outputs:
        return message, message
    streamed = ModelStreamInferResponse.FromString(data)
    if streamed.error_message or not streamed.infer_response.outputs:
        raise RedactionError("unknown")
    return streamed, streamed.infer_response


def _chunks(tensors: Sequence[Any], raw: Sequence[bytes]) -> list[bytes | None]:
    """Return the raw contents of each tensor, None where they are typed."""
    if len(raw) == len(tensors):
        return [
            None if not chunk and tensor.HasField("contents") else chunk
            for tensor, chunk in zip(tensors, raw, strict=True)
        ]
    rest = iter(raw)
    chunks = [None if tensor.HasField("contents") else next(rest, None) for tensor in tensors]
    if next(rest, None) is not None:
        raise RedactionError("unknown")
    return chunks


def _without(
    tensor: Any, chunk: bytes | None, rule: RedactionRule, pseudonyms: Pseudonyms | None
) -> tuple[bytes | None] | None:
    """Redact one tensor in place; return its raw contents, nothing at all when it is to go."""
    if not tensor.name:
        raise RedactionError("unknown")  # the model may take it by its place
    shape = list(tensor.shape)
    places = places_of(rule, tensor.name, shape)
    if places == ():
        return (chunk,)
    count = count_of(shape)
    items = (
        _typed(tensor.datatype, tensor.contents)
        if chunk is None
        else decode(tensor.datatype, chunk, count)
    )
    if len(items) != count:
        raise RedactionError("unknown")
    width = shape[1] if len(shape) > 1 else 1
    redacted = redact_tensor(Tensor(tensor.datatype, items), places, width, rule, pseudonyms)
    if redacted is None:
        return None
    redacted = _without_null(redacted)
    if redacted.datatype == BYTES and "content_type" in tensor.parameters:
        tensor.parameters["content_type"].string_param = "str"
    tensor.datatype = redacted.datatype
    tensor.ClearField("contents")
    if chunk is not None:
        return (encoded(redacted),)
    contents = getattr(tensor.contents, _CONTENTS[redacted.datatype][0])
    contents.extend(_as_bytes(item) for item in redacted.items)
    return (None,)


def _typed(datatype: str, contents: Any) -> list[Any]:
    filled = [field.name for field, _ in contents.ListFields()]
    allowed = [name for name in filled if name in _CONTENTS.get(datatype, ())]
    if filled != allowed or len(filled) > 1:
        raise RedactionError("unknown")
    return list(getattr(contents, filled[0])) if filled else []


def _without_null(tensor: Tensor) -> Tensor:
    if None not in tensor.items:
        return tensor
    if tensor.datatype == BYTES:
        return Tensor(BYTES, ["" if item is None else item for item in tensor.items])
    if all(item is None or abs(item) <= _EXACT for item in tensor.items):
        datatype = tensor.datatype if encoded(tensor) is not None else "FP64"
        return Tensor(datatype, [math.nan if item is None else item for item in tensor.items])
    texts = ["" if item is None else number_text(item, tensor.datatype) for item in tensor.items]
    return Tensor(BYTES, texts)


def _as_bytes(item: Any) -> Any:
    return item.encode() if isinstance(item, str) else item
