"""Redaction of V2 tensors, which stay valid: shape, count and datatype agree afterwards as well."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple

from sidelight.logger._binary_tensors import BinaryBody, count_of, decode, encode
from sidelight.logger._json_path import DROPPED
from sidelight.logger._redaction_rule import RedactionRule, matching_places
from sidelight.logger._redaction_values import Pseudonyms, as_text, change_of
from sidelight.logger.errors import RedactionError, TensorError

FLOATS: Final = frozenset({"FP16", "BF16", "FP32", "FP64"})
_INTEGERS: Final = {
    **{f"INT{bits}": (-(1 << bits - 1), (1 << bits - 1) - 1) for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": (0, (1 << bits) - 1) for bits in (8, 16, 32, 64)},
}
BYTES: Final = "BYTES"
_MATRIX: Final = 2
_VALUES: Final = frozenset({"data", "shape", "datatype", "contents"})
_MEMBERS: Final = frozenset({"name", "shape", "datatype", "parameters", "data"})


class Tensor(NamedTuple):
    """A tensor that is being redacted; ``items`` are row-major, None where a value was taken.

    ``is_base64`` says that its texts stand for bytes.
    """

    datatype: str
    items: list[Any]
    is_base64: bool = False


def is_tensor(item: Any) -> bool:
    """Whether a member of a list is a V2 tensor."""
    return isinstance(item, dict) and "shape" in item and "datatype" in item


def is_like_tensor(item: Any) -> bool:
    """Whether it may be meant for a V2 tensor, by servers that ask for less than the protocol."""
    return isinstance(item, dict) and (
        is_tensor(item) or ("name" in item and not item.keys().isdisjoint(_VALUES))
    )


def places_of(rule: RedactionRule, name: str, shape: Sequence[int]) -> slice | tuple[int, ...]:
    """Return which columns of a tensor a rule is about: all as a slice, some as their numbers."""
    if rule.names(name):
        return slice(None)
    if rule.column is None or len(shape) != _MATRIX:
        return ()
    return matching_places(rule, f"{name}_", shape[1])


def redact_tensor(
    tensor: Tensor,
    places: slice | tuple[int, ...],
    n_columns: int,
    rule: RedactionRule,
    pseudonyms: Pseudonyms | None,
) -> Tensor | None:
    """Return a tensor without what the rule is about; None when it is to go as a whole."""
    if rule.action == "drop" and isinstance(places, slice):
        return None
    change = change_of(rule, pseudonyms, tensor.datatype)
    is_hashed = rule.action == "hmac"
    items = list(tensor.items)
    numbers = range(len(items))
    chosen = (
        numbers
        if isinstance(places, slice)
        else [number for place in places for number in numbers[place::n_columns]]
    )
    for number in chosen:
        item = items[number]
        # Equal bytes are hashed alike whether they came in base64 or not.
        changed = change({"b64": item} if tensor.is_base64 and is_hashed else item)
        items[number] = None if changed is DROPPED else changed
    return settled(tensor.datatype, items)


def settled(datatype: str, items: list[Any]) -> Tensor:
    """Return the tensor in the narrowest datatype that holds what its items have become."""
    if datatype == BYTES:
        return Tensor(BYTES, [_text(item, "") for item in items])
    if any(isinstance(item, (str, bytes, list, dict)) for item in items):
        return Tensor(BYTES, [_text(item, datatype) for item in items])
    limits = _INTEGERS.get(datatype)
    if limits is not None and not all(item is None or _fits(item, limits) for item in items):
        return Tensor("FP64", items)
    return Tensor(datatype, items)


def redact_json_tensors(
    items: list[Any], rule: RedactionRule, pseudonyms: Pseudonyms | None
) -> list[Any]:
    """Return V2 tensors whose values stand in JSON, redacted.

    Raises
    ------
    RedactionError
        When one contradicts itself.

    """
    kept = []
    for item in items:
        if not is_tensor(item) or not isinstance(item["datatype"], str):
            raise RedactionError("unknown")
        name, shape = _name(item), item["shape"]
        places = places_of(rule, name, _checked(shape))
        if places == ():
            kept.append(item)
            continue
        if not item.keys() <= _MEMBERS:
            # Whoever writes it otherwise may have its values anywhere.
            raise RedactionError("unknown")
        redacted = None
        if "data" in item:
            values = _flat(item["data"])
            if len(values) != count_of(shape):
                raise RedactionError("unknown")
            tensor = Tensor(item["datatype"], values, _is_base64(item))
            redacted = redact_tensor(tensor, places, _width(shape), rule, pseudonyms)
            if redacted is None:
                continue
            changed = {**item, "datatype": redacted.datatype, "data": redacted.items}
            kept.append(_without_codec(changed) if redacted.datatype == BYTES else changed)
        elif rule.action != "drop":
            # Values that are elsewhere, in shared memory.
            kept.append(item)
    return kept


def redact_binary(
    body: BinaryBody, rules: Sequence[RedactionRule], pseudonyms: Pseudonyms | None
) -> BinaryBody:
    """Return a body of the binary extension, redacted.

    Bytes stay bytes where the datatype can say what became of the values: a value that was taken
    is NaN among floats and empty among ``BYTES``; among integers it is null, and the tensor moves
    into the JSON.

    Raises
    ------
    RedactionError, TensorError
        When one contradicts itself.

    """
    items = body.head.get(body.key) or []
    kept: list[tuple[Any, bytes | None]] = []
    for given, given_chunk in zip(items, body.chunks, strict=True):
        item, chunk = given, given_chunk
        is_kept = True
        for rule in rules:
            if chunk is None:
                left = redact_json_tensors([item], rule, pseudonyms)
                is_kept = bool(left)
                item = left[0] if left else item
            else:
                found = _redacted_chunk(item, chunk, rule, pseudonyms)
                is_kept = found is not None
                item, chunk = found or (item, chunk)
            if not is_kept:
                break
        if is_kept:
            kept.append((item, chunk))
    head = {**body.head, body.key: [item for item, _ in kept]} if items else body.head
    return replace(body, head=head, chunks=tuple(chunk for _, chunk in kept))


def with_values(body: BinaryBody) -> dict[str, Any]:
    """Return the JSON object with the values of all tensors in it.

    Raises
    ------
    TensorError
        When the bytes of a tensor are not what it says.

    """
    items = []
    for item, chunk in zip(body.head.get(body.key) or [], body.chunks, strict=True):
        if chunk is None:
            items.append(item)
            continue
        values = decode(str(item.get("datatype")), chunk, count_of(item.get("shape")))
        texts = [value.decode() if isinstance(value, bytes) else value for value in values]
        items.append({**_without_size(item), "data": texts})
    return {**body.head, body.key: items} if items else dict(body.head)


def encoded(tensor: Tensor) -> bytes | None:
    """Return the bytes of a tensor; None when its datatype has none for a value that was taken."""
    if None not in tensor.items:
        return encode(tensor.datatype, tensor.items)
    if tensor.datatype in FLOATS:
        return encode(
            tensor.datatype, [math.nan if item is None else item for item in tensor.items]
        )
    if tensor.datatype == BYTES:
        return encode(BYTES, ["" if item is None else item for item in tensor.items])
    return None


def _redacted_chunk(
    item: Any, chunk: bytes, rule: RedactionRule, pseudonyms: Pseudonyms | None
) -> tuple[Any, bytes | None] | None:
    if not is_tensor(item) or not isinstance(item["datatype"], str):
        raise RedactionError("unknown")
    shape = item["shape"]
    places = places_of(rule, _name(item), _checked(shape))
    if places == ():
        return item, chunk
    tensor = Tensor(item["datatype"], decode(item["datatype"], chunk, count_of(shape)))
    redacted = redact_tensor(tensor, places, _width(shape), rule, pseudonyms)
    if redacted is None:
        return None
    item = {**item, "datatype": redacted.datatype}
    if redacted.datatype == BYTES:
        item = _without_codec(item)
    data = encoded(redacted)
    if data is None:
        return {**_without_size(item), "data": redacted.items}, None
    return item, data


def _checked(shape: Any) -> Sequence[int]:
    try:
        count_of(shape)
    except TensorError:
        raise RedactionError("unknown") from None
    sizes: Sequence[int] = shape
    return sizes


def _width(shape: Sequence[int]) -> int:
    return shape[1] if len(shape) == _MATRIX else 1


def _name(item: dict[str, Any]) -> str:
    name = item.get("name")
    if not isinstance(name, str) or not name:
        # The model may take it by its place for the one that a rule names.
        raise RedactionError("unknown")
    return name


def _flat(data: Any) -> list[Any]:
    items: list[Any] = data if isinstance(data, list) else [data]
    while any(isinstance(item, list) for item in items):
        items = [value for item in items for value in (item if isinstance(item, list) else [item])]
    return items


def _is_base64(item: dict[str, Any]) -> bool:
    parameters = item.get("parameters")
    return isinstance(parameters, dict) and parameters.get("content_type") == "base64"


def _without_size(item: dict[str, Any]) -> dict[str, Any]:
    parameters = dict(item.get("parameters") or {})
    parameters.pop("binary_data_size", None)
    rest = {key: value for key, value in item.items() if key != "parameters"}
    return {**rest, "parameters": parameters} if parameters else rest


def _without_codec(item: dict[str, Any]) -> dict[str, Any]:
    """Have MLServer's ``content_type`` say text: not all values are what it said any more."""
    parameters = item.get("parameters")
    if not isinstance(parameters, dict) or "content_type" not in parameters:
        return item
    return {**item, "parameters": {**parameters, "content_type": "str"}}


def _fits(item: Any, limits: tuple[int, int]) -> bool:
    return item == item // 1 and limits[0] <= item <= limits[1] and not isinstance(item, float)


def _text(item: Any, datatype: str) -> Any:
    if isinstance(item, (list, dict)):
        raise RedactionError("unknown")
    return as_text(item, datatype)
