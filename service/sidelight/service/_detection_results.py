"""Verdicts, alarms and gauges in the form in which they are published.

The verdicts of one look are one document: they belong together, and a look has several for each
column.
"""

from collections.abc import Iterable
from itertools import groupby

from sidelight.detectors import DeploymentMonitor
from sidelight.logger import Document
from sidelight.payloads import Alarm, Verdict
from sidelight.service._gauges import gauges_document
from sidelight.service._metrics import Labels, split_name

LOOKS = "verdicts"
ALARMS = "alarms"
_KINDS = ("drift", "outlier_rate")


def look_documents(deployment: str, verdicts: Iterable[Verdict]) -> list[Document]:
    """Return one document for each look."""
    documents = []
    for rows, group in groupby(verdicts, key=lambda verdict: verdict.rows):
        items = [verdict.to_json() for verdict in group]
        documents.append(
            Document(
                collection=LOOKS,
                key=f"{deployment}|{rows:015d}",
                deployment=deployment,
                order=f"{items[0]['time']}",
                value={"verdicts": items},
            )
        )
    return documents


def alarm_document(alarm: Alarm) -> Document:
    """Return an alarm's document; a later state replaces an earlier one."""
    return Document(
        collection=ALARMS,
        key=alarm.id,
        deployment=alarm.deployment,
        order=alarm.raised_at,
        value=alarm.to_json(),
    )


def monitor_gauges(deployment: str, monitor: DeploymentMonitor) -> Document:
    """Return the gauges that every row may move."""
    labels = split_name(deployment)
    open_kinds = {alarm.kind for alarm in monitor.open_alarms}
    values: dict[tuple[str, Labels], float] = {
        ("reference_rows", labels): float(monitor.reference_rows),
        **{
            ("drift_alarm", (*labels, ("kind", kind))): float(kind in open_kinds) for kind in _KINDS
        },
    }
    if monitor.outlier_rate is not None:
        values["outlier_rate", labels] = monitor.outlier_rate
    return gauges_document(deployment, values)


def look_gauges(deployment: str, verdicts: Iterable[Verdict]) -> list[Document]:
    """Return the gauges of the last look among these verdicts; none when there was no look."""
    last: list[Verdict] = []
    for verdict in verdicts:
        if last and last[-1].rows != verdict.rows:
            last.clear()
        last.append(verdict)
    values: dict[tuple[str, Labels], float] = {}
    for verdict in last:
        place = (
            *split_name(deployment),
            ("detector", verdict.detector),
            ("feature", verdict.feature or ""),
        )
        if verdict.distance is not None:
            values["drift_distance", place] = verdict.distance
        if verdict.log10_evidence is not None:
            values["drift_log10_evidence", place] = verdict.log10_evidence
    return [gauges_document(f"{deployment}|look", values)] if last else []
