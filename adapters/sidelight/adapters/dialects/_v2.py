"""Open Inference Protocol (KServe V2), JSON form, as MLServer, Triton and KServe write it.

Reference: kserve/open-inference-protocol, specification/protocol/inference_rest.md.
"""

from math import prod
from typing import Any, Final

from sidelight.adapters.dialects._half import Half, Side, Undecodable
from sidelight.adapters.dialects._tables import MAX_RANK, RawTensor, flattened, table

DATATYPES: Final = frozenset(
    {"BOOL", "BYTES", "BF16", "FP16", "FP32", "FP64"}
    | {f"{sign}INT{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64)}
)
_KEYS: Final[dict[Side, tuple[str, str]]] = {
    # A chained step is asked with the outputs of the one before it.
    "request": ("inputs", "outputs"),
    "response": ("outputs", "inputs"),
}
_IGNORED: Final = (True, "true", "True")


class OpenInference:
    """V2 requests (``inputs``) and responses (``outputs``)."""

    def claims(self, body: dict[str, Any], side: Side) -> bool:
        """Whether one of the two is a list of objects with name, shape and datatype."""
        return _tensors(body, side) is not None

    def decode(self, body: dict[str, Any], side: Side) -> Half:
        """Read flat or nested data by the declared shape, which always wins."""
        items = _tensors(body, side) or []
        facts: dict[str, Any] = {}
        if (version := body.get("model_version")) and isinstance(version, str):
            facts["version"] = version
        if (payload_id := body.get("id")) and isinstance(payload_id, str):
            facts["id"] = payload_id
        extra: tuple[tuple[str, str], ...] = ()
        parameters = body.get("parameters")
        if isinstance(parameters, dict):
            if parameters.get("bias_ignore") in _IGNORED:
                facts["synthetic"] = True
            if isinstance(content_type := parameters.get("content_type"), str):
                extra = (("content_type", content_type),)
        return table("v2-json", [_tensor(item) for item in items], facts, extra)


def _tensors(body: dict[str, Any], side: Side) -> list[Any] | None:
    for key in _KEYS[side]:
        items = body.get(key)
        if type(items) is list and items:
            first = items[0]
            if type(first) is dict and "shape" in first and "datatype" in first:
                return items
    return None


def _tensor(item: Any) -> RawTensor:
    if type(item) is not dict or "shape" not in item or "datatype" not in item:
        raise Undecodable("shape")
    shape = _shape(item["shape"])
    datatype = item["datatype"]
    if type(datatype) is not str or datatype not in DATATYPES:
        raise Undecodable("datatype")
    if "data" not in item:
        raise Undecodable("binary_tensor" if "parameters" in item else "shape")
    data = item["data"]
    nested = False
    if type(data) is not list:
        data = [data]
    elif data and type(data[0]) is list:
        data, nested = flattened(data)
    if len(data) != prod(shape):
        raise Undecodable("shape")
    name = item.get("name")
    content_type = None
    if type(parameters := item.get("parameters")) is dict:
        content_type = parameters.get("content_type")
    return RawTensor(
        name if type(name) is str and name else None,
        datatype,
        shape,
        data,
        nested,
        content_type if type(content_type) is str else None,
    )


def _shape(value: Any) -> tuple[int, ...]:
    if type(value) is not list or len(value) > MAX_RANK:
        raise Undecodable("shape")
    for size in value:
        if type(size) is not int or size < 0:
            raise Undecodable("shape")
    return tuple(value)
