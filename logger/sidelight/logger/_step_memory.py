"""What one step may bring into memory beyond the bytes that it was given.

Few bytes can stand for many: a compressed body, or the answer to a large request of before.
Whoever inflates bytes or reads them again says so here; whoever makes the step bounds it, and
makes a smaller one where it was too much. What becomes of an event never depends on that.
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


_current: Final[ContextVar[_Allowance | None]] = ContextVar("step_memory", default=None)


@contextmanager
def step_memory(n_bytes: int | None) -> Iterator[None]:
    """Bound what is spent inside; None where the step cannot take less, so that nothing is lost."""
    token = _current.set(None if n_bytes is None else _Allowance(n_bytes))
    try:
        yield
    finally:
        _current.reset(token)


def spend(n_bytes: int) -> None:
    """Say that so many bytes more are in memory.

    Raises
    ------
    StepTooLarge
        When that is more than the step may have.

    """
    allowance = _current.get()
    if allowance is None:
        return
    allowance.left -= n_bytes
    if allowance.left < 0:
        raise StepTooLarge
