"""Clauses of a query of Elasticsearch or OpenSearch, and what a column is there."""

import math
from dataclasses import dataclass
from typing import Any, Final

from sidelight.adapters._where_sql import Kind

Query = dict[str, Any]

NOTHING: Final[Query] = {"match_none": {}}
ANYTHING: Final[Query] = {"match_all": {}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """How a column stands in the index.

    Parameters
    ----------
    path : str
        Of the field.
    kinds : frozenset of Kind
        Every kind that its values have anywhere. With more than one, an index may hold one in the
        field of another, and only the values as they were stored tell.
    single : bool
        Whether some of it are float32.
    limit : float, default infinite
        Largest magnitude of a number that the field takes, also in a query.
    unfound : sequence of queries
        Documents that have a value which the index does not find.
    doubtful : sequence of queries
        Documents that may have one.

    """

    path: str
    kinds: frozenset[Kind]
    single: bool = False
    limit: float = math.inf
    unfound: tuple[Query, ...] = ()
    doubtful: tuple[Query, ...] = ()

    @property
    def is_mixed(self) -> bool:
        """Whether an index may have made something else of a value: of an empty text nothing."""
        return len(self.kinds - {"other"}) > 1


def exists(field: Field) -> Query:
    """Return what finds documents whose column the index has."""
    return {"exists": {"field": field.path}}


def hidden(field: Field) -> list[Query]:
    """Return what finds documents that may have a value which the index does not find."""
    return [*field.unfound, *field.doubtful]


def without(field: Field, query: Query) -> Query:
    """Return what finds an indexed column of which a query does not hold."""
    return {"bool": {"filter": [exists(field)], "must_not": [query]}}


def every(parts: list[Query]) -> Query:
    """Return what finds documents of which all parts hold."""
    return NOTHING if NOTHING in parts else {"bool": {"filter": parts}}


def some(parts: list[Query]) -> Query:
    """Return what finds documents of which one part holds."""
    parts = [part for part in parts if part != NOTHING]
    if not parts:
        return NOTHING
    if len(parts) == 1:
        return parts[0]
    return {"bool": {"should": parts, "minimum_should_match": 1}}


def n_clauses(query: Query) -> int:
    """Return how many clauses a server has to look at."""
    if "bool" not in query:
        return 1
    parts = [part for name, part in query["bool"].items() if name != "minimum_should_match"]
    return sum(n_clauses(clause) for clauses in parts for clause in clauses)
