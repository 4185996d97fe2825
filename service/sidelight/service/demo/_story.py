"""What the service found, told in flights and their dates instead of rows and clock times."""

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sidelight.service.demo._flights import WORDS
from sidelight.service.demo._stream import FlightRequest, FlightStream
from sidelight.service.demo._traffic import TrafficReport

# As alarms name the model's answers beside its features.
_OUTPUTS = "outputs."


@dataclass(frozen=True, slots=True, kw_only=True)
class AlarmStory:
    """One alarm of the service.

    Parameters
    ----------
    id, kind, detector, state : str
        As the API names them.
    raised_at_row : int
        Rows that the detectors had seen.
    raised_on, since, ended_on : str or None
        Days of 2013 of the flights that were being asked about; None where not known.
    features : tuple of mapping
        ``{"name", "distance", "share"}``, largest share first.
    log10_evidence : float or None
        Of the alarm.

    """

    id: str
    kind: str
    detector: str
    state: str
    raised_at_row: int
    raised_on: str | None
    since: str | None
    ended_on: str | None
    features: tuple[Mapping[str, Any], ...]
    log10_evidence: float | None

    @property
    def feature_words(self) -> str:
        """The leading features, the model's own names explained."""
        names = [str(item["name"]) for item in self.features[:3]]
        named = [f"{name}: {WORDS.get(name.removeprefix(_OUTPUTS), 'feature')}" for name in names]
        return "; ".join(named) or "no single feature"

    def to_json(self) -> dict[str, Any]:
        """Return the form of the last line."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainedFlight:
    """One late flight with what made the model expect it.

    Parameters
    ----------
    request_id : str
        Of the flight.
    features : mapping of str to object
        What the model was asked with.
    delay_minutes : float or None
        What became of it.
    prediction, base : float
        Probability of this flight, and mean probability of the background.
    attributions : mapping of str to float
        Shares of each feature; they sum to ``prediction - base``.
    explanation_id, inference_id, method : str or None
        As the API names them.
    model_rows : int
        Rows that the live model was asked for it.
    converged : bool
        False when the deadline cut it short.

    """

    request_id: str
    features: Mapping[str, Any]
    delay_minutes: float | None
    prediction: float
    base: float
    attributions: Mapping[str, float]
    explanation_id: str | None
    inference_id: str | None
    method: str | None
    model_rows: int
    converged: bool

    def to_json(self) -> dict[str, Any]:
        """Return the form of the last line, the largest share first."""
        return asdict(self) | {"attributions": dict(self.ranked())}

    def ranked(self) -> list[tuple[str, float]]:
        """Return the shares by feature, the largest first, whichever its sign."""
        return sorted(self.attributions.items(), key=lambda item: -abs(item[1]))


def flight_day(stream: FlightStream, report: TrafficReport, moment: str | None) -> str | None:
    """Return the day of the flights that were asked about at a clock time.

    Parameters
    ----------
    stream, report : FlightStream, TrafficReport
        What was sent, and when.
    moment : str or None
        RFC 3339, from an alarm or an inference.

    """
    if moment is None or not report.sent_at:
        return None
    # Python reads the "Z" of RFC 3339 since 3.11.
    place = bisect_right(report.sent_at, datetime.fromisoformat(moment).timestamp()) - 1
    return stream.departs(stream.requests[max(place, 0)].first).date().isoformat()


def tell_alarm(
    alarm: Mapping[str, Any], stream: FlightStream, report: TrafficReport, *, rows_before: int = 0
) -> AlarmStory:
    """Translate an alarm of ``GET /v1/alarms``.

    Parameters
    ----------
    alarm : mapping
        As the API answers.
    stream, report : FlightStream, TrafficReport
        What was sent, and when.
    rows_before : int, default 0
        Rows of the deployment that the detectors count and that are not of this stream.

    """
    row = int(alarm["raised_at_row"])
    return AlarmStory(
        id=alarm["id"],
        kind=alarm["kind"],
        detector=alarm["detector"],
        state=alarm["state"],
        raised_at_row=row,
        # Rows are exact, where a clock time can stand for several flights.
        raised_on=stream.departs(row - rows_before - 1).date().isoformat(),
        since=flight_day(stream, report, alarm.get("since")),
        ended_on=flight_day(stream, report, alarm.get("ended_at")),
        features=tuple(alarm.get("features") or ()),
        log10_evidence=alarm.get("log10_evidence"),
    )


def tell_explanation(
    explanation: Mapping[str, Any], stream: FlightStream, request: FlightRequest
) -> ExplainedFlight:
    """Translate an explanation of ``POST /v1/explanations``.

    Parameters
    ----------
    explanation : mapping
        As the API answers, with at least one row.
    stream, request : FlightStream, FlightRequest
        Which flight it is.

    """
    row = explanation["rows"][0]
    return ExplainedFlight(
        request_id=request.id,
        features=stream.features(request.first),
        delay_minutes=stream.delay(request.first),
        prediction=float(row["prediction"]),
        base=float(row["base"]),
        attributions={name: float(item["value"]) for name, item in row["attributions"].items()},
        explanation_id=explanation.get("id"),
        inference_id=explanation.get("inference_id"),
        method=explanation.get("method"),
        model_rows=int((explanation.get("cost") or {}).get("model_rows", 0)),
        converged=bool((explanation.get("quality") or {}).get("converged", True)),
    )
