"""Requests and answers of the V2 (Open Inference) protocol, as the demo's model has them."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from sidelight.service.demo._flights import CATEGORICAL, FEATURES
from sidelight.service.demo.errors import InferError

MODEL_NAME = "flights"
MODEL_VERSION = "1"
OUTPUTS = {"probability": "FP64", "late": "BOOL"}
# Of the tensors; `FP64` also where a whole number is meant but can be missing.
DATATYPES = {
    name: "BYTES" if name in CATEGORICAL else "INT64" if name in {"hour", "distance"} else "FP64"
    for name in FEATURES
}

_INTEGERS = frozenset({"INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"})
_FLOATS = frozenset({"FP16", "FP32", "FP64"})
# An explainer asks with tens of thousands of rows at once; more than this is a mistake.
_MAX_ROWS = 200_000


class _Tensor(msgspec.Struct):
    name: str
    shape: list[int]
    datatype: str
    data: list[Any]


class _RequestedOutput(msgspec.Struct):
    name: str


class _Request(msgspec.Struct):
    inputs: list[_Tensor]
    id: str | None = None
    outputs: list[_RequestedOutput] | None = None


_decoder = msgspec.json.Decoder(_Request)


@dataclass(frozen=True, slots=True, kw_only=True)
class InferRequest:
    """What a model is asked.

    Parameters
    ----------
    id : str or None
        Given back with the answer.
    columns : mapping of str to list, each of shape (n_rows,)
        By feature name: numbers or None, strings or None.
    n_rows : int
        At least 1.
    outputs : tuple of str
        Names of the outputs to answer with.

    """

    id: str | None
    columns: Mapping[str, list[Any]]
    n_rows: int
    outputs: tuple[str, ...]


def decode_infer(body: bytes) -> InferRequest:
    """Read a request; what is wrong with it is said with expectation and finding.

    Raises
    ------
    InferError
        If it is no V2 request with exactly the tensors of ``FEATURES``, all of one length.

    """
    try:
        request = _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InferError("body", expected="a V2 inference request in JSON", got=error) from error
    columns: dict[str, list[Any]] = {}
    for tensor in request.inputs:
        if tensor.name not in DATATYPES or tensor.name in columns:
            raise InferError("inputs", expected=f"each of {', '.join(FEATURES)}", got=tensor.name)
        columns[tensor.name] = _column(tensor)
    missing = [name for name in FEATURES if name not in columns]
    if missing:
        raise InferError("inputs", expected=f"each of {', '.join(FEATURES)}", got=f"no {missing}")
    lengths = {name: len(values) for name, values in columns.items()}
    n_rows = lengths["hour"]
    if set(lengths.values()) != {n_rows} or not 1 <= n_rows <= _MAX_ROWS:
        raise InferError("inputs", expected=f"all of one length, 1 to {_MAX_ROWS}", got=lengths)
    return InferRequest(
        id=request.id, columns=columns, n_rows=n_rows, outputs=_outputs(request.outputs)
    )


def encode_infer(request_id: str, columns: Mapping[str, Sequence[Any]]) -> bytes:
    """Write a request with one tensor of shape [n, 1] a feature.

    Parameters
    ----------
    request_id : str
        The ``id`` of the request.
    columns : mapping of str to sequence, each of shape (n,)
        By feature name; None where missing.

    """
    inputs = [
        {
            "name": name,
            "shape": [len(columns[name]), 1],
            "datatype": datatype,
            "data": columns[name],
        }
        for name, datatype in DATATYPES.items()
    ]
    return msgspec.json.encode({"id": request_id, "inputs": inputs})


def encode_answer(
    request: InferRequest, probability: NDArray[np.float64], threshold: float
) -> bytes:
    """Write the answer: the probability of being late, and whether that is called late."""
    data = {"probability": probability, "late": probability >= threshold}
    outputs = [
        {
            "name": name,
            "shape": [request.n_rows, 1],
            "datatype": OUTPUTS[name],
            "data": data[name].tolist(),
        }
        for name in request.outputs
    ]
    answer: dict[str, Any] = {"model_name": MODEL_NAME, "model_version": MODEL_VERSION}
    if request.id is not None:
        answer["id"] = request.id
    return msgspec.json.encode(answer | {"outputs": outputs})


def model_metadata() -> dict[str, Any]:
    """Return what ``GET /v2/models/flights`` says: names, datatypes and shapes."""
    return {
        "name": MODEL_NAME,
        "versions": [MODEL_VERSION],
        "platform": "sklearn",
        "inputs": _described(DATATYPES),
        "outputs": _described(OUTPUTS),
    }


def _described(tensors: Mapping[str, str]) -> list[dict[str, Any]]:
    return [{"name": n, "datatype": datatype, "shape": [-1, 1]} for n, datatype in tensors.items()]


def _outputs(requested: Iterable[_RequestedOutput] | None) -> tuple[str, ...]:
    names = tuple(output.name for output in requested or ()) or tuple(OUTPUTS)
    for name in names:
        if name not in OUTPUTS:
            raise InferError("outputs", expected=f"of {', '.join(OUTPUTS)}", got=name)
    return names


def _column(tensor: _Tensor) -> list[Any]:
    name, shape = f"inputs.{tensor.name}", tensor.shape
    if not shape or min(shape) < 0 or math.prod(shape[1:]) != 1:
        raise InferError(f"{name}.shape", expected="[n] or [n, 1]", got=shape)
    data = tensor.data
    while data and isinstance(data[0], list):
        if not all(isinstance(part, list) for part in data):
            raise InferError(f"{name}.data", expected="flat, or nested evenly", got="a mixture")
        data = [value for part in data for value in part]
    if len(data) != shape[0]:
        raise InferError(f"{name}.data", expected=f"{shape[0]} values", got=len(data))
    return (
        _texts(name, tensor, data) if tensor.name in CATEGORICAL else _numbers(name, tensor, data)
    )


def _texts(name: str, tensor: _Tensor, data: list[Any]) -> list[Any]:
    if tensor.datatype != "BYTES":
        raise InferError(f"{name}.datatype", expected="BYTES", got=tensor.datatype)
    if not {type(value) for value in data} <= {str, type(None)}:
        raise InferError(f"{name}.data", expected="strings or null", got="other values")
    return data


def _numbers(name: str, tensor: _Tensor, data: list[Any]) -> list[Any]:
    if tensor.datatype not in _INTEGERS and tensor.datatype not in _FLOATS:
        raise InferError(f"{name}.datatype", expected="FP64, INT64 or alike", got=tensor.datatype)
    kinds = {type(value) for value in data}
    # A bool is no number here, though Python thinks so.
    if not kinds <= ({int} if tensor.datatype in _INTEGERS else {int, float, type(None)}):
        raise InferError(f"{name}.data", expected=f"{tensor.datatype} values", got="other values")
    # Whole numbers beyond the largest double, and texts like 1e999, are no values of any flight.
    if not all(value is None or abs(value) < 1e300 for value in data):  # noqa: PLR2004
        raise InferError(f"{name}.data", expected="finite values", got="one beyond 1e300")
    return data
