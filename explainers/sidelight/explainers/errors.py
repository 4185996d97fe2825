"""Errors raised by the explainers.

``ExplainerError``
    ``ParameterError``      an explainer or the broker was configured with an impossible value
    ``RowError``            an instance or a background cannot be used
    ``BudgetTooSmall``      the rows allowed do not even pay for the first estimate
    ``OutputUnknown``       the model has no such numeric output; names those there are
    ``ModelError``          the live model gave nothing that an explanation could be made from
        ``ModelUnavailable``  it is down, refuses connections, or fails
        ``BadAnswer``         it answered rubbish
            ``VersionChanged``  two versions answered within one explanation
        ``DeadlineExceeded``  the time was over before there was a valid estimate
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


class ExplainerError(Exception):
    """Base class, so that a caller can catch everything from this package."""


class ParameterError(ExplainerError, ValueError):
    """A parameter is outside its allowed range."""

    def __init__(self, name: str, value: object, expected: str) -> None:
        """Keep the parts, so that an adapter can build its own message."""
        super().__init__(f"{name} must be {expected}, got {value!r}")
        self.name = name
        self.value = value
        self.expected = expected


class RowError(ExplainerError, ValueError):
    """An instance or a background row does not have the features of the deployment."""

    def __init__(self, what: str, *, expected: str, got: str) -> None:
        """Keep the parts, so that an adapter can build its own message."""
        super().__init__(f"{what}: expected {expected}, got {got}")
        self.what = what
        self.expected = expected
        self.got = got


class BudgetTooSmall(ExplainerError, ValueError):  # noqa: N818 - the name says it
    """The rows allowed do not pay for the first estimate; nothing of it was asked."""

    def __init__(self, *, needed: int, budget: int) -> None:
        """Keep the parts, so that an adapter can build its own message."""
        super().__init__(
            f"a first estimate needs {needed} rows of the model, budget_rows allows {budget}; "
            "raise budget_rows or take a smaller background"
        )
        self.needed = needed
        self.budget = budget


class OutputUnknown(ExplainerError, LookupError):  # noqa: N818 - the name says it
    """The model's answer has no such numeric output."""

    def __init__(self, output: str | None, *, numeric: Sequence[str], other: Sequence[str]) -> None:
        """Keep the parts, so that an adapter can build its own message."""
        wanted = "a numeric output" if output is None else f"the numeric output {output!r}"
        there = ", ".join(numeric) or "none"
        labels = f"; not numeric: {', '.join(other)}" if other else ""
        super().__init__(
            f"expected {wanted} in the model's answer, numeric outputs there are: {there}{labels}"
        )
        self.output = output
        self.numeric = tuple(numeric)
        self.other = tuple(other)


class ModelError(ExplainerError, RuntimeError):
    """The live model gave nothing that an explanation could be made from.

    Attributes
    ----------
    answers : NDArray of float64, shape (n,), or None
        What had been answered when a request was cut short, NaN where nothing was.

    """

    answers: NDArray[np.float64] | None = None


class ModelUnavailable(ModelError, ConnectionError):  # noqa: N818 - the name says it
    """The model is down, refuses connections, or answers with a failure of its own.

    Parameters
    ----------
    reached : bool
        Whether the request may have arrived; it counts as a call only then.
    again : bool
        Whether the same request is worth a second try at once: the connection broke,
        the model did not judge the request.

    """

    def __init__(self, message: str, *, reached: bool = True, again: bool = False) -> None:
        """Keep what the broker decides by."""
        super().__init__(message)
        self.reached = reached
        self.again = again


class BadAnswer(ModelError, ValueError):  # noqa: N818 - the name says it
    """The model answered, but with something that is no prediction for each row."""

    def __init__(self, what: str, *, expected: str, got: str) -> None:
        """Keep the parts, so that an adapter can build its own message."""
        super().__init__(f"{what}: expected {expected}, got {got}")
        self.what = what
        self.expected = expected
        self.got = got


class VersionChanged(BadAnswer):
    """Two versions of the model answered within one explanation, which would mix them."""


class DeadlineExceeded(ModelError, TimeoutError):  # noqa: N818 - the name says it
    """The time was over before there was a valid estimate."""
