"""The one component through which explainers call live models."""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from sidelight.explainers._grid import Grid
from sidelight.explainers._pacing import Limits
from sidelight.explainers._predicting import Predict, Target
from sidelight.explainers._session import Session
from sidelight.explainers._sharing import SharedLoad, Usage


class Broker:
    """Calls live models for all explainers of a process, within shared limits.

    Rows are sent once: equal rows of one request are one row, and answers are remembered by
    (deployment, version, output, row). Chunks go out concurrently in a bounded pool, at a bounded
    pace. What is answered does not depend on how rows were cut into calls. Explanations take
    turns: each keeps at most ``calls_in_flight`` chunks in the queue.

    Parameters
    ----------
    limits : Limits
        Caps across all explanations.
    clock : callable
        Monotonic seconds; deadlines are points of this clock.

    Examples
    --------
    >>> from sidelight.explainers import Background, Broker, LocalModel, Shapley, Target
    >>> background = Background(names=("a", "b"), rows=[(0.0, 0.0), (1.0, 1.0)])
    >>> model = LocalModel(lambda columns: [a + 2 * b for a, b in zip(*columns)])
    >>> with Broker() as broker:
    ...     explained = Shapley().explain(
    ...         [(3.0, 1.0)], background, broker=broker, model=model,
    ...         target=Target(deployment="test/sum"), deadline_s=60,
    ...     )
    >>> {name: item.value for name, item in explained.rows[0].attributions.items()}
    {'a': 2.5, 'b': 1.0}

    """

    def __init__(
        self, limits: Limits | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.limits = limits or Limits()
        self.clock = clock
        self._shared = SharedLoad(self.limits, clock)

    def session(
        self, model: Predict, target: Target, grid: Grid, *, deadline: float, output: int = 0
    ) -> Session:
        """Open the account of one explained row.

        Parameters
        ----------
        deadline : float
            Point of ``clock`` at which nothing is waited for any more.
        output : int, default 0
            Which column of the model's answer.

        """
        return Session(self._shared, model, target, grid, deadline=deadline, output=output)

    @property
    def total(self) -> Usage:
        """What all explanations together have cost since the start."""
        return self._shared.total

    def close(self) -> None:
        """Send nothing more; calls that are open end on their own."""
        self._shared.pool.shutdown(wait=False, cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
