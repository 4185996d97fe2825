"""The filters of an audit query, checked once for whichever store answers it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sidelight.adapters._query_cursor import Order, digest
from sidelight.adapters._query_time import parse_time
from sidelight.adapters._where import ColumnName, Expression, parse, predicates
from sidelight.adapters.errors import QueryError

MAX_LIMIT = 1_000
"""Inferences on one page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Filters as they were asked, checked."""

    deployment: str | None
    version: str | None
    start_us: int | None
    end_us: int | None
    text: str | None
    where: Expression | None

    def digest(self, order: str) -> str:
        """Return what identifies the question, for its cursors."""
        return digest(self.deployment, self.version, self.start_us, self.end_us, self.text, order)

    @property
    def columns(self) -> Sequence[ColumnName]:
        """The columns that ``where`` names, from left to right."""
        if self.where is None:
            return []
        return [predicate.column for predicate in predicates(self.where)]


def checked_question(
    deployment: str | None,
    version: str | None,
    from_: str | None,
    to: str | None,
    where: str | None,
) -> Question:
    """Return the filters of a query.

    Raises
    ------
    QueryError
        If one cannot be understood; ``WhereError`` when it is ``where``.

    """
    text = where if where and where.strip() else None
    return Question(
        deployment=deployment,
        version=version,
        start_us=None if from_ is None else parse_time(from_, "from"),
        end_us=None if to is None else parse_time(to, "to"),
        text=text,
        where=None if text is None else parse(text),
    )


def checked_order(order: str) -> Order:
    """Return the order of a list, or raise ``QueryError``."""
    orders: dict[str, Literal["time", "-time"]] = {"time": "time", "-time": "-time"}
    if order not in orders:
        raise QueryError("order", expected="time or -time", got=ascii(order[:40]))
    return orders[order]


def checked_limit(limit: int) -> int:
    """Return the number of inferences on a page, or raise ``QueryError``."""
    if not 1 <= limit <= MAX_LIMIT:
        raise QueryError("limit", expected=f"1 to {MAX_LIMIT}", got=str(limit))
    return limit
