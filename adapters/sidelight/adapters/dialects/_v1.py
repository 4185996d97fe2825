"""KServe V1 and TF-Serving REST: rows under ``instances`` and ``predictions``, columns under
``inputs`` and ``outputs``. MLflow and SageMaker share these keys.

Reference: tensorflow/serving, g3doc/api_rest.md. JSON declares no datatypes here, so values are
classed by what they are; ``NaN`` and ``Infinity`` are legal.
"""  # noqa: D205 - one sentence over two lines

from itertools import chain
from typing import Any, Final

from sidelight.adapters.dialects._half import ENCODED, MAX_COLUMNS, Half, Side, Undecodable
from sidelight.adapters.dialects._tables import RawTensor, flattened, table
from sidelight.adapters.dialects._values import (
    Extra,
    is_encoded,
    leaves_of,
    of_columns,
    of_items,
    of_objects,
    shape_of,
)

_ROWS: Final[dict[Side, str]] = {"request": "instances", "response": "predictions"}
_COLUMNS: Final[dict[Side, str]] = {"request": "inputs", "response": "outputs"}
_SIGNATURE: Final = "signature_name"
_BATCH: Final = "batchId"
_FEATURES: Final = (("features",), ("data", "features", "values"))


class Version1:
    """V1 requests and responses, row by row or column by column."""

    def claims(self, body: dict[str, Any], side: Side) -> bool:
        """Whether the object has one of the four keys."""
        return _ROWS[side] in body or _COLUMNS[side] in body

    def decode(self, body: dict[str, Any], side: Side) -> Half:
        """Read rows or columns."""
        extra, facts = _beside(body)
        key = _ROWS[side]
        if key not in body:
            return _columnar(body[_COLUMNS[side]], facts, extra)
        items = body[key]
        if type(items) is not list:
            if side == "request":
                raise Undecodable("shape")
            # MLflow answers with whatever the model returned.
            return _columnar(items, facts, extra)
        if (inner := unwrapped(items)) is not None:
            items, extra = inner, (*extra, ("wrapper", "features"))
        form, columns = of_items(items)
        return of_columns("v1-row", form, columns, rows=len(items), facts=facts, extra=extra)


def unwrapped(items: list[Any]) -> list[Any] | None:
    """Return SageMaker's rows, ``{"features": [...]}`` each; None when they are no such."""
    if not items:
        return None
    for path in _FEATURES:
        rows = [_inside(item, path) for item in items]
        if all(type(row) is list for row in rows):
            return rows
    return None


def _inside(item: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        if type(item) is not dict or key not in item or "keys" in item:
            # With "keys" it is sparse, and stays a document.
            return None
        if len(item) > 1 and key != "values":
            return None
        item = item[key]
    return item


def _beside(body: dict[str, Any]) -> tuple[Extra, dict[str, Any]]:
    signature = body.get(_SIGNATURE)
    extra = ((_SIGNATURE, signature),) if isinstance(signature, str) else ()
    facts: dict[str, Any] = {}
    if type(params := body.get("params")) is dict and params:
        facts["params"] = params
    if type(batch := body.get(_BATCH)) is str:
        # KServe's batcher: one call of the model for several requests.
        facts["batch_id"] = batch
    return extra, facts


def _columnar(value: Any, facts: dict[str, Any], extra: Extra) -> Half:
    if _are_records(value):
        columns = of_objects(value)
        return of_columns(
            "v1-columnar", "object", columns, rows=len(value), facts=facts, extra=extra
        )
    if type(value) is not dict or is_encoded(value):
        return table("v1-columnar", [_raw(None, value)], facts, extra)
    if not value or len(value) > MAX_COLUMNS:
        raise Undecodable("columns")
    tensors = [_raw(name, item) for name, item in value.items()]
    return table("v1-columnar", tensors, facts, extra)


def _are_records(value: Any) -> bool:
    if type(value) is not list or not value or not all(type(item) is dict for item in value):
        return False
    return not all(map(is_encoded, value))


def _raw(name: str | None, value: Any) -> RawTensor:
    if type(value) is not list:
        leaves, datatype = leaves_of([value])
        return RawTensor(name, datatype, (), leaves, nested=False)
    shape = shape_of(value)
    if shape is not None:
        leaves, datatype = leaves_of(flattened(value)[0])
        return RawTensor(name, datatype, shape, leaves, nested=True)
    rows = [flattened(item)[0] if type(item) is list else [item] for item in value]
    leaves, datatype = leaves_of(list(chain.from_iterable(rows)))
    if datatype == ENCODED:
        raise Undecodable("shape")
    return RawTensor(name, datatype, None, rows, nested=True)
