"""Occurrence times of rows, written out only where one is said."""

from collections.abc import Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray

from sidelight.detectors.errors import SampleError

# A time that was kept: as text, or as microseconds that nobody has read yet. Most never are.
Mark = str | int


class Times(Sequence[str]):
    """Times as ``Rows`` takes them: RFC 3339 in UTC with microseconds, from their numbers.

    Of the rows of a look a dozen times are said at most; writing all of them out costs more
    than some of the tests.

    Parameters
    ----------
    microseconds : ndarray of int, shape (n,)
        Since 1970 UTC, of the years 1 to 9999. Read, not copied.

    Raises
    ------
    SampleError
        For another shape.

    Examples
    --------
    >>> Times(np.array([0, 1_500_000]))[1]
    '1970-01-01T00:00:01.500000Z'

    """

    __slots__ = ("microseconds",)

    def __init__(self, microseconds: NDArray[np.int64]) -> None:
        if microseconds.ndim != 1:
            raise SampleError("times", expected="shape (n,)", got=microseconds.shape)
        self.microseconds = microseconds

    def __len__(self) -> int:
        return self.microseconds.size

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> "Times": ...
    def __getitem__(self, place: int | slice) -> "str | Times":
        if isinstance(place, slice):
            # A copy: a few rows that wait for a look must not hold the numbers of a whole batch.
            return Times(self.microseconds[place].copy())
        return self.said([place])[0]

    def said(self, places: Sequence[int] | NDArray[np.intp]) -> list[str]:
        """Return the times at some places; one of them costs nearly as much as twenty."""
        chosen = self.microseconds[np.asarray(places, dtype=np.intp)].astype("datetime64[us]")
        return [f"{text}Z" for text in np.datetime_as_string(chosen).tolist()]


def marks(times: Sequence[str], places: NDArray[np.intp]) -> list[Mark]:
    """Return the times at some places, for ``written``."""
    if isinstance(times, Times):
        return list(times.microseconds[places].tolist())
    return [times[place] for place in places.tolist()]


def written(marks: Sequence[Mark]) -> list[str]:
    """Write out the times that are not yet."""
    numbers = [mark for mark in marks if isinstance(mark, int)]
    texts = iter(Times(np.array(numbers, dtype=np.int64)).said(range(len(numbers))))
    return [next(texts) if isinstance(mark, int) else mark for mark in marks]


def joined(parts: Sequence[Sequence[str]]) -> Sequence[str]:
    """Return the times of consecutive rows as one sequence."""
    if len(parts) == 1:
        return parts[0]
    numbers = [part.microseconds for part in parts if isinstance(part, Times)]
    if parts and len(numbers) == len(parts):
        return Times(np.concatenate(numbers))
    return [time for part in parts for time in part]
