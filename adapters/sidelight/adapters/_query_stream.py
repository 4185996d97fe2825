"""Reading what matches some at a time, so that large inferences do not fill the memory."""

from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeVar

from sidelight.adapters._query_cursor import Cursor
from sidelight.adapters._query_question import MAX_LIMIT
from sidelight.payloads import Inference

Page = Callable[[Cursor | None, int], tuple[list[Inference], Cursor | None]]
"""From the end of the page before and a size to a page and its end, which is None at the last."""

Hit = TypeVar("Hit")

_FIRST: Final = 100
CELLS: Final = 500_000
"""Values on a page, as Python holds them about 50 MB."""
# Values of one answer, beyond which its page ends.
_MOST_CELLS: Final = 2_000_000
_FIRST_PORTION: Final = 50


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
        size = max(1, min(most, CELLS * len(items) // max(n_cells, 1)))


def portion(
    read: Callable[[Sequence[Hit]], list[Inference]], hits: Sequence[Hit]
) -> tuple[list[Inference], int]:
    """Read the inferences of a page, until they are all or too much for one answer.

    Returns
    -------
    items : list of Inference
        In the order of the hits.
    n_read : int
        How many of the hits they are; at least one unless there is none.

    """
    items: list[Inference] = []
    n_cells = n_read = 0
    size = _FIRST_PORTION
    while n_read < len(hits) and n_cells < _MOST_CELLS:
        some = read(hits[n_read : n_read + size])
        items += some
        n_read = min(n_read + size, len(hits))
        n_cells += sum(_cells(item) for item in some)
        room = (_MOST_CELLS - n_cells) * n_read // max(n_cells, 1)
        size = max(1, min(4 * size, room))
    return items, n_read


def _cells(item: Inference) -> int:
    if not item.rows:
        return 1
    # The rows of an inference are alike.
    row = item.rows[0]
    return len(item.rows) * (weight(row.features) + weight(row.outputs) + 1)


def weight(values: object) -> int:
    """Return how many values something holds, nested ones too; of a long list, about."""
    match values:
        case dict():
            return sum(map(weight, values.values()))
        case list():
            return len(values) * (weight(values[0]) or 1) if values else 1
        case str():
            return 1 + len(values) // 64
        case _:
            return 1
