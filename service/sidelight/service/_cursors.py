"""Opaque cursors over lists of documents, and the answer that carries one."""

import base64
import binascii
from collections.abc import Callable
from typing import Any

import orjson

from sidelight.logger import Documents
from sidelight.service.errors import BadRequest

Item = dict[str, Any]


def list_documents(
    documents: Documents,
    collection: str,
    *,
    deployment: str | None,
    order: str,
    limit: int,
    cursor: str | None,
    keep: Callable[[Item], bool] = lambda _: True,
) -> dict[str, Any]:
    """Return one page ``{"items", "next"}`` of a collection.

    Parameters
    ----------
    order : "time" or "-time"
        Oldest or newest first.
    keep : callable
        Filter on the documents' values; a page is filled with what it keeps.

    Raises
    ------
    BadRequest
        If order or cursor cannot be read.

    """
    if order not in {"time", "-time"}:
        raise BadRequest("order: unknown", expected="time or -time", got=order)
    after = None if cursor is None else _decode(cursor)
    items: list[tuple[str, str, Item]] = []
    while len(items) <= limit:
        page = documents.find(
            collection,
            deployment=deployment,
            descending=order == "-time",
            after=after,
            limit=1000,
        )
        items.extend(item for item in page if keep(item[2]))
        if len(page) < 1000:  # noqa: PLR2004 - the page size above
            break
        after = page[-1][:2]
    shown = items[:limit]
    more = len(items) > limit
    return {
        "items": [value for _, _, value in shown],
        "next": _encode(*shown[-1][:2]) if more else None,
    }


def _encode(order: str, key: str) -> str:
    return base64.urlsafe_b64encode(orjson.dumps([order, key])).decode().rstrip("=")


def _decode(cursor: str) -> tuple[str, str]:
    try:
        order, key = orjson.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (ValueError, binascii.Error, TypeError) as error:
        raise BadRequest(
            "cursor: cannot be read", expected="the `next` of an earlier answer", got=cursor[:80]
        ) from error
    return str(order), str(key)
