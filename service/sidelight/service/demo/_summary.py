"""What the demo did and found: for people, and as one line of JSON."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sidelight.service.demo._flights import WORDS
from sidelight.service.demo._season import Shift
from sidelight.service.demo._story import AlarmStory, ExplainedFlight

_BAR_CELLS = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlier:
    """One row that the detector found unlike its reference."""

    request_id: str
    score: float
    features: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoNumbers:
    """Everything that the summary says, gathered by the demo.

    Parameters
    ----------
    events_seen : int
        By the proxy: two for each request.
    inferences_stored : int
        Requests that were stored with their answers.
    orphans, quarantined, dropped, duplicates, lost : int
        Where the other events went; ``events_seen == 2 * inferences_stored + orphans +
        quarantined + dropped + duplicates + lost``.
    redelivered : int
        Events that the collector got a second time, because it was killed before it could
        acknowledge them; stored once, and no part of the sum.
    rows, outlier_rows : int
        Rows stored, and those called outliers.
    drift_alarms : tuple of AlarmStory
        In the order in which they were raised.
    outliers : tuple of Outlier
        The most extreme ones.
    explanation : ExplainedFlight or None
        One late flight; None when it could not be explained.
    requests, failures : int
        Sent by the client, and not answered rightly.
    labels : int
        Posted.
    first_day, last_day : str
        Of the flights in the stream.
    auc_held_out, auc_stream : float
        Of the model: on the end of March, and on the stream.
    seconds : float
        Of the whole demo.
    url : str or None
        Of the console; None when it does not stay up.
    data : str
        The data folder.
    shifts : tuple of Shift
        How far each feature went, against the yardstick of the first quarter.

    """

    events_seen: int
    inferences_stored: int
    orphans: int
    quarantined: int
    dropped: int
    duplicates: int
    lost: int
    rows: int
    outlier_rows: int
    drift_alarms: tuple[AlarmStory, ...]
    outliers: tuple[Outlier, ...]
    explanation: ExplainedFlight | None
    requests: int
    failures: int
    labels: int
    first_day: str
    last_day: str
    auc_held_out: float
    auc_stream: float
    seconds: float
    url: str | None
    data: str
    shifts: tuple[Shift, ...] = ()
    redelivered: int = 0

    @property
    def accounted(self) -> bool:
        """Whether each event that the proxy saw is where it belongs."""
        elsewhere = self.orphans + self.quarantined + self.dropped + self.duplicates
        return self.lost == 0 and self.events_seen == 2 * self.inferences_stored + elsewhere


def json_line(numbers: DemoNumbers) -> str:
    """Return the one line that ``sidelight demo --once`` ends with; NaN is null."""
    explained = numbers.explanation
    line: dict[str, Any] = {
        "events_seen": numbers.events_seen,
        "inferences_stored": numbers.inferences_stored,
        "orphans": numbers.orphans,
        "quarantined": numbers.quarantined,
        "dropped": numbers.dropped,
        "duplicates": numbers.duplicates,
        "lost": numbers.lost,
        "rows": numbers.rows,
        "drift_alarms": [alarm.to_json() for alarm in numbers.drift_alarms],
        "outlier_rows": numbers.outlier_rows,
        "explanation": explained.to_json() if explained else {},
        "shifts": [shift.to_json() for shift in numbers.shifts],
        "redelivered": numbers.redelivered,
        "requests": numbers.requests,
        "failures": numbers.failures,
        "labels": numbers.labels,
        "first_day": numbers.first_day,
        "last_day": numbers.last_day,
        "auc_held_out": numbers.auc_held_out,
        "auc_stream": numbers.auc_stream,
        "seconds": round(numbers.seconds, 3),
    }
    return json.dumps(_finite(line), allow_nan=False)


def print_summary(console: Console, numbers: DemoNumbers) -> None:
    """Print what was streamed, found and explained, and what to open next.

    Parameters
    ----------
    console : rich.console.Console
        Where to.
    numbers : DemoNumbers
        What to say.

    """
    console.rule("[bold]Sidelight: the flights of 2013")
    console.print(_streamed(numbers), markup=False)
    console.print()
    console.print(_alarms(numbers))
    if numbers.shifts:
        console.print(_seasons(numbers))
    console.print(_outliers(numbers), markup=False)
    if numbers.explanation is not None:
        console.print()
        console.print(_bars(numbers.explanation))
    else:
        console.print("No flight was explained.")
    console.print()
    console.print(_accounting(numbers))
    console.print(_next(numbers), markup=False, soft_wrap=True)


def _streamed(numbers: DemoNumbers) -> str:
    failed = f", {numbers.failures:,} of them failed" if numbers.failures else ""
    return (
        f"{numbers.rows:,} flights of {numbers.first_day} to {numbers.last_day} in "
        f"{numbers.requests:,} requests{failed}; {numbers.labels:,} arrivals told later; "
        f"{numbers.seconds:.1f} s in all.\n"
        "The model was trained on January to March to say who will be over 15 minutes late: "
        f"area under the ROC curve {_area(numbers.auc_held_out)} at the end of March, "
        f"{_area(numbers.auc_stream)} on this stream."
    )


def _area(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "not known"


def _alarms(numbers: DemoNumbers) -> Table | str:
    if not numbers.drift_alarms:
        return "No drift alarm."
    table = Table(title="What changed", title_justify="left", title_style="bold")
    for name in ("alarm", "raised by flights of", "seen since", "ended", "led by"):
        table.add_column(name, overflow="fold")
    for alarm in numbers.drift_alarms:
        table.add_row(
            f"{alarm.kind} ({alarm.detector})",
            f"{alarm.raised_on or '?'} (row {alarm.raised_at_row:,})",
            alarm.since or "?",
            alarm.ended_on or "still open",
            alarm.feature_words,
        )
    return table


def _seasons(numbers: DemoNumbers) -> Table:
    table = Table(
        title="What is the season, and what is only weather",
        title_justify="left",
        title_style="bold",
        caption="Weather lasts for days, so January to March in order alarm against their own "
        "sample too. A feature is seasonal when its typical distance from the "
        "reference is above 0.1 and larger than any in those months.",
        caption_justify="left",
    )
    table.add_column("feature")
    table.add_column("typical distance", justify="right")
    table.add_column("largest in January to March", justify="right")
    table.add_column("seasonal")
    for shift in numbers.shifts:
        table.add_row(
            WORDS.get(shift.feature, shift.feature),
            f"{shift.typical:.2f}",
            f"{shift.within_quarter:.2f}",
            f"yes, beyond it from {shift.since}" if shift.is_seasonal else "no",
        )
    return table


def _outliers(numbers: DemoNumbers) -> str:
    lines = [f"{numbers.outlier_rows:,} of {numbers.rows:,} flights are unlike the first quarter."]
    lines += [f"  {item.request_id}: {_in_words(item.features)}" for item in numbers.outliers[:3]]
    return "\n".join(lines)


def _in_words(features: Mapping[str, Any]) -> str:
    told = ("temp", "humid", "wind_speed", "precip", "pressure", "visib")
    parts = [f"{WORDS[name]} {features[name]:g}" for name in told if features.get(name) is not None]
    return ", ".join(parts) or "no weather report"


def _bars(flight: ExplainedFlight) -> Table:
    minutes = flight.delay_minutes
    became = "it never came" if minutes is None else f"it came {minutes:.0f} minutes late"
    cut = "" if flight.converged else ", cut short by the deadline"
    table = Table(
        title=f"Why {flight.request_id} was expected late: {flight.prediction:.0%} against "
        f"{flight.base:.0%} on average; {became}",
        title_justify="left",
        title_style="bold",
        caption=f"{flight.method}, {flight.model_rows:,} rows asked of the live model{cut}",
        caption_justify="left",
    )
    table.add_column("feature")
    table.add_column("value", justify="right")
    table.add_column("share", justify="right")
    table.add_column("", min_width=_BAR_CELLS)
    largest = max((abs(share) for share in flight.attributions.values()), default=0.0)
    for name, share in flight.ranked():
        value = flight.features.get(name)
        table.add_row(
            WORDS.get(name, name),
            "missing"
            if value is None
            else f"{value:g}"
            if isinstance(value, float)
            else str(value),
            f"{share:+.3f}",
            _bar(share, largest),
        )
    return table


def _bar(share: float, largest: float) -> Text:
    n_cells = round(_BAR_CELLS * abs(share) / largest) if largest else 0
    return Text("█" * n_cells, style="red" if share > 0 else "green")


def _accounting(numbers: DemoNumbers) -> str:
    verdict = "[green]every event is accounted for[/]" if numbers.accounted else "[red]not equal[/]"
    return (
        f"{numbers.events_seen:,} events seen = 2 x {numbers.inferences_stored:,} stored + "
        f"{numbers.orphans:,} orphans + {numbers.quarantined:,} quarantined + "
        f"{numbers.dropped:,} dropped + {numbers.duplicates:,} duplicates; "
        f"{numbers.lost:,} lost: {verdict}"
    )


def _next(numbers: DemoNumbers) -> str:
    audit = f"sidelight verify --data {numbers.data}"
    if numbers.url is None:
        lines = [f"sidelight serve --data {numbers.data}", audit]
    else:
        pages = ("", "v1/alarms", "v1/inferences?limit=10", "metrics")
        lines = [*(f"{numbers.url}/{page}" for page in pages), audit]
    return "\n  ".join(["What to open next:", *lines])


def _finite(value: Any) -> Any:
    # JSON has no NaN, and a reader of the last line should not have to know Python's.
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
