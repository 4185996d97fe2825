"""The binary tensor extension of V2: a JSON object, and the bytes of tensors behind it."""

from sidelight.adapters.dialects._half import Half, Side, Undecodable
from sidelight.adapters.dialects._lenient_json import sound_value
from sidelight.adapters.dialects._v2 import open_inference
from sidelight.logger._binary_tensors import split
from sidelight.logger.errors import TensorError


def binary_tensors(data: bytes, side: Side, head_bytes: int | None) -> Half:
    """Read such a body.

    Parameters
    ----------
    data : bytes
        The whole body.
    side : "request" or "response"
        Which half it is.
    head_bytes : int or None
        What ``Inference-Header-Content-Length`` says. Where that is not this body's, or was
        lost, the leading JSON value is looked for.

    Raises
    ------
    Undecodable
        When it is none, or the sizes contradict each other.

    """
    try:
        body = split(data, head_bytes)
    except TensorError:
        if head_bytes is None:
            raise Undecodable("binary_tensor") from None
        # KServe's agent repeats the request's header on the response event.
        return binary_tensors(data, side, None)
    if not any(chunk is not None for chunk in body.chunks):
        raise Undecodable("binary_tensor")
    # Halves of surrogate pairs pass a lenient parser alone.
    head = body.head if body.is_strict else sound_value(body.head)
    return open_inference(head, side, {body.key: body.chunks}, protocol="v2-binary")
