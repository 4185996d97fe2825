"""A search server in memory that answers the queries of the store, with an index that finds all.

What a real index cannot hold is asked of real servers, in tests/services.
"""

import operator
import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

import orjson
from tests.adapters.elastic_fake import FakeServer

from sidelight.adapters._elastic_client import Answer


class SearchingServer(FakeServer):
    """Answers searches and counts on the documents and the notes that were written."""

    def __init__(self) -> None:
        super().__init__()
        self.dropped: list[str] = []

    def request(
        self,
        method: str,
        path: str,
        body: bytes | Mapping[str, Any] | None = None,
        params: Mapping[str, str] | None = None,
    ) -> Answer:
        _, pattern, action = f"{path}/".split("/")[:3]
        if action == "_alias":
            indices = {index for index, _ in self.found if fnmatchcase(index, pattern)}
            return Answer(200, {index: {} for index in indices})
        if method == "DELETE":
            self.dropped.append(pattern)
            self.found = {place: item for place, item in self.found.items() if place[0] != pattern}
            return Answer(200, {"acknowledged": True})
        if action not in {"_search", "_count"}:
            return super().request(method, path, body, params)
        assert isinstance(body, Mapping)
        found = [
            (index, name, source)
            for index, name, source in self._everything()
            if any(fnmatchcase(index, each) for each in pattern.split(","))
            and _holds(source, body["query"])
        ]
        if action == "_count":
            return Answer(200, {"count": len(found)})
        return Answer(200, {"hits": {"hits": _page(found, body)}})

    def _everything(self) -> list[tuple[str, str, dict[str, Any]]]:
        notes = [("m-columns", name, source) for name, source in self.notes.items()]
        # As a server does, not what was written but what its JSON says.
        return [
            (index, name, orjson.loads(orjson.dumps(source)))
            for (index, name), (_, source) in self.found.items()
        ] + [(self._notes_index(), name, source) for _, name, source in notes]

    def _notes_index(self) -> str:
        (prefix,) = {index.partition("-")[0] for index, _ in self.found} or {"m"}
        return f"{prefix}-columns"


def _page(found: list[tuple[str, str, Any]], body: Mapping[str, Any]) -> list[dict[str, Any]]:
    fields = [
        (item, "asc") if isinstance(item, str) else (name := next(iter(item)), item[name]["order"])
        for item in body.get("sort", [])
    ]
    hits: list[dict[str, Any]] = [
        {
            "_index": index,
            "_id": name,
            "_source": source,
            "sort": [index if field == "_index" else source[field] for field, _ in fields],
        }
        for index, name, source in found
    ]
    descending = bool(fields) and fields[0][1] == "desc"
    hits.sort(key=lambda hit: hit["sort"], reverse=descending)
    after = body.get("search_after")
    if after is not None:
        hits = [hit for hit in hits if (hit["sort"] < after if descending else hit["sort"] > after)]
    return hits[: body["size"]]


def _holds(source: Mapping[str, Any], query: Mapping[str, Any]) -> bool:
    ((kind, inner),) = query.items()
    match kind:
        case "match_all":
            return True
        case "match_none":
            return False
        case "exists":
            return _value(source, inner["field"]) is not None
        case "bool":
            should = inner.get("should", [])
            return (
                all(_holds(source, item) for item in inner.get("filter", []))
                and not any(_holds(source, item) for item in inner.get("must_not", []))
                and (not should or any(_holds(source, item) for item in should))
            )
    ((field, wanted),) = inner.items()
    value = _value(source, field)
    values = value if isinstance(value, list) else [value]
    return any(item is not None and _fits(kind, item, wanted) for item in values)


def _fits(kind: str, value: Any, wanted: Any) -> bool:
    match kind:
        case "term":
            wanted = wanted["value"] if isinstance(wanted, dict) else wanted
            return bool(_term(value) == _term(wanted))
        case "terms":
            return bool(value in wanted)
        case "wildcard":
            return bool(_wildcard(wanted["value"]).fullmatch(value))
        case "range":
            return all(bool(_within(name, value, bound)) for name, bound in wanted.items())
    raise AssertionError(kind)


def _within(name: str, value: Any, bound: Any) -> Any:
    if isinstance(value, str) != isinstance(bound, str):
        return False
    # Numbers are doubles in the index.
    left: Any = value if isinstance(value, str) else float(value)
    right: Any = bound if isinstance(bound, str) else float(bound)
    return {"gt": operator.gt, "gte": operator.ge, "lt": operator.lt, "lte": operator.le}[name](
        left, right
    )


def _term(value: Any) -> Any:
    return str(value).lower() if isinstance(value, bool) else value


def _value(source: Mapping[str, Any], field: str) -> Any:
    value: Any = source
    for part in field.split(".", 1):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _wildcard(pattern: str) -> re.Pattern[str]:
    parts = re.findall(r"\\.|.", pattern, re.DOTALL)
    signs = {"*": ".*", "?": "."}
    return re.compile(
        "".join(signs.get(part) or re.escape(part.removeprefix("\\") or "\\") for part in parts),
        re.DOTALL,
    )
