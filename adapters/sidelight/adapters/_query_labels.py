"""Labels beside the rows: looked up for a page, loaded whole for a ``where`` on them."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from sidelight.adapters._where_numbers import EXACT
from sidelight.adapters._where_sql import Kind, Source
from sidelight.logger._envelope_feedback import MAX_ROW
from sidelight.logger._journal import Documents

_COLLECTION = "labels"
_PAGE = 1_000
# Of the longest decimal; no literal is a whole number of more.
_DIGITS = 38


def labels_of(documents: Documents, deployment: str, request_id: str, row: int) -> dict[str, Any]:
    """Return the labels of one row; empty when no feedback came."""
    value = documents.get(_COLLECTION, f"{deployment}|{request_id}|{row}")
    return dict(value["labels"]) if value else {}


def has_labels(documents: Documents, deployment: str) -> bool:
    """Return whether any feedback came for a deployment."""
    return bool(documents.find(_COLLECTION, deployment=deployment, limit=1))


def all_labels(documents: Documents, deployment: str | None) -> Iterator[Mapping[str, Any]]:
    """Yield the labels of every row that has some."""
    for value in _all(documents, deployment):
        yield value["labels"]


class LabelTable:
    """All labels of a deployment, or of every one, as a table that DuckDB can join.

    A label may be text once and a number later, so each asked name has a column for every kind.

    Parameters
    ----------
    names : sequence of str
        Labels that the expression asks for.

    """

    def __init__(
        self, documents: Documents, *, deployment: str | None, names: Sequence[str]
    ) -> None:
        self._names = list(names)
        self.known: set[str] = set()
        self._kinds: dict[str, set[Kind]] = {name: set() for name in names}
        self._beyond: set[str] = set()
        self.table = self._build(_all(documents, deployment))

    def kinds(self, name: str) -> set[Kind] | None:
        """Return the kinds that a label has; None when there are labels but not this one."""
        if name not in self.known and self.known:
            return None
        return self._kinds[name]

    def source(self, name: str) -> Source:
        """Return how a label is read from the alias ``labels``."""
        index = self._names.index(name)
        kinds: tuple[Kind, ...] = ("number", "text", "boolean", "other")
        return Source(
            sql={kind: f"labels.l{index}_{kind}" for kind in kinds},
            exact=f"CAST(labels.l{index}_exact AS HUGEINT)" if name in self._beyond else "",
        )

    def _build(self, values: Iterator[Mapping[str, Any]]) -> pa.Table:
        keys: list[dict[str, Any]] = []
        columns: list[dict[Kind, list[Any]]] = [
            {"number": [], "text": [], "boolean": [], "other": []} for _ in self._names
        ]
        exact: list[list[int | None]] = [[] for _ in self._names]
        for value in values:
            if value["row"] > MAX_ROW:
                continue  # of a version that kept what no row can have
            keys.append({name: value[name] for name in ("deployment", "request_id", "row")})
            labels = value["labels"]
            self.known.update(labels)
            for name, column, beyond in zip(self._names, columns, exact, strict=True):
                label = _plain(labels.get(name))
                beyond.append(_beyond_doubles(label))
                kind = _kind(label)
                if kind is not None:
                    self._kinds[name].add(kind)
                for each, cells in column.items():
                    cells.append(_cell(label, each) if each == kind else None)
        arrays: dict[str, Any] = {
            "deployment": pa.array([key["deployment"] for key in keys], pa.string()),
            "request_id": pa.array([key["request_id"] for key in keys], pa.string()),
            "row": pa.array([key["row"] for key in keys], pa.int32()),
        }
        for index, column in enumerate(columns):
            for kind, cells in column.items():
                arrays[f"l{index}_{kind}"] = pa.array(cells, _ARROW[kind])
            if any(number is not None for number in exact[index]):
                self._beyond.add(self._names[index])
                arrays[f"l{index}_exact"] = pa.array(exact[index], pa.decimal128(_DIGITS))
        return pa.table(arrays)


_ARROW: dict[Kind, pa.DataType] = {
    "number": pa.float64(),
    "text": pa.string(),
    "boolean": pa.bool_(),
    "other": pa.string(),
}


def _all(documents: Documents, deployment: str | None) -> Iterator[Mapping[str, Any]]:
    after: tuple[str, str] | None = None
    while True:
        page = documents.find(
            _COLLECTION, deployment=deployment, descending=False, after=after, limit=_PAGE
        )
        for _, _, value in page:
            yield value
        if len(page) < _PAGE:
            return
        after = page[-1][0], page[-1][1]


def _plain(label: object) -> object:
    return None if isinstance(label, float) and not math.isfinite(label) else label


def _kind(label: object) -> Kind | None:
    match label:
        case None:
            return None
        case bool():
            return "boolean"
        case int() | float():
            return "number"
        case str():
            return "text"
        case _:
            return "other"


def _cell(label: Any, kind: Kind) -> Any:
    match kind:
        case "number":
            return _number(label)
        case "other":
            return json.dumps(label)
        case _:
            return label


def _beyond_doubles(label: object) -> int | None:
    """Return a whole number of which a double says too little; None beyond 38 digits."""
    if isinstance(label, int) and EXACT <= abs(label) < 10**_DIGITS:
        return label
    return None


def _number(label: float) -> float:
    try:
        return float(label)
    except OverflowError:
        # Beyond every double: larger than all that it is compared with, or smaller.
        return math.inf if label > 0 else -math.inf
