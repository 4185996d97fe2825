"""When evidence began to rise, and how high it came."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sidelight.detectors._times import Mark, marks, written

# Without change evidence hovers a little above its low; this close to it, in decades, nothing
# has begun yet. Ours; with 0.02 half of the estimates are within 35 rows of the truth (shift of
# 0.6 deviations).
_NEAR = 0.02
# A chance gain stays in the capital, so the low may rise by this much a look, in decades; a change
# that matters gains decades a look.
_RISE = 0.1


class Risen(NamedTuple):
    """What the evidence of the rows of one look makes of several streams.

    Attributes
    ----------
    peaks, lows : ndarray of float, shape (n,)
        As of ``Rise``.
    were_low : ndarray of bool, shape (n,)
        Which streams have been at their low.
    began : ndarray of int, shape (n,)
        The row of the look that comes after the last low one, where there is one.

    """

    peaks: NDArray[np.float64]
    lows: NDArray[np.float64]
    were_low: NDArray[np.bool_]
    began: NDArray[np.intp]


@dataclass(slots=True)
class Rise:
    """Peaks of several streams of log10 evidence, and their estimated beginnings.

    Attributes
    ----------
    peaks : ndarray of float, shape (n,)
        Largest evidence so far. Ville's inequality is about it, so it may be read ever after.
    lows : ndarray of float, shape (n,)
        Smallest evidence of late.
    marks : list of str or int
        Of the row after which evidence last left its low: the estimated beginning of a change.

    """

    peaks: NDArray[np.float64]
    lows: NDArray[np.float64]
    marks: list[Mark]

    @classmethod
    def start(cls, n: int) -> "Rise":
        """Begin with no evidence."""
        return cls(np.zeros(n), np.full(n, np.inf), [""] * n)

    def after_each(self, evidence: NDArray[np.float64], n_looks: int) -> list["Risen"]:
        """Say what each of some looks makes of the evidence after each row, for ``take``.

        Parameters
        ----------
        evidence : ndarray of float, shape (n_rows, n)
            Of the rows since the last look, as many for each of these.

        """
        # Stream after stream, look after look.
        blocks = evidence.T.reshape(evidence.shape[1], n_looks, -1)
        peaks = np.maximum.accumulate(blocks.max(axis=2).T, axis=0)
        np.maximum(peaks, self.peaks, out=peaks)
        lows = np.ascontiguousarray(blocks.min(axis=2).T)
        before = self.lows
        for own in lows:
            before = np.minimum(before + _RISE, own, out=own)
        # Newest first, so that the first low row found is the last one.
        low = np.empty(blocks.shape, dtype=np.bool_)
        np.less_equal(blocks[:, :, ::-1], (lows + _NEAR).T[:, :, np.newaxis], out=low)
        last = blocks.shape[2] - 1
        # The low row itself is still unchanged; its successor may be in the next block.
        began = np.minimum(last - low.argmax(axis=2) + 1, last).T
        were_low = np.logical_or.reduce(low, axis=2).T
        return list(map(Risen, peaks, lows, were_low, began))

    def take(self, risen: "Risen", times: Sequence[str]) -> None:
        """Take what one look made of the rows since the last one, which were at these times."""
        self.peaks, self.lows = risen.peaks, risen.lows
        columns = np.flatnonzero(risen.were_low)
        for column, mark in zip(columns.tolist(), marks(times, risen.began[columns]), strict=True):
            self.marks[column] = mark

    def since(self, place: int) -> str:
        """Return the estimated beginning of a change in one stream; empty before the first rows."""
        return written(self.marks[place : place + 1])[0]

    def to_parts(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Return what a snapshot keeps."""
        return {"since": written(self.marks)}, {"peaks": self.peaks, "lows": self.lows}

    @classmethod
    def from_parts(cls, head: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> "Rise":
        """Read what ``to_parts`` returned."""
        return cls(arrays["peaks"], arrays["lows"], list(head["since"]))
