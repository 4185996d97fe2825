"""A search server in memory: as much of one as the writer relies on, and faults on demand."""

from collections.abc import Callable, Mapping
from typing import Any

import orjson

from sidelight.adapters._elastic_client import Answer

Fault = Callable[[list[tuple[str, dict[str, Any], dict[str, Any]]]], Any]


class FakeServer:
    """The client's side of it; ``faults`` are taken one by one, each for one bulk request.

    A fault is an ``Answer``, an exception, or a function that gets the operations and returns the
    status of each, None for what happens without it.
    """

    def __init__(self) -> None:
        self.found: dict[tuple[str, str], tuple[int, dict[str, Any]]] = {}
        self.notes: dict[str, dict[str, Any]] = {}
        self.versions: dict[tuple[str, str], int] = {}
        self.put: dict[str, Any] = {}
        self.faults: list[Any] = []
        self.refuses: Callable[[Mapping[str, Any]], bool] = lambda _: False
        self.requests: list[tuple[str, str]] = []
        self.has_lifecycle = True
        self.is_closed = False

    def sources(self) -> dict[str, dict[str, Any]]:
        """Return all documents of inferences by their names; none may be there twice."""
        names = [name for index, name in self.found if "-inferences-" in index]
        assert len(names) == len(set(names))
        return {
            name: source
            for (index, name), (_, source) in self.found.items()
            if "-inferences-" in index
        }

    def request(
        self,
        method: str,
        path: str,
        body: bytes | Mapping[str, Any] | None = None,
        params: Mapping[str, str] | None = None,
    ) -> Answer:
        self.requests.append((method, path))
        if path == "/_bulk":
            assert isinstance(body, bytes)
            return self._bulk(body)
        if path.endswith("/_search"):
            assert isinstance(body, dict)
            assert params
            return Answer(200, {"hits": {"hits": self._search(path, body)}})
        if "_ilm" in path and not self.has_lifecycle:
            return Answer(400, {"error": "no handler found"})
        if method == "PUT":
            self.put[path] = body
        return Answer(200, {"acknowledged": True})

    def close(self) -> None:
        self.is_closed = True

    def _bulk(self, body: bytes) -> Answer:
        operations = _operations(body)
        if all(head["_index"].endswith("-columns") for _, head, _ in operations):
            # Notes of columns come before documents, and are none.
            self.notes |= {head["_id"]: source for _, head, source in operations}
            return Answer(200, {"items": [{"index": {"status": 201}}] * len(operations)})
        fault = self.faults.pop(0) if self.faults else None
        if isinstance(fault, Exception):
            raise fault
        if isinstance(fault, Answer):
            return fault
        told = fault(operations) if fault else [None] * len(operations)
        items = [
            {operation[0]: self._apply(*operation) if status is None else _error(*status)}
            for operation, status in zip(operations, told, strict=True)
        ]
        return Answer(200, {"items": items})

    def _apply(self, action: str, head: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
        place = head["_index"], head["_id"]
        current = self.versions.get(place, 0)
        if action == "index":
            return self._index(place, head, body)
        if place not in self.found and body.get("doc_as_upsert"):
            self._store(place, current + 1, body["doc"])
            return {"status": 201}
        if place not in self.found:
            return _error(404, "document_missing_exception")
        if action == "delete":
            del self.found[place]
            self.versions[place] = current + 1
            return {"status": 200}
        source = _merged(self.found[place][1], body["doc"])
        if self.refuses(source):
            return _error(400, "document_parsing_exception")
        self._store(place, current + 1, source)
        return {"status": 200}

    def _index(
        self, place: tuple[str, str], head: dict[str, Any], body: dict[str, Any]
    ) -> dict[str, Any]:
        current = self.versions.get(place, 0)
        if self.refuses(body):
            return _error(400, "document_parsing_exception")
        if head.get("version_type") == "external" and head["version"] <= current:
            return _error(409, "version_conflict_engine_exception")
        self._store(place, head.get("version", current + 1), body)
        return {"status": 201}

    def _store(self, place: tuple[str, str], version: int, source: dict[str, Any]) -> None:
        self.found[place] = version, source
        self.versions[place] = version

    def _search(self, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
        stems = tuple(item.removesuffix("*") for item in path.split("/")[1].split(","))
        wanted = body["query"]["bool"]
        hits: list[dict[str, Any]] = [
            {
                "_index": index,
                "_id": name,
                "_source": {key: source.get(key) for key in body["_source"]},
                "sort": [source.get("inference_id", ""), source.get("row", 0), index],
            }
            for (index, name), (_, source) in self.found.items()
            if index.startswith(stems)
            and all(_holds(source, clause) for clause in wanted["filter"])
            and not any(_holds(source, clause) for clause in wanted.get("must_not", []))
        ]
        hits.sort(key=lambda hit: hit["sort"])
        after = body.get("search_after")
        return [hit for hit in hits if after is None or hit["sort"] > after][: body["size"]]


def _operations(body: bytes) -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
    lines = iter(body.splitlines())
    found = []
    for line in lines:
        ((action, head),) = orjson.loads(line).items()
        found.append((action, head, {} if action == "delete" else orjson.loads(next(lines))))
    return found


def _error(status: int, kind: str = "some_exception", reason: str = "") -> dict[str, Any]:
    return {"status": status, "error": {"type": kind, "reason": reason}}


def _merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    merged = dict(old)
    for key, value in new.items():
        both = isinstance(value, dict) and isinstance(old.get(key), dict)
        merged[key] = _merged(old[key], value) if both else value
    return merged


def _holds(source: Mapping[str, Any], clause: Mapping[str, Any]) -> bool:
    ((kind, inner),) = clause.items()
    ((name, wanted),) = inner.items()
    value = source.get(name)
    if kind == "range":
        return bool(value >= wanted["gte"] and ("lt" not in wanted or value < wanted["lt"]))
    values = value if isinstance(value, list) else [value]
    return any(item in (wanted if kind == "terms" else [wanted]) for item in values)
