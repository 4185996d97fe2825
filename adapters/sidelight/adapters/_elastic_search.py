"""Asking a search server: one question at a time, whole answers or an error."""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import orjson

from sidelight.adapters._elastic_client import ElasticClient, UnreachableError
from sidelight.adapters._elastic_columns import NoteCache, columns_index
from sidelight.adapters._elastic_names import index_stem
from sidelight.adapters._query_cursor import Cursor
from sidelight.adapters._query_search import Hit
from sidelight.adapters._query_stream import CELLS, weight
from sidelight.adapters.errors import StoreError

_OK: Final = 200
_ANY: Final = {"ignore_unavailable": "true", "allow_no_indices": "true"}
# Half an answer would look like a whole one.
_WHOLE: Final = {**_ANY, "allow_partial_search_results": "false"}
# More than 10,000 hits are refused at once.
_MOST_HITS: Final = 10_000
_FIRST_DOCUMENTS: Final = 100
_DOCUMENTS: Final = 1_000
_IDS: Final = 1_000
_NOTES: Final = 1_000
_PLACE: Final = ("_index", "_id")
_GONE: Final = frozenset({200, 404})
_NOT_READY: Final = frozenset({429, 503})
_PAUSES_S: Final = (0.1, 0.3, 0.6)


class ElasticSearch:
    """Reads documents; any thread.

    Parameters
    ----------
    client : ElasticClient
    prefix : str
        Of every index.

    """

    def __init__(self, client: ElasticClient, prefix: str) -> None:
        self._client = client
        self._prefix = prefix
        self._notes = NoteCache()

    def hits(
        self,
        deployment: str | None,
        filters: Sequence[Mapping[str, Any]],
        *,
        descending: bool,
        after: Cursor | None,
        size: int,
    ) -> tuple[list[Hit], bool]:
        """Return the inferences of the first documents behind ``after``, and if there are more.

        Parameters
        ----------
        size : int
            Documents to look at; an inference has one for each of its rows.

        """
        size = min(size, _MOST_HITS)
        order = "desc" if descending else "asc"
        body: dict[str, Any] = {
            "size": size,
            "_source": False,
            "query": self._query(deployment, filters),
            "sort": [
                {"time_us": {"order": order, "unmapped_type": "long"}},
                {"inference_id": {"order": order, "unmapped_type": "keyword"}},
            ],
            "track_total_hits": False,
        }
        if after is not None:
            body["search_after"] = [after.time_us, after.id]
        found = self._search(self._pattern(deployment), body)
        hits: dict[str, Hit] = {}
        for hit in found:
            time_us, name = hit["sort"]
            hits.setdefault(name, Hit(time_us=time_us, id=name))
        return list(hits.values()), len(found) == size

    def documents(self, deployment: str | None, ids: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Yield every document of some inferences, of all revisions and days."""
        for begin in range(0, len(ids), _IDS):
            wanted = {"terms": {"inference_id": list(ids[begin : begin + _IDS])}}
            body: dict[str, Any] = {
                "query": self._query(deployment, [wanted]),
                # An inference may be in two indices until the older one is removed.
                "sort": [
                    {"inference_id": {"order": "asc", "unmapped_type": "keyword"}},
                    {"row": {"order": "asc", "unmapped_type": "integer"}},
                    "_index",
                ],
                "track_total_hits": False,
            }
            yield from self._sized(self._pattern(deployment), body)

    def _sized(self, index: str, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Yield documents, as many at a time as those before them let expect to fit in memory."""
        size = _FIRST_DOCUMENTS
        while True:
            hits = self._search(index, {**body, "size": size})
            for hit in hits:
                yield hit["_source"]
            if len(hits) < size:
                return
            body["search_after"] = hits[-1]["sort"]
            n_cells = sum(weight(hit["_source"]) for hit in hits)
            size = max(1, min(_DOCUMENTS, 4 * size, CELLS * len(hits) // max(n_cells, 1)))

    def notes(self, deployment: str | None) -> list[dict[str, Any]]:
        """Return the notes on the columns of a deployment, and of who shares its indices."""
        index = columns_index(self._prefix)
        stem = None
        query: dict[str, Any] = {"match_all": {}}
        if deployment is not None:
            stem = index_stem(self._prefix, "inferences", deployment)
            query = {"term": {"stem": stem}}
        known = self._notes.get(stem, self.count(index, query))
        if known is not None:
            return known
        sort = [{"key": {"order": "asc", "unmapped_type": "keyword"}}]
        body = {"size": _NOTES, "query": query, "sort": sort, "track_total_hits": False}
        notes = [hit["_source"] for hit in self._pages(index, body, _NOTES)]
        self._notes.put(stem, notes)
        return notes

    def indices(self, deployment: str) -> list[str]:
        """Return the indices of a deployment, and of who shares them, the oldest day first."""
        found = self.ask("GET", f"/{self._pattern(deployment)}/_alias", None, _ANY)
        return sorted(found)

    def places(
        self, deployment: str, filters: Sequence[Mapping[str, Any]], *, size: int
    ) -> list[dict[str, Any]]:
        """Return where some documents stand that match, in no order."""
        own = [{"term": {"deployment": deployment}}, *filters]
        return self.places_in(self._pattern(deployment), own, size=size)

    def places_in(
        self, index: str, filters: Sequence[Mapping[str, Any]], *, size: int
    ) -> list[dict[str, Any]]:
        """Return where some documents of any index stand that match, in no order."""
        query = {"bool": {"filter": list(filters)}}
        body = {"size": size, "_source": False, "query": query, "track_total_hits": False}
        return self._search(index, body)

    def count(self, index: str, query: Mapping[str, Any]) -> int:
        """Return how many documents of an index match."""
        return int(self.ask("POST", f"/{index}/_count", {"query": query}, _ANY)["count"])

    def delete(self, places: Sequence[Mapping[str, Any]]) -> int:
        """Delete documents where they stand; return how many are gone.

        Raises
        ------
        StoreError
            When the server deletes none of them.

        """
        left = [orjson.dumps({"delete": {name: hit[name] for name in _PLACE}}) for hit in places]
        statuses: set[int] = set()
        for pause_s in (0.0, *_PAUSES_S):
            time.sleep(pause_s)
            answer = self.ask("POST", "/_bulk", b"\n".join(left) + b"\n")
            told = [item["delete"]["status"] for item in answer["items"]]
            left = [line for line, status in zip(left, told, strict=True) if status not in _GONE]
            statuses = set(told) - _GONE
            if not left:
                break
        if len(left) == len(places):
            raise StoreError(f"the search server does not delete: {sorted(statuses)}")
        return len(places) - len(left)

    def refresh(self, deployment: str) -> None:
        """Have the server find what was written."""
        self.refresh_index(self._pattern(deployment))

    def refresh_index(self, index: str) -> None:
        """Have the server find what was written to some index."""
        self.ask("POST", f"/{index}/_refresh", None, _ANY)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _pattern(self, deployment: str | None) -> str:
        if deployment is None:
            return f"{self._prefix}-inferences-*"
        return f"{index_stem(self._prefix, 'inferences', deployment)}-*"

    def _query(
        self, deployment: str | None, filters: Sequence[Mapping[str, Any]]
    ) -> Mapping[str, Any]:
        own = [] if deployment is None else [{"term": {"deployment": deployment}}]
        return {"bool": {"filter": [*own, *filters]}}

    def _pages(self, index: str, body: dict[str, Any], size: int) -> Iterator[dict[str, Any]]:
        while True:
            hits = self._search(index, body)
            yield from hits
            if len(hits) < size:
                return
            body["search_after"] = hits[-1]["sort"]

    def _search(self, index: str, body: Mapping[str, Any]) -> list[dict[str, Any]]:
        answer = self.ask("POST", f"/{index}/_search", body, _WHOLE)
        hits: list[dict[str, Any]] = answer["hits"]["hits"]
        return hits

    def ask(
        self, method: str, path: str, body: Any, params: Mapping[str, str] | None = None
    ) -> Any:
        """Ask; a little later again when the server is not ready, as for a new index.

        Raises
        ------
        StoreError
            When there is no answer, or a refusal.

        """
        for pause_s in (*_PAUSES_S, None):
            try:
                answer = self._client.request(method, path, body, params or {})
            except UnreachableError as error:
                raise StoreError(f"the search server gives no answer ({error})") from error
            if answer.status == _OK:
                return answer.body
            if answer.status not in _NOT_READY or pause_s is None:
                break
            time.sleep(pause_s)
        told = answer.body.get("error") if isinstance(answer.body, dict) else None
        kind = told.get("type") if isinstance(told, dict) else told
        raise StoreError(f"the search server answers {answer.status} {kind or ''}".rstrip())
