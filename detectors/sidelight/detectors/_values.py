"""One form for the values of a column, however the wire carried them."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# A whole number up to here has one decimal form, as float and as int.
_LARGEST_WHOLE = 2.0**53
# No category is longer, and of longer text nothing is asked but whether it is the same.
_LONGEST_WORD = 256
_SHOWN = 64


@dataclass(frozen=True, slots=True)
class Values:
    """Numbers where the values are numbers, words where they are not.

    ``numbers`` has shape (n,), NaN where the value is missing or a word. ``words`` holds the words
    by row. So a column of numbers that arrives as objects is the same as one of floats. Words of
    more than 256 characters are their beginning and a digest, so that what is kept stays small.
    """

    numbers: NDArray[np.float64]
    words: dict[int, str]

    def as_categories(self) -> list[str | None]:
        """Every value as a word; None where it is missing."""
        result: list[str | None] = [None] * self.numbers.size
        for row in np.flatnonzero(~np.isnan(self.numbers)).tolist():
            result[row] = number_word(float(self.numbers[row]))
        for row, word in self.words.items():
            result[row] = word
        return result


def number_word(value: float) -> str:
    """Write a number as a category: ``1`` for 1 and 1.0, ``0.5`` for 0.5."""
    if value.is_integer() and abs(value) <= _LARGEST_WHOLE:
        return str(int(value))
    return repr(value)


def bounded(word: str) -> str:
    """Return a word, or what stands for a long one: equal for equal ones alone."""
    if len(word) <= _LONGEST_WORD:
        return word
    digest = hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    return f"{word[:_SHOWN]}... {digest}"


def values_of(array: NDArray[Any]) -> Values:
    """Read an array of shape (n,); infinities, NaN and None are missing."""
    if array.dtype.kind in "fiu":
        # Numbers beyond float64 (of long doubles) become infinite, which is missing, not an error.
        with np.errstate(over="ignore"):
            numbers = array.astype(np.float64)
        infinite = np.isinf(numbers)
        if infinite.any():
            numbers[infinite] = np.nan
        return Values(numbers, {})
    return _of_objects(array.tolist())


def is_monitorable(array: NDArray[Any]) -> bool:
    """Whether an array holds one value a row; tensors and lists do not."""
    return array.ndim == 1 and array.dtype.kind in "fiubOUS"


def _of_objects(items: Sequence[Any]) -> Values:
    numbers = np.full(len(items), np.nan)
    words: dict[int, str] = {}
    for row, item in enumerate(items):
        if type(item) is str:
            words[row] = item if len(item) <= _LONGEST_WORD else bounded(item)
        elif item is None:
            continue
        elif isinstance(item, bool | np.bool_):
            words[row] = "true" if item else "false"
        elif isinstance(item, int | float | np.number):
            numbers[row] = _finite(item)
        else:
            text = item.decode("utf-8", "replace") if isinstance(item, bytes) else str(item)
            words[row] = bounded(text)
    return Values(numbers, words)


def _finite(item: Any) -> float:
    try:
        value = float(item)
    except (OverflowError, TypeError):  # a whole number beyond float64, or a complex one
        return math.nan
    return value if math.isfinite(value) else math.nan
