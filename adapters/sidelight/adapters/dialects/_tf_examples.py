"""TF-Serving's classify and regress: examples with a shared context, and their results.

Reference: tensorflow/serving, g3doc/api_rest.md, "Classify and Regress API".
"""

from typing import Any, Final

from sidelight.adapters.dialects._half import Half, Side, Undecodable
from sidelight.adapters.dialects._tables import FREE_CELLS, MAX_REPEATS
from sidelight.adapters.dialects._values import Column, column, of_columns, of_objects

_REQUEST: Final = "examples"
_RESPONSE: Final = ("result", "results")
_PAIR: Final = 2
_NUMBERS: Final = frozenset({int, float, type(None)})


class Examples:
    """Requests with ``examples``, answers with ``result`` or ``results``."""

    def claims(self, body: dict[str, Any], side: Side) -> bool:
        """Whether the object has the key, and an answer has no other."""
        if side == "request":
            return type(body.get(_REQUEST)) is list
        return len(body) == 1 and any(type(body.get(key)) is list for key in _RESPONSE)

    def decode(self, body: dict[str, Any], side: Side) -> Half:
        """Read a row for each example."""
        if side == "request":
            return _examples(body)
        items = next(body[key] for key in _RESPONSE if key in body)
        return of_columns("tf-results", "", _results(items), rows=len(items), facts={})


def _examples(body: dict[str, Any]) -> Half:
    items, context = body[_REQUEST], body.get("context") or {}
    if type(context) is not dict or not all(type(item) is dict for item in items):
        raise Undecodable("shape")
    signature = body.get("signature_name")
    extra = (("signature_name", signature),) if type(signature) is str else ()
    if len(context) * len(items) > max(FREE_CELLS, MAX_REPEATS * len(items)):
        raise Undecodable("sparse")
    merged = [
        item | {name: context[name] for name in context if name not in item} for item in items
    ]
    columns = of_objects(merged)
    return of_columns("tf-examples", "object", columns, rows=len(items), facts={}, extra=extra)


def _results(items: list[Any]) -> list[Column]:
    if not items:
        return []
    if all(type(item) in _NUMBERS for item in items):
        return [column(None, items)]
    labels = [_labels(item) for item in items]
    first = labels[0]
    if first is None or any(found is None or set(found) != set(first) for found in labels):
        return [column(None, items)]
    if len(set(first)) < len(first):
        # A model without labels writes "" for each: its scores are known by their place.
        return [
            column(None, [item[place][1] for item in items])
            for place in range(min(map(len, items)))
        ]
    scores = [dict(item) for item in items]
    return [column(label, [row[label] for row in scores]) for label in first]


def _labels(item: Any) -> list[str] | None:
    """Return the labels of ``[[label, score], ...]``, None when it is something else."""
    if type(item) is not list or not item:
        return None
    if not all(type(pair) is list and len(pair) == _PAIR and type(pair[0]) is str for pair in item):
        return None
    return [pair[0] for pair in item]
