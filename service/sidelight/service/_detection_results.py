"""Verdicts, alarms and gauges in the form in which they are published.

The verdicts of one look are one document: they belong together, and a look has several for each
column.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from sidelight.detectors import Answer, DeploymentMonitor, Look
from sidelight.logger import Document
from sidelight.payloads import Alarm
from sidelight.service._gauges import gauges_document
from sidelight.service._metrics import Labels, split_name

LOOKS = "verdicts"
ALARMS = "alarms"
_KINDS = ("drift", "outlier_rate")


def look_documents(looks: Iterable[Look]) -> list[Document]:
    """Return one document for each look; ``verdicts_of`` reads it.

    What all its verdicts share is written once: a third of their size.
    """
    return [
        Document(
            collection=LOOKS,
            key=f"{look.deployment}|{look.rows:015d}",
            deployment=look.deployment,
            order=look.time,
            value={
                "deployment": look.deployment,
                "version": look.version,
                "time": look.time,
                "rows": look.rows,
                "answers": [tuple(answer) for answer in look.answers],
            },
        )
        for look in looks
        if look.answers
    ]


def verdicts_of(value: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the verdicts of a document of a look, as the API shows them."""
    if "verdicts" in value:
        # As they were written before.
        return list(value["verdicts"])
    return [
        {
            "deployment": value["deployment"],
            "version": value["version"],
            "time": value["time"],
            "rows": value["rows"],
            **Answer(*answer)._asdict(),
        }
        for answer in value["answers"]
    ]


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
    rate = monitor.outlier_rate
    if rate is not None:
        values["outlier_rate", labels] = rate
    return gauges_document(deployment, values)


def look_gauges(deployment: str, looks: Iterable[Look]) -> list[Document]:
    """Return the gauges of a look of a deployment, if there is one."""
    namespace = split_name(deployment)
    documents = []
    for look in looks:
        values: dict[tuple[str, Labels], float] = {}
        for answer in look.answers:
            place = (
                *namespace,
                ("detector", answer.detector),
                ("feature", answer.feature or ""),
            )
            if answer.distance is not None:
                values["drift_distance", place] = answer.distance
            if answer.log10_evidence is not None:
                values["drift_log10_evidence", place] = answer.log10_evidence
        documents.append(gauges_document(f"{deployment}|look", values))
    return documents
