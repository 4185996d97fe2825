"""Deleting what is too old from a search server, a piece at a time."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sidelight.adapters._elastic_days import DAY
from sidelight.adapters._elastic_search import ElasticSearch
from sidelight.adapters._lake_expiry import Span, meets
from sidelight.adapters._query_time import format_time
from sidelight.adapters._seldon_layout import ID_FIELD, LOGGED, REPLY_FIELD, of_deployment

_SECOND_US: Final = 1_000_000
_DAY_US: Final = 86_400 * _SECOND_US
_DOCUMENTS: Final = 1_000


class ElasticExpiry:
    """Deletes old documents; it asks once, so that a server that is down delays nobody.

    Parameters
    ----------
    search : ElasticSearch

    """

    def __init__(self, search: ElasticSearch) -> None:
        self._search = search

    def deployments(self) -> list[str]:
        """Return every deployment that ever had documents."""
        return sorted({note["deployment"] for note in self._search.notes(None)})

    def expire(self, deployment: str, *, before_us: int, kept: Sequence[Span] = ()) -> int:
        """Delete an index, or some documents, with older times; return how many documents.

        Call it again until it returns 0.

        Parameters
        ----------
        before_us : int
            Rows of an earlier time go, microseconds since 1970 UTC.
        kept : sequence of (from, to), default empty
            Rows of these times stay, however old they are.

        Raises
        ------
        StoreError
            When the server did not do it.

        """
        for index in self._search.indices(deployment):
            if _is_over(index, before_us, kept):
                gone = self._drop(index, deployment)
                if gone is not None:
                    return gone
        return self._delete(deployment, before_us, kept) or self._delete_logged(
            deployment, before_us, kept
        )

    def _delete_logged(self, deployment: str, before_us: int, kept: Sequence[Span]) -> int:
        """Delete what is in Seldon's layout, whether it is written now or was once."""
        spans = [_range(span, format_time, "@timestamp") for span in kept]
        old = {"range": {"@timestamp": {"lt": format_time(before_us)}}}
        # Whatever else is called so: nothing is deleted that we did not write.
        fields = [{"exists": {"field": name}} for name in (ID_FIELD, REPLY_FIELD)]
        own = {"bool": {"should": fields, "minimum_should_match": 1}}
        filters = [*of_deployment(deployment), old, own, {"bool": {"must_not": spans}}]
        hits = self._search.places_in(LOGGED, filters, size=_DOCUMENTS)
        if not hits:
            return 0
        number = self._search.delete(hits)
        self._search.refresh_index(LOGGED)
        return number

    def close(self) -> None:
        """Close the connections."""
        self._search.close()

    def _drop(self, index: str, deployment: str) -> int | None:
        """Delete an index, unless another deployment has rows in it."""
        # What was written a moment ago is not counted before.
        self._search.refresh(deployment)
        others = {"bool": {"must_not": [{"term": {"deployment": deployment}}]}}
        if self._search.count(index, others):
            return None
        number = self._search.count(index, {"match_all": {}})
        self._search.ask("DELETE", f"/{index}", None)
        # An index without documents is something that was done, too.
        return max(number, 1)

    def _delete(self, deployment: str, before_us: int, kept: Sequence[Span]) -> int:
        old = {"range": {"time_us": {"lt": before_us}}}
        spans = [_range(span) for span in kept]
        self._search.refresh(deployment)
        hits = self._search.places(
            deployment, [old, {"bool": {"must_not": spans}}], size=_DOCUMENTS
        )
        if not hits:
            return 0
        number = self._search.delete(hits)
        self._search.refresh(deployment)
        return number


def _is_over(index: str, before_us: int, kept: Sequence[Span]) -> bool:
    match = DAY.search(index)
    if match is None:
        return False
    try:
        day = datetime.fromisoformat(match[1]).replace(tzinfo=UTC)
    except ValueError:
        return False
    start_us = (day - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    end_us = start_us + _DAY_US
    return end_us <= before_us and not any(meets(start_us, end_us - 1, span) for span in kept)


def _range(
    span: Span, written: Callable[[int], int | str] = int, field: str = "time_us"
) -> dict[str, Any]:
    bounds = {
        name: written(at) for name, at in zip(("gte", "lt"), span, strict=True) if at is not None
    }
    return {"range": {field: bounds}} if bounds else {"match_all": {}}
