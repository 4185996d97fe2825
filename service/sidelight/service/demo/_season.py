"""Which changes are more than weather: a yardstick from the training months themselves.

Weather lasts for days, so that consecutive flights are no random sample of anything: January to
March, streamed in order against a random sample of the same months, raises a drift alarm at the
first look too (at each of nine settings of window and threshold that were tried). The alarm is
right, those days do differ from the quarter, but it says nothing about the season. What does is
the size of the effect, measured against the largest one within the quarter.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from sidelight.detectors import DeploymentMonitor, DetectionSettings, Reference, Rows
from sidelight.service.demo._flights import CATEGORICAL, FEATURES, training_rows
from sidelight.service.demo._stream import FlightStream

_LARGE = DetectionSettings().drift_threshold
_EFFECTS = frozenset({"kolmogorov_smirnov", "chi_square"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Shift:
    """How far one feature went from its reference, and how far the quarter itself goes.

    Parameters
    ----------
    feature : str
        Name.
    typical : float, in [0, 1]
        Median over the looks at the stream of the Kolmogorov-Smirnov distance (of the total
        variation for a categorical feature).
    within_quarter : float, in [0, 1]
        The largest one over the looks at January to March in order.
    since : str or None
        Day of the flights of the first look beyond ``within_quarter``.

    """

    feature: str
    typical: float
    within_quarter: float
    since: str | None

    @property
    def is_seasonal(self) -> bool:
        """Whether a typical look at the stream is large, and beyond every look at the quarter.

        Median against maximum, because a longer stream has more looks to be extreme in. Large is
        what the detectors call a drift by default: 0.03 against 0.01 is no season.
        """
        return self.typical > max(self.within_quarter, _LARGE)

    def to_json(self) -> dict[str, Any]:
        """Return the form of the last line."""
        return asdict(self) | {"is_seasonal": self.is_seasonal}


def control_rows(
    flights: pd.DataFrame, reference: pd.DataFrame, n_rows: int, *, seed: int = 2013
) -> pd.DataFrame:
    """Draw flights of January to March, in order of departure, that are not in the reference.

    Parameters
    ----------
    flights, reference : pandas.DataFrame
        From ``load_flights`` and ``reference_rows``.
    n_rows : int
        A third of the stream's, so that a look covers as many days. A short one is a poor
        yardstick: 2,000 rows hold two windows of 1,000, hence two weathers of six weeks.
    seed : int, default 2013
        Of the draw.

    """
    rows = training_rows(flights)
    rows = rows[~rows["request_id"].isin(reference["request_id"])]
    chosen = np.random.default_rng(seed).permutation(len(rows))[:n_rows]
    return rows.iloc[np.sort(chosen)].reset_index(drop=True)


def yardstick(
    control: pd.DataFrame, reference: pd.DataFrame, *, settings: DetectionSettings | None = None
) -> dict[str, float]:
    """Return the largest distance of each feature over the looks at the control.

    Parameters
    ----------
    control, reference : pandas.DataFrame
        From ``control_rows`` and ``reference_rows``.
    settings : DetectionSettings, optional
        As the service has them; its defaults otherwise.

    """
    settings = settings or DetectionSettings()
    fitted = Reference.fit(_arrays(reference), settings=settings)
    monitor = DeploymentMonitor("demo/control", settings=settings, reference=fitted)
    times = [str(moment) for moment in control["departs"]]
    step = monitor.update(Rows(times=times, columns=_arrays(control)))
    seen = _distances(verdict.to_json() for verdict in step.verdicts)
    return {name: max(distance for _, distance in looks) for name, looks in seen.items()}


def tell_shifts(
    verdicts: Iterable[Mapping[str, Any]],
    stream: FlightStream,
    within_quarter: Mapping[str, float],
    *,
    rows_before: int = 0,
) -> tuple[Shift, ...]:
    """Compare the looks at the stream with the yardstick, the largest shift first.

    Parameters
    ----------
    verdicts : iterable of mapping
        Of ``GET /v1/verdicts``, in any order.
    stream : FlightStream
        What was sent.
    within_quarter : mapping of str to float
        From ``yardstick``; features that it does not name are left out.
    rows_before : int, default 0
        Rows that the verdicts count and that are not of this stream, such as the reference.

    """
    shifts = []
    for name, looks in _distances(verdicts).items():
        if name not in within_quarter:
            continue
        beyond = [rows for rows, distance in looks if distance > within_quarter[name]]
        since = stream.departs(min(beyond) - rows_before - 1).date().isoformat() if beyond else None
        shifts.append(
            Shift(
                feature=name,
                typical=float(np.median([distance for _, distance in looks])),
                within_quarter=within_quarter[name],
                since=since,
            )
        )
    return tuple(sorted(shifts, key=lambda shift: -shift.typical))


def _distances(verdicts: Iterable[Mapping[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    seen: dict[str, list[tuple[int, float]]] = {}
    for verdict in verdicts:
        if verdict["detector"] in _EFFECTS and verdict["distance"] is not None:
            look = (int(verdict["rows"]), float(verdict["distance"]))
            seen.setdefault(verdict["feature"], []).append(look)
    return seen


def _arrays(rows: pd.DataFrame) -> dict[str, Any]:
    return {
        name: rows[name].to_numpy(object if name in CATEGORICAL else np.float64)
        for name in FEATURES
    }
