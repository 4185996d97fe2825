"""Seldon Core 1 over gRPC: the messages, brought into the form of their JSON."""

import base64
from collections.abc import Callable
from typing import Any, Final

from google.protobuf.message import DecodeError

from sidelight.adapters.dialects._half import Half, Undecodable
from sidelight.adapters.dialects._messages import Feedback, SeldonMessage
from sidelight.adapters.dialects._seldon import seldon_message

_DATA: Final = "data_oneof"


def seldon_protobuf(data: bytes) -> Half:
    """Read a ``SeldonMessage``.

    Raises
    ------
    Undecodable
        When it is none, or holds no data.

    """
    try:
        message = SeldonMessage.FromString(data)
    except DecodeError:
        raise Undecodable("not_protobuf") from None
    return seldon_message(_body(message), "seldon-proto")


def feedback_body(data: bytes) -> dict[str, Any]:
    """Return a ``Feedback`` in the form of its JSON.

    Raises
    ------
    Undecodable
        When it is none.

    """
    try:
        message = Feedback.FromString(data)
    except DecodeError:
        raise Undecodable("not_protobuf") from None
    body: dict[str, Any] = {"reward": message.reward} if message.reward else {}
    for field in ("request", "response", "truth"):
        if message.HasField(field):
            body[field] = _body(getattr(message, field))
    return body


def _body(message: Any) -> dict[str, Any]:
    body: dict[str, Any] = {}
    if message.HasField("status"):
        status = message.status
        body["status"] = {
            "code": status.code,
            "info": status.info,
            "reason": status.reason,
            "status": status.status,
        }
    if message.HasField("meta"):
        meta = message.meta
        body["meta"] = {
            "puid": meta.puid,
            "tags": {name: _plain(value) for name, value in meta.tags.items()},
            "routing": dict(meta.routing),
        }
    if kind := message.WhichOneof(_DATA):
        body[kind] = _READERS[kind](getattr(message, kind))
    return body


def _default_data(data: Any) -> dict[str, Any]:
    body: dict[str, Any] = {"names": list(data.names)}
    match data.WhichOneof(_DATA):
        case "tensor":
            tensor = data.tensor
            body["tensor"] = {"shape": list(tensor.shape), "values": list(tensor.values)}
        case "ndarray":
            body["ndarray"] = [_plain(value) for value in data.ndarray.values]
        case "tftensor":
            body["tftensor"] = data.tftensor
    return body


def _plain(value: Any) -> Any:
    """Return a ``google.protobuf.Value``; the parser bounds how deep they nest."""
    kind = value.WhichOneof("kind")
    if kind == "list_value":
        return [_plain(item) for item in value.list_value.values]
    if kind == "struct_value":
        return {name: _plain(item) for name, item in value.struct_value.fields.items()}
    return None if kind in {None, "null_value"} else getattr(value, kind)


def _encoded(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")


_READERS: Final[dict[str, Callable[[Any], Any]]] = {
    "data": _default_data,
    "binData": _encoded,
    "strData": str,
    "jsonData": _plain,
    "customData": lambda value: {"@type": value.type_url, "value": _encoded(value.value)},
}
