"""The answer of a test of one window."""

from typing import NamedTuple


class Comparison(NamedTuple):
    """How far a window is from the reference, and how surprising that is.

    Attributes
    ----------
    distance : float or None
        Effect size in the unit of the test, corrected for its bias, not negative. None when there
        are too few rows.
    p_value : float or None
        Probability of at least this distance without change, in (0, 1]; for one look at
        independent rows. None when there are too few rows.
    reason : str
        Why there is no answer; empty when there is one.

    """

    distance: float | None
    p_value: float | None
    reason: str = ""

    @property
    def sufficient(self) -> bool:
        """Whether there were enough rows for an answer."""
        return self.distance is not None


def insufficient(rows: int, needed: int, what: str) -> Comparison:
    """Answer for a window or a reference that is too small."""
    return Comparison(
        distance=None, p_value=None, reason=f"{rows} rows in the {what}, {needed} needed"
    )
