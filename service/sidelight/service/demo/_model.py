"""The demo's model: will this flight be more than 15 minutes late."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped] # has no types

from sidelight.service.demo._flights import CATEGORICAL, FEATURES, training_rows
from sidelight.service.demo._ranking import area_under_curve

# The last two weeks of the quarter judge the model: neighbours in time share their weather,
# so that a random share would flatter it (0.738 instead of 0.717).
_HELD_OUT_DAYS = 14
# Small trees with full leaves, on purpose: the area is the same as of trees ten times as large
# (0.69 from April to December), and one row is answered in 0.4 ms instead of 1.5 ms.
_TREES = {"max_iter": 60, "max_leaf_nodes": 15, "min_samples_leaf": 200, "l2_regularization": 1.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class FlightModel:
    """A fitted model, with what is known about it.

    Parameters
    ----------
    classifier : HistGradientBoostingClassifier
        Takes the columns of ``FEATURES`` as float64, NaN where missing.
    codes : mapping of str to mapping of str to float
        For each categorical column the place of each known value.
    threshold : float, in (0, 1)
        Probability from which the answer is "late"; as many are called late in the training
        months as were late.
    auc : float, in [0, 1]
        Area under the ROC curve on the last two weeks of March, fitted without them.
    n_rows : int
        Flights that the model was fitted to.
    seconds : float
        What both fits took.

    """

    classifier: HistGradientBoostingClassifier
    codes: Mapping[str, Mapping[str, float]]
    threshold: float
    auc: float
    n_rows: int
    seconds: float

    def matrix(self, columns: Mapping[str, Sequence[Any]]) -> NDArray[np.float64]:
        """Code rows for the classifier; an unknown category counts as missing.

        Parameters
        ----------
        columns : mapping of str to sequence, each of shape (n,)
            Numbers or None for numeric features, strings or None for categorical ones.

        Returns
        -------
        ndarray of float64, shape (n, n_features)

        """
        return _matrix(columns, self.codes)

    def probability(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the probability of being late, shape (n,), in [0, 1]."""
        answer: NDArray[np.float64] = self.classifier.predict_proba(matrix)[:, 1]
        return answer


def train_model(flights: pd.DataFrame, *, seed: int = 2013) -> FlightModel:
    """Fit the model to January to March: once without the last two weeks to judge it, then to all.

    Parameters
    ----------
    flights : pandas.DataFrame
        From ``load_flights``; flights without an arrival are left out.
    seed : int, default 2013
        Of the classifier; the same flights give the same model.

    """
    started = time.perf_counter()
    rows = training_rows(flights).dropna(subset=["late"])
    recent = rows["departs"] >= rows["departs"].max().normalize() - pd.Timedelta(
        days=_HELD_OUT_DAYS - 1
    )
    past, judge = rows[~recent], rows[recent]
    codes = _codes(past)
    trial = _fit(past, codes, seed)
    scores = trial.predict_proba(_matrix(_columns(judge), codes))[:, 1]
    auc = area_under_curve(judge["late"].to_numpy() > 0, scores)

    codes = _codes(rows)
    classifier = _fit(rows, codes, seed)
    answers = classifier.predict_proba(_matrix(_columns(rows), codes))[:, 1]
    return FlightModel(
        classifier=classifier,
        codes=codes,
        threshold=float(np.quantile(answers, 1 - rows["late"].mean())),
        auc=auc,
        n_rows=len(rows),
        seconds=time.perf_counter() - started,
    )


def _fit(
    rows: pd.DataFrame, codes: Mapping[str, Mapping[str, float]], seed: int
) -> HistGradientBoostingClassifier:
    classifier = HistGradientBoostingClassifier(
        learning_rate=0.1, early_stopping=False, random_state=seed, **_TREES
    )
    # Threads of OpenMP spin while they wait for each other: on two cores that others use too, two
    # threads took 10.5 s where one takes 1.6 s, and on two free cores they win 0.2 s.
    with threadpool_limits(limits=1):
        return classifier.fit(_matrix(_columns(rows), codes), rows["late"].to_numpy() > 0)


def _codes(rows: pd.DataFrame) -> dict[str, dict[str, float]]:
    # In the order of their share of late flights a categorical column can be split like a number
    # without loss (Breiman et al. 1984, section 4.2.2), and needs no coding inside the classifier,
    # which costs it a millisecond a call.
    return {
        name: {
            str(value): float(place)
            for place, value in enumerate(rows.groupby(name)["late"].mean().sort_values().index)
        }
        for name in CATEGORICAL
    }


def _columns(rows: pd.DataFrame) -> dict[str, list[Any]]:
    return {name: rows[name].tolist() for name in FEATURES}


def _matrix(
    columns: Mapping[str, Sequence[Any]], codes: Mapping[str, Mapping[str, float]]
) -> NDArray[np.float64]:
    coded = [
        [codes[name].get(value, np.nan) for value in columns[name]]
        if name in codes
        else columns[name]
        for name in FEATURES
    ]
    # A missing number is None here and becomes NaN, which the trees send its own way.
    return np.array(coded, dtype=np.float64).T
