"""TF-Serving over gRPC: predict requests and answers, as Seldon's executor logs them."""

from typing import Any

from google.protobuf.message import DecodeError

from sidelight.adapters.dialects._half import Half, Side, Undecodable
from sidelight.adapters.dialects._messages import PredictRequest, PredictResponse
from sidelight.adapters.dialects._tables import table
from sidelight.adapters.dialects._tensor_proto import of_message


def predict(data: bytes, side: Side) -> Half:
    """Read one message; tensors stand by name, in the order of their names.

    Raises
    ------
    Undecodable
        When it is none, or has no tensors.

    """
    try:
        if side == "request":
            message = PredictRequest.FromString(data)
            tensors = message.inputs
        else:
            message = PredictResponse.FromString(data)
            tensors = message.outputs
    except DecodeError:
        raise Undecodable("not_protobuf") from None
    if not tensors:
        raise Undecodable("no_tensors")
    facts: dict[str, Any] = {}
    spec = message.model_spec
    if spec.name:
        facts["model"] = spec.name
    if spec.version.value:
        facts["version"] = str(spec.version.value)
    extra = (("signature_name", spec.signature_name),) if spec.signature_name else ()
    # A map has no order on the wire, and a table must have the same columns every time.
    read = [of_message(name, tensors[name]) for name in sorted(tensors)]
    return table("tf-grpc", read, facts, extra)
