"""The columns of an exported table: which there are, of which types, and their values."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import pyarrow as pa

from sidelight.adapters._query_columns import SCORE, kind_of
from sidelight.adapters._query_rows import plain_value
from sidelight.payloads import FEATURE_PREFIX, OUTPUT_PREFIX, Inference

LABEL_PREFIX: Final = "labels."

FACTS: Final[Mapping[str, pa.DataType]] = {
    "id": pa.string(),
    "row": pa.int32(),
    "deployment": pa.string(),
    "version": pa.string(),
    "component": pa.string(),
    "request_id": pa.string(),
    "time": pa.string(),
    "latency_ms": pa.float64(),
    "status": pa.int32(),
    "protocol": pa.string(),
    "orphan": pa.string(),
    "synthetic": pa.bool_(),
    "tags": pa.string(),
    "request_ref": pa.string(),
    "response_ref": pa.string(),
    SCORE: pa.float64(),
}
"""Columns that every table has, before those of the payloads."""

_LIST: Final = "list<item: "
_UNSIGNED: Final = frozenset({"uint8", "uint16", "uint32", "uint64"})


def payload_columns(layouts: Iterable[tuple[tuple[str, str], ...]]) -> dict[str, pa.DataType]:
    """Return the types of features, then of outputs, over every stored layout.

    Parameters
    ----------
    layouts : iterable of layouts
        The (name, Arrow type as text) of each. A column of several types is a number when all are,
        else text.

    """
    found: dict[str, set[str]] = {}
    for layout in layouts:
        for name, arrow_type in layout:
            if name.startswith((FEATURE_PREFIX, OUTPUT_PREFIX)):
                found.setdefault(name, set()).add(arrow_type)
    ordered = sorted(found, key=lambda name: not name.startswith(FEATURE_PREFIX))
    return {name: _common(found[name]) for name in ordered}


def label_columns(labels: Iterable[Mapping[str, Any]]) -> dict[str, pa.DataType]:
    """Return the types of labels, by name; of several types they are text."""
    found: dict[str, set[str]] = {}
    for values in labels:
        for name, value in values.items():
            found.setdefault(name, set()).add(_LABEL_TYPES.get(type(value), "other"))
    return {LABEL_PREFIX + name: _common(found[name]) for name in sorted(found)}


def table_rows(items: Sequence[Inference]) -> list[Mapping[str, Any]]:
    """Return one mapping of column to value for each row of inferences."""
    rows: list[Mapping[str, Any]] = []
    for item in items:
        facts = {name: getattr(item, name, None) for name in FACTS}
        facts["tags"] = json.dumps(plain_value(dict(item.tags))) if item.tags else None
        for number, row in enumerate(item.rows):
            rows.append(
                {
                    **facts,
                    "row": number,
                    SCORE: row.outlier_score,
                    **{FEATURE_PREFIX + name: value for name, value in row.features.items()},
                    **{OUTPUT_PREFIX + name: value for name, value in row.outputs.items()},
                    # Columns of the lake are plain; labels and tags are whatever was sent.
                    **{LABEL_PREFIX + name: plain_value(of) for name, of in row.labels.items()},
                }
            )
    return rows


def arrow_array(values: Sequence[Any], kind: pa.DataType) -> Any:
    """Return a column of a table.

    Raises
    ------
    ValueError, TypeError
        If a value does not fit, as one that was stored with another type since.

    """
    if pa.types.is_string(kind):
        return pa.array([_text(value) for value in values], kind)
    if pa.types.is_float64(kind):
        # Arrow refuses integers that a float cannot hold exactly.
        return pa.array([_float(value) for value in values], kind)
    return pa.array(values, kind)


_LABEL_TYPES: Final[Mapping[type, str]] = {
    type(None): "null",
    bool: "bool",
    int: "double",
    float: "double",
    str: "string",
}


def _common(types: set[str]) -> pa.DataType:
    known = types - {"null"}
    if known and all(item.startswith(_LIST) and item.endswith(">") for item in known):
        inner = _common({item[len(_LIST) : -1] for item in known})
        # Text of lists in lists is JSON of the whole instead.
        return pa.list_(inner) if _is_plain(known) else pa.string()
    kinds = {kind_of(item) for item in known}
    if kinds == {"boolean"}:
        return pa.bool_()
    if kinds != {"number"}:
        return pa.string()
    return _common_number(known)


def _is_plain(types: set[str]) -> bool:
    inner = {item[len(_LIST) : -1] for item in types} - {"null"}
    return len({kind_of(item) for item in inner}) < 2 and "other" not in map(kind_of, inner)  # noqa: PLR2004 - none or one


def _common_number(types: set[str]) -> pa.DataType:
    if not all(item.startswith(("int", "uint")) for item in types):
        return pa.float64()
    if "uint64" not in types:
        return pa.int64()
    return pa.uint64() if types <= _UNSIGNED else pa.float64()


def _float(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError("expected a number")
    try:
        number = float(value)
    except OverflowError:
        # An integer of 309 digits or more: to a double it is infinite.
        return None
    return number if math.isfinite(number) else None


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value)


def csv_cell(value: Any) -> str:
    r"""Return a field: text always quoted, null and not finite empty, lists as JSON.

    So ``"1"`` is text and ``1`` a number, ``""`` is an empty text and nothing is null.

    Examples
    --------
    >>> [csv_cell(value) for value in ("a", "", None, 1, 0.5, True, [1, None])]
    ['"a"', '""', '', '1', '0.5', 'true', '"[1, null]"']

    """
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case float() if not math.isfinite(value):
            return ""
        case int() | float():
            return repr(value)
        case str():
            text = value
        case _:
            text = json.dumps(value)
    return '"' + text.replace('"', '""') + '"'
