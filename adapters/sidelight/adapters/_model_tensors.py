"""Rows written as a client of the model wrote them: the layout of its logged requests."""

import json
import math
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from math import prod
from typing import Any

from sidelight.explainers import Columns, RowError


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorLayout:
    """How one tensor of a logged request stood on the wire, and which features fill it.

    Attributes
    ----------
    datatype : str
        As logged: a word of V2, or a class of V1 values.
    shape : tuple of int or None
        Of one row.
    places : tuple of int
        Of its columns among the features.

    """

    name: str | None
    datatype: str
    shape: tuple[int, ...] | None
    is_list: bool
    is_nested: bool
    content_type: str | None
    places: tuple[int, ...]

    @property
    def is_bare(self) -> bool:
        """Whether a row has one value of it that is no list, nor a document that holds one."""
        return not self.shape and not self.is_list and self.datatype != "JSON"

    def rows(self, columns: Columns) -> list[Any]:
        """Return one value of the tensor for each row, nested as its shape says."""
        convert = CONVERSIONS.get(self.datatype, as_it_is)
        if self.is_list:
            values = columns[self.places[0]]
            return [self._nested_list(value, convert) for value in values]
        written = [list(map(convert, columns[place])) for place in self.places]
        if self.shape:
            return [list(row) for row in zip(*written, strict=True)]
        return written[0]

    def flat(self, columns: Columns) -> list[Any]:
        """Return all values of the tensor, row by row."""
        convert = CONVERSIONS.get(self.datatype, as_it_is)
        if self.is_list:
            # Flat data has a place for every leaf, also of a row that is missing.
            absent = (None,) * prod(self.shape or ())
            values = (absent if row is None else row for row in columns[self.places[0]])
            return [convert(leaf) for row in values for leaf in row]
        written = [list(map(convert, columns[place])) for place in self.places]
        return list(chain.from_iterable(zip(*written, strict=True)))

    def _nested_list(self, value: Any, convert: Callable[[Any], Any]) -> Any:
        if value is None:
            return None
        leaves = [convert(leaf) for leaf in value]
        for size in reversed((self.shape or ())[1:]):
            leaves = [leaves[start : start + size] for start in range(0, len(leaves), size)]
        return leaves


def tensors_of(layout: Mapping[str, Any], features: Sequence[str]) -> tuple[TensorLayout, ...]:
    """Read the tensors of a batch's request layout.

    Parameters
    ----------
    layout : mapping
        ``Batch.layout["request"]``, as the dialects write it.
    features : sequence of str
        Order in which an explainer hands over the columns.

    Raises
    ------
    RowError
        If a tensor has no leading dimension of rows, or a column is none of the features.

    """
    if layout.get("whole"):
        got = "tensors of different lengths"
        raise RowError("layout of the logged requests", expected="one table of rows", got=got)
    places = {name: index for index, name in enumerate(features)}
    return tuple(_tensor(item, places) for item in layout["tensors"])


def _tensor(item: Mapping[str, Any], places: Mapping[str, int]) -> TensorLayout:
    if item.get("scalar"):
        got = f"{item.get('name')!r} without a dimension of rows"
        raise RowError("layout of the logged requests", expected="a row dimension", got=got)
    missing = [name for name in item["columns"] if name not in places]
    if missing:
        got = f"{len(missing)} that are not, such as {missing[0]!r}"
        raise RowError("columns of the logged requests", expected="features", got=got)
    shape = item.get("shape")
    return TensorLayout(
        name=item.get("name"),
        datatype=item["datatype"],
        shape=None if shape is None else tuple(shape),
        is_list=bool(item.get("list")),
        is_nested=bool(item.get("nested")),
        content_type=item.get("content_type"),
        places=tuple(places[name] for name in item["columns"]),
    )


def as_it_is(value: Any) -> Any:
    """Return a value as JSON has it: not finite is null, bytes are text or base64."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return b64encode(value).decode()
    return value


def _whole(value: Any) -> Any:
    # Arrow hands nullable integers over as floats in places; the server wants an integer.
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return int(value) if isinstance(value, bool) else as_it_is(value)


def _flag(value: Any) -> Any:
    return bool(value) if value in (0, 1) else as_it_is(value)


def _number(value: Any) -> Any:
    return float(value) if isinstance(value, bool | int) else as_it_is(value)


def _text(value: Any) -> Any:
    plain = as_it_is(value)
    return plain if plain is None or isinstance(plain, str) else json.dumps(plain)


def _encoded(value: Any) -> Any:
    plain = as_it_is(value)
    return plain if plain is None else {"b64": plain}


def _document(value: Any) -> Any:
    # The dialect keeps documents as JSON, and texts as they are.
    if isinstance(value, str) and value[:1] in ("{", "["):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return as_it_is(value)


_WHOLE_DATATYPES = ["INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"]
_REAL_DATATYPES = ["FP16", "FP32", "FP64", "BF16"]

CONVERSIONS: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(_WHOLE_DATATYPES, _whole),
    **dict.fromkeys(_REAL_DATATYPES, _number),
    "BOOL": _flag,
    "BYTES": _text,
    "B64": _encoded,
    "JSON": _document,
}
"""What a value of a datatype becomes in JSON; other datatypes are written as they are."""
