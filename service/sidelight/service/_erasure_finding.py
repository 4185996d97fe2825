"""Which inferences an order means, and whether they may go."""

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from sidelight.adapters import WhereError
from sidelight.adapters._query_columns import OWN_COLUMNS
from sidelight.adapters._query_time import parse_time
from sidelight.adapters._where import MAX_LENGTH
from sidelight.payloads import Inference
from sidelight.service._erasure_orders import ErasureOrder
from sidelight.service._holds import Hold, refuse_held
from sidelight.service.errors import OnHold

_PAGE: Final = 1000
_MADE_ID: Final = "missing-"
_SECTIONS: Final = frozenset({"features", "outputs", "labels"})

Find = Callable[..., tuple[list[Inference], str | None]]
Others = Callable[[set[str]], Iterable[set[str]]]
"""From ids of requests to ids of their inferences, a few at a time."""


@dataclass(slots=True)
class Found:
    """Inferences by their ids, and what an erasure needs of them.

    Parameters
    ----------
    inferences : dict of str to int
        Times of the requests by inference id, microseconds since 1970 UTC.
    request_ids : set of str
        Their requests; every inference of a request goes with it.
    known : set of str
        Those of them that an inference has.
    rows : int
        How many rows they have.
    refs : set of str
        Where halves stand in the archive that came without an id: theirs was made from the place,
        and the door could not know it.
    values : set of int
        What ``row_values`` makes of each row.
    unknown : int
        Ids that no inference of the deployment has.

    """

    inferences: dict[str, int] = field(default_factory=dict)
    request_ids: set[str] = field(default_factory=set)
    known: set[str] = field(default_factory=set)
    rows: int = 0
    refs: set[str] = field(default_factory=set)
    values: set[int] = field(default_factory=set)
    unknown: int = 0

    def add(self, inference: Inference) -> None:
        """Take one inference into account, once."""
        if inference.id in self.inferences:
            return
        self.inferences[inference.id] = parse_time(inference.time, "time")
        self.request_ids.add(inference.request_id)
        self.known.add(inference.request_id)
        self.rows += len(inference.rows)
        if inference.request_id.startswith(_MADE_ID):
            refs = (inference.request_ref, inference.response_ref)
            self.refs.update(ref for ref in refs if ref)
        for row in inference.rows:
            self.values.add(row_values(row.features, row.outputs))


def row_values(features: Any, outputs: Any) -> int:
    """Return a number that two rows share which have the same values, in any process.

    Floats are compared as 32 bits: a column that was joined with another one may have become wider.
    """
    named = [(f"features.{name}", value) for name, value in features.items()]
    named += [(f"outputs.{name}", value) for name, value in outputs.items()]
    found = sorted((name, repr(_comparable(value))) for name, value in named if value is not None)
    digest = hashlib.blake2b(repr(found).encode("utf-8", "surrogatepass"), digest_size=8)
    return int.from_bytes(digest.digest(), "little")


def find(
    order: ErasureOrder,
    find_page: Find,
    *,
    others: Others | None = None,
    found: Found | None = None,
) -> Iterator[Found | None]:
    """Look for what an order means, piece by piece; the last is what was found.

    Parameters
    ----------
    order : ErasureOrder
        By expression, by ids of inferences or by ids of requests.
    find_page : callable
        ``find`` of the lake.
    others : callable, optional
        A quicker way than queries to all inferences of requests.
    found : Found, optional
        What was found before; it is not looked up again.

    Raises
    ------
    QueryError
        When the expression cannot be understood.

    """
    found = Found() if found is None else found
    ids = sorted(set(order.ids) - found.inferences.keys())
    for page in _pages(find_page, order.deployment, _any_of("id", ids)):
        for item in page:
            found.add(item)
        yield None
    found.unknown = len(set(ids) - found.inferences.keys())
    for page in _matching(order, find_page):
        for item in page:
            found.add(item)
        yield None
    # Other nodes of a graph, and a request id that was used twice, belong to the same request.
    found.request_ids.update(order.request_ids)
    expressions = _any_of("request_id", sorted(found.request_ids))
    if others is not None:
        extra: set[str] = set()
        for some in others(found.request_ids):
            extra |= some - found.inferences.keys()
            yield None
        expressions = _any_of("id", sorted(extra))
    for page in _pages(find_page, order.deployment, expressions):
        for item in page:
            found.add(item)
        yield None
    yield found


