"""What one step may bring into memory beyond the bytes that it was given.

Few bytes can stand for many: a compressed body, or the answer to a large request of before.
Whoever inflates bytes or reads them again says so here; whoever makes the step bounds it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final


class StepTooLarge(Exception):  # noqa: N818 - a request to take less, not an error
    """What was taken at once needs more memory than a step may have: take less of it."""


@dataclass(slots=True)
class _Allowance:
    left: int
    is_divisible: bool


_current: Final[ContextVar[_Allowance | None]] = ContextVar("step_memory", default=None)


@contextmanager
def step_memory(n_bytes: int, *, is_divisible: bool) -> Iterator[None]:
    """Bound what is spent inside; a step that cannot take less has no more than that inflated."""
    token = _current.set(_Allowance(n_bytes, is_divisible))
    try:
        yield
    finally:
        _current.reset(token)


def spend(n_bytes: int) -> bool:
    """Return whether there is room for so many bytes more.

    Raises
    ------
    StepTooLarge
        When there is none and the step can be made smaller.

    """
    allowance = _current.get()
    if allowance is None:
        return True
    allowance.left -= n_bytes
    if allowance.left < 0 and allowance.is_divisible:
        raise StepTooLarge
    return allowance.left >= 0
