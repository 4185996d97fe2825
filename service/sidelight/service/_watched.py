"""One deployment as the detection stage holds it: its monitor and the rows of its reference."""

import hashlib
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa

from sidelight.detectors import DeploymentMonitor, DetectionSettings, DetectorError, Reference
from sidelight.logger import Document
from sidelight.service._columns import arrays_of, payload_columns
from sidelight.service._reference_files import (
    joined,
    read_given_reference,
    write_reference_file,
)
from sidelight.service._settings_deployment import DeploymentSettings
from sidelight.service.errors import ConfigurationError

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Watched:
    """What is remembered of one deployment between commits.

    Parameters
    ----------
    monitor : DeploymentMonitor
        Its statistics.
    token : str
        What it was started with; another one means another start.
    collected : list of record batches
        Rows of a reference that is not complete yet: features and outputs.
    stored_batches : int
        How many of these batches are in the committed state.
    stored_digest : str
        Digest of the reference that is in the committed state; empty for none.
    stored_rows : int or None
        ``rows_seen`` of the monitor in the committed state; None when it is not there in parts.
    published : dict of str to Document
        Documents that are written when they change, as they were committed last.

    """

    monitor: DeploymentMonitor
    token: str
    collected: list[pa.RecordBatch] = field(default_factory=list)
    stored_batches: int = 0
    stored_digest: str = ""
    stored_rows: int | None = None
    published: dict[str, Document] = field(default_factory=dict)

    @classmethod
    def start(cls, settings: DeploymentSettings, token: str, data: Path) -> "Watched":
        """Begin with nothing, or with the reference file that somebody configured."""
        schema = settings.schema
        detection = detection_settings(settings)
        reference = None
        if settings.reference.file is not None:
            table = read_given_reference(settings.reference.file)
            try:
                reference = Reference.fit(arrays_of(table), settings=detection, schema=schema)
            except DetectorError as error:
                raise ConfigurationError(f"reference.file: {error}") from error
            write_reference_file(data, reference.digest, table)
        monitor = DeploymentMonitor(
            settings.name, settings=detection, schema=schema, reference=reference
        )
        return cls(monitor=monitor, token=token)

    def collect(self, records: pa.RecordBatch) -> None:
        """Keep the rows that belong to a reference still being collected; before ``update``."""
        missing = self.monitor.settings.reference_rows - self.monitor.reference_rows
        if self.monitor.reference is None and missing > 0:
            self.collected.append(payload_columns(records.slice(0, missing)))

    def complete(self, data: Path, reference: Reference) -> None:
        """Write the rows of a reference that has become complete."""
        write_reference_file(data, reference.digest, joined(self.collected))

    def forget_collected(self) -> int:
        """Forget the rows of a complete reference; return how many batches were stored."""
        stored, self.stored_batches = self.stored_batches, 0
        self.collected.clear()
        return stored

    @property
    def digest(self) -> str:
        """Digest of the reference; empty while it is collected."""
        return "" if self.monitor.reference is None else self.monitor.reference.digest

    def note_committed(self) -> None:
        """Note that what was handed over is in the committed state now."""
        self.stored_batches = len(self.collected)
        self.stored_digest = self.digest
        self.stored_rows = self.monitor.rows_seen

    def reference_json(self) -> dict[str, Any]:
        """Return what the API shows of the reference."""
        reference = self.monitor.reference
        return {
            "rows": self.monitor.reference_rows,
            "digest": None if reference is None else reference.digest,
            "complete": reference is not None,
            "skipped": self.monitor.skipped,
        }


def detection_settings(settings: DeploymentSettings) -> DetectionSettings:
    """Return the detectors' parameters of a deployment."""
    values = settings.detection.model_dump(exclude={"enabled"})
    return DetectionSettings(reference_rows=settings.reference.first_rows, **values)


def token_of(settings: DeploymentSettings, deleted: str) -> str:
    """Return what changes when detection has to begin again: schema, reference, detection."""
    value = settings.model_dump(
        mode="json", by_alias=True, include={"schema_", "reference", "detection"}
    )
    return hashlib.sha256(orjson.dumps([value, deleted])).hexdigest()
