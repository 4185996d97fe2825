"""How the requests of a deployment were laid out: one layout for each set of columns."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

# Traffic of one client has one; what only strays in must not push it out.
_MOST = 8


def columns_of(layout: dict[str, Any]) -> tuple[str, ...]:
    """Return the features that a request of this layout has, in the order of the payload."""
    return tuple(name for tensor in layout["tensors"] for name in tensor["columns"])


def layouts_of(inventory: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the layouts of a deployment, also where only the last one was kept."""
    if "layouts" in inventory:
        return list(inventory["layouts"])
    return with_layout([], inventory["layout"].get("request"))


def with_layout(
    layouts: Sequence[dict[str, Any]], layout: dict[str, Any] | None
) -> list[dict[str, Any]]:
    """Return layouts with a further one last, in place of an earlier one of the same columns.

    Nothing can be asked with a request that was not understood: it has no layout.
    """
    if layout is None or layout["protocol"] == "opaque" or not layout["tensors"]:
        return list(layouts)
    names = set(columns_of(layout))
    others = [known for known in layouts if set(columns_of(known)) != names]
    return [*others, layout][-_MOST:]


def fitting_layout(
    layouts: Sequence[dict[str, Any]], asked: Collection[str] | int, known: Collection[str]
) -> dict[str, Any] | None:
    """Return the layout in which a row is asked.

    Parameters
    ----------
    layouts : sequence of dict
        Oldest first.
    asked : collection of str, or int
        Columns of the row, or their number.
    known : collection of str
        Columns of the reference.

    Returns
    -------
    dict or None
        The last one with exactly the columns of the row; else the last one with columns of the
        reference alone, for which the row has to be right; None when there is no such.

    """
    newest = layouts[::-1]
    for layout in newest:
        columns = columns_of(layout)
        if isinstance(asked, int):
            fits = len(columns) == asked and set(columns) <= set(known)
        else:
            fits = set(columns) == set(asked)
        if fits:
            return layout
    return next((layout for layout in newest if set(columns_of(layout)) <= set(known)), None)
