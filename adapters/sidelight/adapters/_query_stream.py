"""One walk over everything that matches, some inferences at a time."""

from collections.abc import Callable, Iterator
from typing import Final

from sidelight.adapters._query_cursor import Cursor
from sidelight.adapters._query_question import MAX_LIMIT
from sidelight.payloads import Inference

Page = Callable[[Cursor | None, int], tuple[list[Inference], Cursor | None]]
"""From the end of the page before and a size to a page and its end, which is None at the last."""

_FIRST: Final = 100
# Values on a page, as Python holds them about 50 MB.
_CELLS: Final = 500_000


def walk(page: Page, *, limit: int | None = None) -> Iterator[list[Inference]]:
    """Yield pages, as large as the inferences before them let expect to fit into memory.

    Parameters
    ----------
    page : callable
        Reads one page.
    limit : int, optional
        Inferences at most, over all pages.

    """
    size, cursor, left = _FIRST, None, limit
    while left is None or left > 0:
        items, cursor = page(cursor, size if left is None else min(size, left))
        yield items
        if cursor is None:
            return
        if left is not None:
            left -= len(items)
        n_cells = sum(_cells(item) for item in items)
        # One page of little does not make the next one of much too large.
        most = min(MAX_LIMIT, 4 * size)
        size = max(1, min(most, _CELLS * len(items) // max(n_cells, 1)))


def _cells(item: Inference) -> int:
    if not item.rows:
        return 1
    # The rows of an inference are alike.
    row = item.rows[0]
    return len(item.rows) * (_weight(row.features) + _weight(row.outputs) + 1)


def _weight(values: object) -> int:
    match values:
        case dict():
            return sum(map(_weight, values.values())) + len(values)
        case list():
            return len(values) * (_weight(values[0]) or 1) if values else 1
        case str():
            return len(values) // 64
        case _:
            return 1
