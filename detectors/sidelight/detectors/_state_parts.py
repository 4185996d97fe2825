"""The state of a watch in parts, so that a commit writes only what its rows changed.

A window of a thousand rows of twenty columns has 43 kB, the bags 11; rows that come change a
sixteenth of the one and, from look to look, nothing of the other.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sidelight.detectors._archive import pack, unpack
from sidelight.detectors._watch import Watch
from sidelight.detectors.errors import SnapshotError

BASE = "base"
HEAD = "head"
EVIDENCE = "evidence"
_N_SLOTS = 16
_CELL = np.dtype("<u2")

_WINDOW = tuple(f"window{slot:02d}" for slot in range(_N_SLOTS))

STATE_PARTS: tuple[str, ...] = (BASE, HEAD, EVIDENCE, *_WINDOW)
"""Names of all parts that the state of a monitor can have."""


def changed_parts(watch: Watch, since: int | None) -> dict[str, bytes]:
    """Return evidence and window as far as they changed since the watch had taken so many rows.

    All of it for None.
    """
    parts = {}
    look_rows = watch.settings.look_rows
    if since is None or watch.rows // look_rows != since // look_rows:
        parts[EVIDENCE] = pack(*watch.evidence_parts())
    for slot in _slots_since(watch, since or 0):
        cells, outliers = _slot(watch, slot)
        parts[_WINDOW[slot]] = cells.astype(_CELL, copy=False).tobytes() + outliers.tobytes()
    return parts


def resume_parts(
    watch: Watch,
    head: Mapping[str, Any],
    arrays: Mapping[str, NDArray[Any]],
    parts: Mapping[str, bytes],
) -> None:
    """Continue from a head and from the last form of every other part.

    Raises
    ------
    SnapshotError
        If a part is missing, damaged or of another size.

    """
    evidence, evidence_arrays = unpack(parts.get(EVIDENCE, b""), EVIDENCE)
    watch.resume({**head, **evidence}, {**arrays, **evidence_arrays})
    for slot in _slots_since(watch, 0):
        cells, outliers = _slot(watch, slot)
        data = parts.get(_WINDOW[slot], b"")
        expected = cells.size * _CELL.itemsize + outliers.size
        if len(data) != expected:
            raise SnapshotError(_WINDOW[slot], expected=f"{expected} bytes", got=len(data))
        found = np.frombuffer(data, dtype=_CELL, count=cells.size)
        cells[:] = found.reshape(cells.shape)
        outliers[:] = np.frombuffer(data, dtype=np.bool_, offset=found.nbytes)


def _slot_rows(watch: Watch) -> int:
    return -(-watch.settings.window_rows // _N_SLOTS)


def _slot(watch: Watch, slot: int) -> tuple[NDArray[np.uint16], NDArray[np.bool_]]:
    """Return the rows of a slot that are filled."""
    rows = _slot_rows(watch)
    place = slice(slot * rows, min((slot + 1) * rows, watch.rows, watch.settings.window_rows))
    return watch.cells[place], watch.outliers[place]


def _slots_since(watch: Watch, since: int) -> Iterable[int]:
    """Return the slots that the rows since then were put into, ascending."""
    window, rows = watch.settings.window_rows, _slot_rows(watch)
    first, last = max(since, watch.rows - window), watch.rows - 1
    if last < first:
        return ()
    begin, end = first % window // rows, last % window // rows
    if first // window == last // window:
        return range(begin, end + 1)
    # Around the end of the window, and from its beginning on.
    return sorted({*range(end + 1), *range(begin, -(-window // rows))})
