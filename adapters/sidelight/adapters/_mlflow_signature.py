"""The columns of an MLflow model, from the signature in its MLmodel file.

Only the text of the signature is read (``mlflow/types/schema.py``: column specs, tensor specs):
no model is loaded, and nothing that was pickled.
"""

import json
from collections.abc import Mapping
from itertools import count
from typing import Any, Final, Literal

from sidelight.payloads import Column, Schema
from sidelight.payloads.errors import SchemaError

Kind = Literal["numeric", "categorical", "boolean", "text", "image", "embedding", "timestamp"]
_Side = Literal["feature", "output"]

_KINDS: Final[Mapping[str, Kind]] = {
    "boolean": "boolean",
    "integer": "numeric",
    "long": "numeric",
    "float": "numeric",
    "double": "numeric",
    # What a text means a signature does not say; most columns of tables are categories.
    "string": "categorical",
    "binary": "image",
    "datetime": "timestamp",
    "object": "text",
    "map": "text",
    "any": "text",
    "sparkml_vector": "embedding",
}
_NUMBERS: Final = frozenset({"integer", "long", "float", "double"})
# First letters of NumPy's names: bool, int, uint, float, half, str and object, datetime.
_TENSORS: Final[tuple[tuple[tuple[str, ...], Kind], ...]] = (
    (("bool",), "boolean"),
    (("int", "uint", "float", "half", "bfloat"), "numeric"),
    (("str", "object", "bytes", "S", "U", "<U", "|S"), "categorical"),
    (("datetime",), "timestamp"),
)
_MAX_COLUMNS: Final = 100_000


def mlflow_schema(signature: Mapping[str, Any]) -> Schema:
    """Return the columns that a signature names, as decoding names them.

    Parameters
    ----------
    signature : mapping
        ``inputs`` and ``outputs``, each a list of specs or the JSON text of one; outputs may be
        missing.

    Raises
    ------
    SchemaError
        If it is no signature, or says too little: a tensor whose width is not fixed has no
        columns.

    Examples
    --------
    >>> schema = mlflow_schema({"inputs": '[{"name": "age", "type": "long"}]', "outputs": None})
    >>> [(column.name, column.kind) for column in schema.features]
    [('age', 'numeric')]

    """
    features = _columns(signature, "inputs", "feature", "f")
    if not features:
        raise SchemaError("signature.inputs", "a list of columns or tensors", "none")
    outputs = _columns(signature, "outputs", "output", "y")
    return Schema(columns=(*features, *outputs))


def _columns(
    signature: Mapping[str, Any], key: str, side: _Side, unnamed: Literal["f", "y"]
) -> list[Column]:
    path = f"signature.{key}"
    specs = _specs(signature.get(key), path)
    numbers = count()
    found: list[tuple[str | None, Kind]] = []
    for index, spec in enumerate(specs):
        found += _of_spec(spec, f"{path}[{index}]")
        if len(found) > _MAX_COLUMNS:
            raise SchemaError(path, f"at most {_MAX_COLUMNS} columns", len(found))
    alone = unnamed == "y" and sum(name is None for name, _ in found) == 1
    return [
        Column(
            name=name if name is not None else unnamed if alone else f"{unnamed}{next(numbers)}",
            kind=kind,
            role=side,
        )
        for name, kind in found
    ]


def _specs(value: object, path: str) -> list[Any]:
    if value is None:
        return []
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise SchemaError(path, "JSON", "another text") from None
    if not isinstance(value, list):
        raise SchemaError(path, "a list", type(value).__name__)
    return value


def _of_spec(spec: object, path: str) -> list[tuple[str | None, Kind]]:
    """Return name and kind of each column that a spec stands for; None is no name."""
    if not isinstance(spec, Mapping):
        raise SchemaError(path, "an object with a type", type(spec).__name__)
    name, kind = spec.get("name"), spec.get("type")
    if name is not None and not isinstance(name, str):
        raise SchemaError(f"{path}.name", "a text", name)
    if kind == "tensor":
        return _of_tensor(name, spec.get("tensor-spec"), path)
    if kind == "array":
        items = spec.get("items")
        inner = items.get("type") if isinstance(items, Mapping) else None
        return [(name, "embedding" if inner in _NUMBERS else "text")]
    if not isinstance(kind, str) or kind not in _KINDS:
        raise SchemaError(f"{path}.type", f"tensor, array or one of {', '.join(_KINDS)}", kind)
    return [(name, _KINDS[kind])]


def _of_tensor(name: str | None, spec: object, path: str) -> list[tuple[str | None, Kind]]:
    shape = spec.get("shape") if isinstance(spec, Mapping) else None
    dtype = spec.get("dtype") if isinstance(spec, Mapping) else None
    if not isinstance(dtype, str) or not isinstance(shape, list):
        raise SchemaError(f"{path}.tensor-spec", "an object with dtype and shape", spec)
    if any(isinstance(size, bool) or not isinstance(size, int) for size in shape):
        raise SchemaError(f"{path}.tensor-spec.shape", "integers", shape)
    kind = next((kind for names, kind in _TENSORS if dtype.startswith(names)), None)
    if kind is None:
        raise SchemaError(f"{path}.tensor-spec.dtype", "a type of NumPy", dtype)
    # The first dimension counts rows; what has several more is one value a row.
    match shape[1:]:
        case [] | [1]:
            return [(name, kind)]
        case [width]:
            if not 0 < width <= _MAX_COLUMNS:
                raise SchemaError(f"{path}.tensor-spec.shape", "a fixed number of columns", shape)
            return [(None if name is None else f"{name}_{place}", kind) for place in range(width)]
        case [_, _]:
            return [(name, "embedding")]
    return [(name, "image")]
