"""Opaque cursors over lists of documents and of names, and the answer that carries one."""

import base64
import binascii
import heapq
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import orjson

from sidelight.logger import Documents
from sidelight.service.errors import BadRequest

Item = dict[str, Any]
ItemsOf = Callable[[Item], list[Item]]
_Place = tuple[str, str, int]

_PAGE = 200


def list_documents(
    documents: Documents,
    collection: str,
    *,
    deployment: str | None,
    order: str,
    limit: int,
    cursor: str | None,
    items_of: ItemsOf = lambda value: [value],
    beside: Mapping[str, ItemsOf] | None = None,
) -> dict[str, Any]:
    """Return one page ``{"items", "next"}`` of a collection, or of several in one order.

    Parameters
    ----------
    order : "time" or "-time"
        Oldest or newest first.
    items_of : callable
        Returns what one document adds to the list: itself, nothing, or several items.
    beside : mapping of str to callable, optional
        Further collections, whose keys are none of the first one's, with theirs.

    Raises
    ------
    BadRequest
        If order or cursor cannot be read.

    """
    if order not in {"time", "-time"}:
        raise BadRequest("order: unknown", expected="time or -time", got=order)
    start = None if cursor is None else _decode(cursor)
    descending = order == "-time"
    found = heapq.merge(
        *(
            _items(documents, name, deployment, descending, start, of)
            for name, of in {collection: items_of, **(beside or {})}.items()
        ),
        key=lambda item: item[0][:2],
        reverse=descending,
    )
    page = list(islice(found, limit + 1))
    more = len(page) > limit
    return {
        "items": [item for _, item in page[:limit]],
        "next": _encode(page[limit - 1][0]) if more else None,
    }


def list_names(
    names: Sequence[str], *, limit: int, cursor: str | None
) -> tuple[Sequence[str], str | None]:
    """Return one page of sorted names, and the cursor of the next one, None behind the last.

    Raises
    ------
    BadRequest
        If the cursor cannot be read.

    """
    start = 0 if cursor is None else bisect_right(names, _decode(cursor)[1])
    page = names[start : start + limit]
    more = start + limit < len(names)
    return page, _encode(("", page[-1], 0)) if more else None


def _items(
    documents: Documents,
    collection: str,
    deployment: str | None,
    descending: bool,  # noqa: FBT001 - private, and named by its only caller's expression
    start: _Place | None,
    items_of: ItemsOf,
) -> Iterator[tuple[_Place, Item]]:
    if start is not None:
        value = documents.get(collection, start[1]) or {}
        rest = items_of(value)[start[2] + 1 :] if value else []
        for index, item in enumerate(rest, start[2] + 1):
            # Whoever forges a cursor can name any document, also one that is not for him.
            if deployment in {None, item["deployment"]}:
                yield (start[0], start[1], index), item
    after = None if start is None else start[:2]
    while page := documents.find(
        collection, deployment=deployment, descending=descending, after=after, limit=_PAGE
    ):
        for place, key, value in page:
            for index, item in enumerate(items_of(value)):
                yield (place, key, index), item
        after = page[-1][:2]


def _encode(place: _Place) -> str:
    return base64.urlsafe_b64encode(orjson.dumps(place)).decode().rstrip("=")


def _decode(cursor: str) -> _Place:
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        place = orjson.loads(text)
    except (ValueError, binascii.Error):
        place = None
    match place:
        case [str() as order, str() as key, int() as index] if index >= 0:
            return order, key, index
    raise BadRequest(
        "cursor: cannot be read", expected="the `next` of an earlier answer", got=cursor[:80]
    )