def refuse_if_held(found: Found, deployment: str, holds: Sequence[Hold]) -> None:
    """Raise ``OnHold`` when a hold covers any of it; requests without a time count as covered."""
    for time_us in found.inferences.values():
        refuse_held(holds, deployment, time_us, time_us)
    if found.request_ids <= found.known:
        return
    for hold in holds:
        if hold.deployment == deployment:
            raise OnHold(
                f"{deployment}: on legal hold {hold.id} by {hold.by}: {hold.reason}; when the "
                "requests came is not known any more",
                hint=f"sidelight hold release {hold.id} --reason ... ends it",
            )


def subject_expressions(subject: str) -> list[str]:
    """Return what ``COLUMN=VALUE`` may mean: a text, a number or a truth.

    Examples
    --------
    >>> for expression in subject_expressions("customer_id=17"):
    ...     print(expression)
    features."customer_id" = '17'
    features."customer_id" = 17.0

    """
    name, _, value = subject.partition("=")
    section, dot, rest = name.strip().partition(".")
    if dot and section in _SECTIONS:
        column = f'{section}."{_doubled(rest)}"'
    elif name.strip() in OWN_COLUMNS:
        column = name.strip()
    else:
        column = f'features."{_doubled(name.strip())}"'
    literals = [_quoted(value.strip())]
    with suppress(ValueError):
        if math.isfinite(number := float(value)):
            literals.append(repr(number))
    if value.strip().lower() in {"true", "false"}:
        literals.append(value.strip().lower())
    return [f"{column} = {literal}" for literal in literals]


def _matching(order: ErasureOrder, find_page: Find) -> Iterator[list[Inference]]:
    if order.where.strip():
        yield from _pages(find_page, order.deployment, [order.where])
    if not order.subject:
        return
    refused: list[WhereError] = []
    expressions = subject_expressions(order.subject)
    for expression in expressions:
        try:
            yield from _pages(find_page, order.deployment, [expression])
        except WhereError as error:
            # The column holds values of another kind.
            refused.append(error)
    if len(refused) == len(expressions):
        raise refused[0]


def _pages(
    find_page: Find, deployment: str, expressions: Iterable[str]
) -> Iterator[list[Inference]]:
    for where in expressions:
        cursor: str | None = None
        while True:
            items, cursor = find_page(
                deployment=deployment, where=where, order="time", limit=_PAGE, cursor=cursor
            )
            yield items
            if cursor is None:
                break


def _any_of(column: str, values: Sequence[str]) -> list[str]:
    """Return expressions that are as long as one may be; what is longer alone is found by id."""
    room = MAX_LENGTH - len(f"{column} in ()")
    groups: list[list[str]] = []
    left = 0
    for literal in map(_quoted, values):
        size = len(literal) + len(", ")
        if size > room:
            continue
        if size > left:
            groups.append([])
            left = room
        groups[-1].append(literal)
        left -= size
    return [f"{column} in ({', '.join(group)})" for group in groups]


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _doubled(name: str) -> str:
    return name.replace('"', '""')


def _comparable(value: Any) -> Any:
    match value:
        case str():
            return value
        case int() | float():
            # Zero has one sign, and true is 1, as where columns were joined.
            return _narrow(float(value)) + 0.0
        case list() | tuple():
            return tuple(map(_comparable, value))
        case dict():
            return tuple(sorted((name, _comparable(of)) for name, of in value.items()))
    return repr(value)


def _narrow(value: float) -> float:
    import numpy as np  # noqa: PLC0415 - only an erasure needs it

    with np.errstate(over="ignore"):
        return float(np.float32(value))
