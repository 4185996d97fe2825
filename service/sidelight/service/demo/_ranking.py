"""How well scores rank what came true."""

import numpy as np
from numpy.typing import ArrayLike


def area_under_curve(came_true: ArrayLike, scores: ArrayLike) -> float:
    """Return the area under the ROC curve: P(score of a true one > score of a false one).

    Ties count half (Mann and Whitney 1947). Computed here because the process that sends the
    traffic has no other use for scikit-learn, whose import takes a second.

    Parameters
    ----------
    came_true : array_like of bool, shape (n,)
        What happened.
    scores : array_like of float, shape (n,)
        What was said before; finite.

    Returns
    -------
    float, in [0, 1]
        NaN when one of both kinds does not occur.

    Examples
    --------
    >>> area_under_curve([False, False, True], [0.1, 0.4, 0.9])
    1.0
    >>> area_under_curve([False, True], [0.5, 0.5])
    0.5

    """
    truth = np.asarray(came_true, dtype=np.bool_)
    n_true = int(truth.sum())
    n_false = len(truth) - n_true
    if n_true == 0 or n_false == 0:
        return float("nan")
    _, place, count = np.unique(np.asarray(scores), return_inverse=True, return_counts=True)
    ranks = np.cumsum(count) - (count - 1) / 2
    above = ranks[place][truth].sum() - n_true * (n_true + 1) / 2
    return float(above / (n_true * n_false))
