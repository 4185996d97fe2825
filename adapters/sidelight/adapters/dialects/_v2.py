"""Open Inference Protocol (KServe V2), JSON form, as MLServer, Triton and KServe write it.

Reference: kserve/open-inference-protocol, specification/protocol/inference_rest.md.
"""

import base64
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any, Final

from sidelight.adapters.dialects._half import Half, Side, Undecodable
from sidelight.adapters.dialects._tables import MAX_RANK, RawTensor, flattened, table
from sidelight.logger._binary_tensors import decode as elements
from sidelight.logger.errors import TensorError

DATATYPES: Final = frozenset(
    {"BOOL", "BYTES", "BF16", "FP16", "FP32", "FP64"}
    | {f"{sign}INT{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64)}
)
_KEYS: Final[dict[Side, tuple[str, str]]] = {
    # A chained step is asked with the outputs of the one before it.
    "request": ("inputs", "outputs"),
    "response": ("outputs", "inputs"),
}
_FACTS: Final = (("model_name", "model"), ("model_version", "version"), ("id", "id"))
_IGNORED: Final = (True, "true", "True")


class OpenInference:
    """V2 requests (``inputs``) and responses (``outputs``)."""

    def claims(self, body: dict[str, Any], side: Side) -> bool:
        """Whether one of the two is a list of objects with name, shape and datatype."""
        return _key(body, side) is not None

    def decode(self, body: dict[str, Any], side: Side) -> Half:
        """Read flat or nested data by the declared shape, which always wins."""
        return open_inference(body, side)


def open_inference(
    body: dict[str, Any],
    side: Side,
    chunks: Mapping[str, Sequence[bytes | None]] | None = None,
    *,
    protocol: str = "v2-json",
) -> Half:
    """Read a V2 object.

    Parameters
    ----------
    body : dict
        The JSON object.
    side : "request" or "response"
        Which half it is.
    chunks : mapping of str to sequence of (bytes or None), optional
        For ``inputs`` or ``outputs``: the bytes of each tensor whose data do not stand in the
        object.
    protocol : str, default "v2-json"
        Of the layout.

    Raises
    ------
    Undecodable
        When it has no tensors or contradicts itself.

    """
    key = _key(body, side)
    if key is None:
        raise Undecodable("no_tensors")
    items = body[key]
    facts: dict[str, Any] = {}
    for member, fact in _FACTS:
        if (said := body.get(member)) and isinstance(said, str):
            facts[fact] = said
    extra: tuple[tuple[str, str], ...] = ()
    if type(parameters := body.get("parameters")) is dict:
        if parameters.get("bias_ignore") in _IGNORED:
            facts["synthetic"] = True
        if isinstance(content_type := parameters.get("content_type"), str):
            extra = (("content_type", content_type),)
    raw = chunks.get(key) if chunks else None
    if raw is None:
        tensors = [_tensor(item, None, facts) for item in items]
    else:
        tensors = [_tensor(item, chunk, facts) for item, chunk in zip(items, raw, strict=True)]
    return table(protocol, tensors, facts, extra)


def _key(body: dict[str, Any], side: Side) -> str | None:
    for key in _KEYS[side]:
        items = body.get(key)
        if type(items) is list and items:
            first = items[0]
            if type(first) is dict and "shape" in first and "datatype" in first:
                return key
    return None


def _tensor(item: Any, chunk: bytes | None, facts: dict[str, Any]) -> RawTensor:
    if type(item) is not dict or "shape" not in item or "datatype" not in item:
        raise Undecodable("shape")
    shape = _shape(item["shape"])
    datatype = item["datatype"]
    if type(datatype) is not str or datatype not in DATATYPES:
        raise Undecodable("datatype")
    nested = False
    if chunk is not None:
        data = _elements(datatype, chunk, shape)
    elif "data" in item:
        data = item["data"]
        if type(data) is not list:
            data = [data]
        elif data and type(data[0]) is list:
            data, nested = flattened(data)
    else:
        raise Undecodable("binary_tensor" if "parameters" in item else "shape")
    if len(data) != prod(shape):
        raise Undecodable("shape")
    name = item.get("name")
    content_type = None
    if type(parameters := item.get("parameters")) is dict:
        content_type = parameters.get("content_type")
        if parameters.get("bias_ignore") in _IGNORED:
            facts["synthetic"] = True
    return RawTensor(
        name if type(name) is str and name else None,
        datatype,
        shape,
        data,
        nested,
        content_type if type(content_type) is str else None,
    )


def _elements(datatype: str, chunk: bytes, shape: tuple[int, ...]) -> list[Any]:
    try:
        data = elements(datatype, chunk, prod(shape))
    except TensorError:
        raise Undecodable("shape") from None
    return texts(data) if datatype == "BYTES" else data


def texts(values: list[bytes]) -> list[str]:
    """Return the elements of a BYTES tensor: text as it is, all in base64 when one is no text."""
    try:
        return [value.decode() for value in values]
    except UnicodeDecodeError:
        return [base64.b64encode(value).decode("ascii") for value in values]


def _shape(value: Any) -> tuple[int, ...]:
    if type(value) is not list or len(value) > MAX_RANK:
        raise Undecodable("shape")
    for size in value:
        if type(size) is not int or size < 0:
            raise Undecodable("shape")
    return tuple(value)
