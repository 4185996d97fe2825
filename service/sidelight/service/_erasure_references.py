"""References without the rows that are erased.

The summary of a reference holds values of its rows, so leaving it as it is would keep them. It
is made anew from the rows that are left, and detection begins again with it. Rows are known by
their values: a reference has no ids, and that an equal row of somebody else goes as well changes
nothing.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from sidelight.adapters._query_rows import plain_values
from sidelight.detectors import DeploymentMonitor, Reference, Rows
from sidelight.logger import Document, Documents, Journals
from sidelight.payloads import FEATURE_PREFIX, OUTPUT_PREFIX
from sidelight.service._columns import arrays_of
from sidelight.service._detection_results import alarm_document
from sidelight.service._detection_state import replacing_state, stored_watched
from sidelight.service._erasure_finding import row_values
from sidelight.service._reference_files import (
    read_reference_file,
    write_reference_file,
)
from sidelight.service._registered import RegisteredSettings
from sidelight.service._watched import Watched, detection_settings

_FEWEST_ROWS: Final = 50

Values = Collection[int]


@dataclass(slots=True)
class ReferenceChange:
    """What is to be committed for the group ``detection``; digests whose files go after it."""

    state: dict[bytes, bytes | None] = field(default_factory=dict)
    documents: list[Document] = field(default_factory=list)
    obsolete: list[str] = field(default_factory=list)
    rows: int = 0


def without_rows(
    journals: Journals, documents: Documents, data: Path, deployment: str, values: Values
) -> ReferenceChange | None:
    """Take rows out of a deployment's reference, complete or not; None when it has none of them."""
    former = stored_watched(journals, deployment) if values else None
    if former is None:
        return None
    monitor = former.monitor
    if monitor.reference is None:
        tables = [pa.Table.from_batches([batch]) for batch in former.collected]
    else:
        try:
            tables = [read_reference_file(data, monitor.reference.digest)]
        except FileNotFoundError:
            return None
    kept = [table.filter(pa.array(_stays(table, values))) for table in tables]
    n_gone = sum(table.num_rows for table in tables) - sum(table.num_rows for table in kept)
    if not n_gone:
        return None
    change = ReferenceChange(rows=n_gone)
    change.documents += [_ended(alarm) for alarm in monitor.open_alarms]
    watched = _begun(documents, data, deployment, kept, former.token)
    if monitor.reference is not None and watched.digest != monitor.reference.digest:
        change.obsolete += _unused(documents, deployment, monitor.reference)
    change.state |= replacing_state(journals, deployment, watched)
    change.documents.append(
        Document(
            collection="references",
            key=deployment,
            deployment=deployment,
            value=watched.reference_json(),
        )
    )
    return change


def _begun(
    documents: Documents, data: Path, deployment: str, kept: list[pa.Table], token: str
) -> Watched:
    """Begin detection with the rows that are left, as a reference or as its first rows."""
    settings = RegisteredSettings(documents).settings(deployment)
    detection = detection_settings(settings)
    n_rows = sum(table.num_rows for table in kept)
    if len(kept) == 1 and n_rows >= max(_FEWEST_ROWS, detection.reference_rows // 2):
        reference = Reference.fit(arrays_of(kept[0]), settings=detection, schema=settings.schema)
        write_reference_file(data, reference.digest, kept[0])
        monitor = DeploymentMonitor(
            deployment, settings=detection, schema=settings.schema, reference=reference
        )
        return Watched(monitor=monitor, token=token)
    monitor = DeploymentMonitor(deployment, settings=detection, schema=settings.schema)
    watched = Watched(monitor=monitor, token=token)
    for table in kept:
        for batch in table.combine_chunks().to_batches():
            if batch.num_rows:
                watched.collect(batch)
                columns = arrays_of(batch)
                times = [""] * batch.num_rows
                monitor.update(Rows(times=times, version=None, columns=columns))
    return watched


def _stays(table: pa.Table, values: Values) -> Any:
    stays = [row not in values for row in _rows(table)]
    return np.array(stays, dtype=np.bool_)


def _rows(table: pa.Table) -> Iterator[int]:
    sections = []
    for prefix in (FEATURE_PREFIX, OUTPUT_PREFIX):
        names = [name for name in table.schema.names if name.startswith(prefix)]
        columns = [plain_values(table.column(name)) for name in names]
        bare = [name.removeprefix(prefix) for name in names]
        sections.append((bare, columns))
    (features, feature_columns), (outputs, output_columns) = sections
    for number in range(table.num_rows):
        yield row_values(
            {name: of[number] for name, of in zip(features, feature_columns, strict=True)},
            {name: of[number] for name, of in zip(outputs, output_columns, strict=True)},
        )


def _unused(documents: Documents, deployment: str, reference: Reference) -> list[str]:
    """Return the digest of a former reference, unless another deployment has the same rows."""
    page = documents.find("references", limit=10_000)
    others = {value.get("digest") for _, key, value in page if key != deployment}
    return [] if reference.digest in others else [reference.digest]


def _ended(alarm: Any) -> Document:
    # Nobody would ever end it: the tests that raised it are gone.
    now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return alarm_document(replace(alarm, state="ended", ended_at=now))
