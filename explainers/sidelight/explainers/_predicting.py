"""What the explainers ask of a model."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sidelight.explainers._rows import Columns


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a model said to rows.

    Parameters
    ----------
    values : NDArray of float64, shape (n_rows, n_outputs)
        Predictions, in the order of the rows.
    version : str or None
        The version that really answered, where the model tells.

    """

    values: NDArray[np.float64]
    version: str | None = None


class Predict(Protocol):
    """A model as the explainers see it; called from several threads at once."""

    def predict(self, columns: Columns, *, timeout_s: float) -> Answer:
        """Answer rows that are given by column, in the order of the features.

        Parameters
        ----------
        columns : tuple of lists, each of shape (n_rows,)
            Values of one feature each.
        timeout_s : float
            Seconds after which nobody waits for the answer any more.

        Raises
        ------
        ModelUnavailable
            If the model is down or fails.
        BadAnswer
            If what it answers is no prediction for each row.

        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Which model is asked for which output; answers are remembered under it."""

    deployment: str
    version: str | None = None
    output: str | None = None


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A function of this process as a model.

    Parameters
    ----------
    function : callable
        Takes the columns, returns predictions of shape (n_rows,) or (n_rows, n_outputs).
    version : str or None
        What to report as the version that answered.

    Examples
    --------
    >>> double = LocalModel(lambda columns: [2 * value for value in columns[0]])
    >>> double.predict(([1.0, 2.0],), timeout_s=1).values.tolist()
    [[2.0], [4.0]]

    """

    function: Callable[[Any], ArrayLike]
    version: str | None = None

    def predict(self, columns: Columns, *, timeout_s: float) -> Answer:  # noqa: ARG002
        """Call the function; it cannot be interrupted, so the timeout is not used."""
        values = np.asarray(self.function(columns), dtype=np.float64)
        return Answer(values=values[:, None] if values.ndim == 1 else values, version=self.version)
